"""A few rendered scenes to try the page on, with instructions that fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wys.tabletop.edits import Kind

KINDS: tuple[Kind, ...] = ("recolour", "remove", "floor", "background", "light")
FIRST = 0


@dataclass(frozen=True)
class Sample:
    """An image to try, with an instruction that fits."""

    path: Path
    instruction: str


def render_samples(folder: Path, size: int) -> tuple[Sample, ...]:
    """Renders the tabletop scenes of `make demo` into a folder."""
    from wys.image import write_image
    from wys.tabletop.pairs import make_pairs
    from wys.tabletop.world import PLAIN

    pairs = make_pairs(
        0, "validation", FIRST, len(KINDS), size=size, scene_range=PLAIN, kinds=KINDS
    )
    samples = []
    for i, instruction in enumerate(pairs.plain_instructions):
        path = folder / f"table_{FIRST + i}.png"
        write_image(path, pairs.before[i])
        samples.append(Sample(path, instruction))
    return tuple(samples)
