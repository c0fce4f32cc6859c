"""A folder of one's own cases as a bench's source; see `datasets.edit_cases` for the layouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.datasets.edit_cases import EditCase, read_cases
from wys.diffusion.editor import Editor
from wys.errors import WysError
from wys.evaluation.cases import check_size
from wys.image import resize
from wys.tabletop.pairs import changed


@dataclass(frozen=True)
class OwnTruth:
    """A batch of one case, with what its folder knows of it. No object is known."""

    before: Float[Tensor, "1 3 h w"]
    after: Float[Tensor, "1 3 h w"] | None
    mask: Bool[Tensor, "1 h w"] | None
    instructions: list[str]
    kinds: Sequence[str]
    captions: Sequence[tuple[str, str] | None]

    @property
    def object_ids(self) -> Int[Tensor, "1 h w"]:
        """Zeros: no object is known."""
        return torch.zeros((1, *self.before.shape[-2:]), dtype=torch.int64)

    @property
    def target(self) -> Int[Tensor, " 1"]:
        """Zero: no object is named."""
        return torch.zeros(1, dtype=torch.int64)


@dataclass(frozen=True)
class OwnCases:
    """The first cases of a folder, or all.

    Images are brought to the size that the editor works on (or `size`, the longer side) before
    anything is edited or measured; truth and mask with them.
    """

    folder: Path
    """A folder in one of the layouts of `datasets.edit_cases`."""
    cases: int | None = None
    """Measure only the first so many."""
    seed: int = 0
    """Seed of the edits' noise."""
    size: int | None = None
    """The longer side of the images in pixels; the editor's own if not given."""
    batch: int = 1
    """Images differ in size: each is a batch of its own."""

    def __post_init__(self) -> None:
        if self.cases is not None and self.cases < 1:
            raise WysError("a bench needs at least 1 case.")
        check_size(self.size)

    @cached_property
    def entries(self) -> list[EditCase]:
        """The cases; raises WysError where the folder holds none or is damaged."""
        return read_cases(self.folder)[: self.cases]

    @property
    def count(self) -> int:
        """Number of cases."""
        return len(self.entries)

    @property
    def settings(self) -> dict[str, Any]:
        """What the cases depend on."""
        folder = str(self.folder.resolve())
        return {"data": folder, "cases": self.count, "seed": self.seed, "size": self.size}

    def unit(self, seed: int, case: str) -> str:
        """The same cases under every seed."""
        return case

    def batches(
        self, editor: Editor, seed: int | None = None
    ) -> Iterator[tuple[tuple[str, ...], OwnTruth]]:
        """The cases one by one; `seed` changes the noise only."""
        for entry in self.entries:
            yield (entry.name,), self.truth(entry, editor)

    def truth(self, entry: EditCase, editor: Editor) -> OwnTruth:
        """Reads a case.

        Without a mask but with a true edited image, the mask is where the two differ visibly.

        Raises:
            WysError: a file cannot be read, or before and after differ in shape.
        """
        before, after = entry.read_before(), entry.read_after()
        given = (before.shape[-2], before.shape[-1])
        if after is not None:
            ratio = (after.shape[-2] * given[1]) / (after.shape[-1] * given[0])
            if not 0.99 < ratio < 1.01:
                raise WysError(f"{entry.before} and {entry.after} differ in shape.")
        size = editor.fit(given)
        if self.size is not None:
            scale = self.size / max(given)
            size = (max(8, round(given[0] * scale)), max(8, round(given[1] * scale)))
        mask = entry.read_mask(given)
        before = resize(before[None], size)
        after = None if after is None else resize(after[None], size)
        if mask is not None:
            # A pixel is in the mask where any part of it is, so that nothing thin is lost.
            mask = F.adaptive_max_pool2d(mask[None].float(), size)[0] > 0
        elif after is not None:
            mask = changed(before, after)
        return OwnTruth(before, after, mask, [entry.instruction], [entry.kind], [entry.captions])
