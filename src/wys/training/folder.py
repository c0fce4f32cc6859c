"""A user's own triplets: a folder of images with `metadata.jsonl`.

Each line of `metadata.jsonl` is an object

    {"before": "a.png", "after": "b.png", "instruction": "make the sky red", "mask": "m.png"}

with paths relative to the folder. `mask` is optional: light where the edit changes the image;
without it the mask is where the two images differ visibly. Images may have any size, both of a pair
the same; they are scaled so that the shorter side fits and cropped at the centre.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.datasets.edit_cases import METADATA, EditCase, read_metadata_lines
from wys.errors import WysError
from wys.image import resize
from wys.tabletop.pairs import changed
from wys.tabletop.world import Split

VALIDATION_EVERY = 20
"""Of this many different before images the first is held out for validation."""


@dataclass(frozen=True)
class FolderBatch:
    """Triplets without labels: no object is known (no slots), no target named."""

    before: Float[Tensor, "b 3 h w"]
    after: Float[Tensor, "b 3 h w"]
    mask: Bool[Tensor, "b h w"]
    instructions: list[str]
    kinds: Sequence[str]
    object_ids: Int[Tensor, "b h w"]
    after_ids: Int[Tensor, "b h w"]
    target: Int[Tensor, " b"]
    shapes: Int[Tensor, "b slots"]
    colours: Int[Tensor, "b slots"]
    materials: Int[Tensor, "b slots"]
    after_shapes: Int[Tensor, "b slots"]
    after_colours: Int[Tensor, "b slots"]
    after_materials: Int[Tensor, "b slots"]
    descriptions: Sequence[None]


@dataclass(frozen=True)
class Folder:
    """The triplets of a folder as a source; see the module for its layout.

    Triplets that share their before image are all in training or all in validation.
    """

    path: Path

    @property
    def identity(self) -> dict[str, Any]:
        """The metadata's bytes, as which triplets are held out hangs on all lines, and the sizes of
        the images' files: reading all of them each time would take too long."""
        files = [
            file
            for entries in self.entries.values()
            for entry in entries
            for file in (entry.before, entry.after, entry.mask)
        ]
        sizes = [file.stat().st_size if isinstance(file, Path) else 0 for file in files]
        metadata = (self.path / METADATA).read_bytes()
        return {
            "metadata": sha256(metadata).hexdigest(),
            "images": sha256(json.dumps(sizes).encode()).hexdigest(),
        }

    @property
    def edits_per_scene(self) -> int:
        return 1

    @property
    def labelled(self) -> bool:
        return False

    @cached_property
    def entries(self) -> dict[str, list[EditCase]]:
        """The entries of "train" and "validation".

        Raises:
            WysError: the metadata is missing, or a line is not as the module tells.
        """
        entries = read_metadata_lines(self.path, needed=("after",))
        order = {path: i for i, path in enumerate(dict.fromkeys(e.before for e in entries))}
        if len(order) < 2:
            raise WysError(
                f"{self.path / METADATA} needs triplets with at least 2 different before images."
            )
        held_out = [order[entry.before] % VALIDATION_EVERY == 0 for entry in entries]
        return {
            "validation": [e for e, held in zip(entries, held_out, strict=True) if held],
            "train": [e for e, held in zip(entries, held_out, strict=True) if not held],
        }

    def check(self, report: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Reads everything once, so that what is wrong is said before anything is made of it.

        Args:
            report: called with the triplets that were read, and with how many there are.

        Raises:
            WysError: the metadata or an image cannot be read, or images of a triplet differ in
                size.
        """
        entries = [entry for split in self.entries.values() for entry in split]
        for i, entry in enumerate(entries):
            read_triplet(entry)
            report(i + 1, len(entries))

    def count(self, split: Split, size: int) -> int:
        return len(self.entries.get(split, []))

    def pairs(self, split: Split, first: int, count: int, size: int) -> FolderBatch:
        """Reads triplets; raises WysError where images cannot be read or differ in size."""
        entries = self.entries[split][first : first + count]
        before, after, masks = [], [], []
        for entry in entries:
            image, truth, mask = read_triplet(entry)
            a, b = square(image, size), square(truth, size)
            before.append(a)
            after.append(b)
            if mask is None:
                masks.append(changed(a[None], b[None])[0])
            else:
                masks.append(square(mask.float(), size)[0] >= 0.5)
        n = len(entries)
        nothing = torch.empty((n, 0), dtype=torch.int64)
        nowhere = torch.zeros((n, size, size), dtype=torch.int64)
        return FolderBatch(
            before=torch.stack(before),
            after=torch.stack(after),
            mask=torch.stack(masks),
            instructions=[entry.instruction for entry in entries],
            kinds=["own"] * n,
            object_ids=nowhere,
            after_ids=nowhere,
            target=torch.zeros(n, dtype=torch.int64),
            shapes=nothing,
            colours=nothing,
            materials=nothing,
            after_shapes=nothing,
            after_colours=nothing,
            after_materials=nothing,
            descriptions=[None] * n,
        )


def read_triplet(
    entry: EditCase,
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"], Bool[Tensor, "1 h w"] | None]:
    """The images before and after, and the mask that was given for them.

    Raises:
        WysError: one of them cannot be read, or they differ in size.
    """
    image, truth = entry.read_before(), entry.read_after()
    assert truth is not None
    if image.shape != truth.shape:
        raise WysError(f"{entry.before} and {entry.after} differ in size.")
    return image, truth, entry.read_mask((image.shape[-2], image.shape[-1]))


def square(image: Float[Tensor, "c h w"], size: int) -> Float[Tensor, "c size size"]:
    """Scaled so that the shorter side is `size`, then cropped at the centre."""
    h, w = image.shape[-2:]
    scale = size / min(h, w)
    scaled = resize(image, (max(size, round(h * scale)), max(size, round(w * scale))))
    top, left = (scaled.shape[-2] - size) // 2, (scaled.shape[-1] - size) // 2
    return scaled[..., top : top + size, left : left + size]
