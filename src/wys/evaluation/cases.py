"""What a bench measures on: cases of the tabletop world, or of a folder; see `own_cases`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.diffusion.editor import Editor
from wys.errors import WysError
from wys.evaluation.captions import captions
from wys.tabletop.edits import Kind
from wys.tabletop.pairs import Pairs, make_pairs
from wys.tabletop.world import CLEVR, FULL, PLAIN, SceneRange, Split

World = Literal["plain", "full", "clevr"]
RANGES: dict[World, SceneRange] = {"plain": PLAIN, "full": FULL, "clevr": CLEVR}


@runtime_checkable
class Truth(Protocol):
    """A batch of b cases, and what is known of them. `tabletop.pairs.Pairs` knows everything."""

    @property
    def before(self) -> Float[Tensor, "b 3 h w"]:
        """The images to edit, in [0, 1]."""

    @property
    def instructions(self) -> list[str]:
        """What is asked for."""

    @property
    def kinds(self) -> Sequence[str]:
        """Groups of cases that get rows of their own."""

    @property
    def after(self) -> Float[Tensor, "b 3 h w"] | None:
        """The true edited images."""

    @property
    def mask(self) -> Bool[Tensor, "b h w"] | None:
        """The pixels that the true edit changes."""

    @property
    def object_ids(self) -> Int[Tensor, "b h w"]:
        """Which object each pixel shows before the edit; 0 is none."""

    @property
    def target(self) -> Int[Tensor, " b"]:
        """The id of the object that the instruction names; 0 where unknown or none."""


Batch = tuple[tuple[str, ...], Truth]
"""The identities of a batch's cases, and the cases."""


def check_size(size: int | None) -> None:
    """Raises WysError where images of a side in pixels cannot be edited; None: the editor's own."""
    if size is not None and not 16 <= size <= 4096:
        raise WysError(f"--size is from 16 to 4096 pixels, not {size}.")


@runtime_checkable
class Source(Protocol):
    """Where a bench's cases come from; the same cases in the same batches every time."""

    @property
    def batch(self) -> int:
        """Most cases in a batch."""

    @property
    def count(self) -> int:
        """Number of cases."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the cases depend on, as JSON."""

    def batches(self, editor: Editor, seed: int | None = None) -> Iterator[Batch]:
        """The cases, at the size that the editor works on."""

    def unit(self, seed: int, case: str) -> str:
        """Which case of the world a measurement is of: seeds may have cases of their own."""


@dataclass(frozen=True)
class Cases:
    """Cases of the tabletop world."""

    cases: int = 100
    """Number of cases; the kinds of edit take turns."""
    seed: int = 0
    """Seed of the cases and of the edits' noise."""
    split: Split = "test"
    """test has phrasings and colours of shapes that training never shows."""
    world: World = "plain"
    """plain: what the CPU preset trains on; full: everything; clevr: that look."""
    size: int | None = None
    """Side of the square images in pixels; the editor's own if not given."""
    batch: int = 8
    """Cases edited at once."""

    def __post_init__(self) -> None:
        if self.cases < 1 or self.batch < 1:
            raise WysError("a bench needs at least 1 case, and a batch of at least 1.")
        check_size(self.size)

    @property
    def count(self) -> int:
        """Number of cases."""
        return self.cases

    @property
    def settings(self) -> dict[str, Any]:
        """What the cases depend on."""
        return asdict(self)

    def unit(self, seed: int, case: str) -> str:
        """Every seed draws cases of its own."""
        return f"{seed} {case}"

    def batches(
        self, editor: Editor, seed: int | None = None
    ) -> Iterator[tuple[tuple[str, ...], Pairs]]:
        """The cases in batches, each with the identities of its cases.

        Args:
            seed: another than the own one.
        """
        return self._drawn(editor, self.seed if seed is None else seed, self.cases, None)

    def absent(self, editor: Editor) -> Iterator[tuple[tuple[str, ...], Pairs]]:
        """Instructions that name an absent object, half as many as there are cases."""
        return self._drawn(editor, self.seed, max(1, self.cases // 2), "absent")

    def _drawn(
        self, editor: Editor, seed: int, cases: int, kind: Kind | None
    ) -> Iterator[tuple[tuple[str, ...], Pairs]]:
        names = self.split if kind is None else f"{self.split} {kind}"
        for first in range(0, cases, self.batch):
            count = min(self.batch, cases - first)
            pairs = make_pairs(
                seed,
                self.split,
                first,
                count,
                size=self.size or editor.native_size,
                scene_range=RANGES[self.world],
                kinds=None if kind is None else (kind,),
            )
            yield tuple(f"{names} {first + i}" for i in range(count)), pairs


def captions_of(truth: Truth) -> list[tuple[str, str] | None]:
    """What each image shows before and after the edit, in words; None where nobody said."""
    if isinstance(truth, Pairs):
        return list(zip(captions(truth.scenes), captions(truth.edited), strict=True))
    said = getattr(truth, "captions", None)
    return [None] * len(truth.instructions) if said is None else list(said)
