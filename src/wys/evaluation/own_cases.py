"""A folder of one's own cases as a bench's source; see `datasets.edit_cases` for the layouts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
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
    """A batch of cases, with what their folder knows of them. No object is known."""

    before: Float[Tensor, "b 3 h w"]
    after: Float[Tensor, "b 3 h w"] | None
    mask: Bool[Tensor, "b h w"] | None
    instructions: list[str]
    kinds: Sequence[str]
    captions: Sequence[tuple[str, str] | None]

    @property
    def object_ids(self) -> Int[Tensor, "b h w"]:
        """Zeros: no object is known."""
        return torch.zeros_like(self.before[:, 0], dtype=torch.int64)

    @property
    def target(self) -> Int[Tensor, " b"]:
        """Zeros: no object is named."""
        return torch.zeros(len(self.before), dtype=torch.int64)


@dataclass(frozen=True)
class MaskedSquares(OwnTruth):
    """Cases of one size of which it is known where they change."""

    mask: Bool[Tensor, "b h w"]


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
        return {
            "data": str(self.folder.resolve()),
            "cases": self.count,
            "contents": self.fingerprint,
            "seed": self.seed,
            "size": self.size,
        }

    @property
    def fingerprint(self) -> str:
        """Changes with what is asked for, and with the files: by their size and time."""
        facts = []
        for entry in self.entries:
            files = [
                entry.before,
                entry.after,
                entry.mask if isinstance(entry.mask, Path) else None,
            ]
            stats = [file.stat() for file in files if file is not None]
            facts.append((entry, [(stat.st_size, stat.st_mtime_ns) for stat in stats]))
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    def unit(self, seed: int, case: str) -> str:
        """The same cases under every seed."""
        return case

    def batches(
        self, editor: Editor, seed: int | None = None
    ) -> Iterator[tuple[tuple[str, ...], OwnTruth]]:
        """The cases one by one; `seed` changes the noise only."""
        for entry in self.entries:
            yield (entry.name,), self.truth(entry, editor)

    def squares(self, editor: Editor, batch: int) -> list[tuple[tuple[str, ...], MaskedSquares]]:
        """The middle square of every image, at one size, for what compares many cases at once.

        Cases whose square has no pixel to change are left out.

        Args:
            batch: most cases in a batch.

        Raises:
            WysError: of a case it is not known where it changes, or of none in its middle.
        """
        side = self.size or editor.native_size
        found: list[tuple[str, MaskedSquares]] = []
        for entry in self.entries:
            whole = self._read(entry, lambda given: _covering(given, side))
            if whole.mask is None:
                raise WysError(
                    f'{self.folder}, {entry.name}: it has no "mask" and no "after" to tell where '
                    "the edit is; add one."
                )
            cut = _middle(whole, side)
            if cut.mask.any():
                found.append((entry.name, cut))
        if not found:
            raise WysError(f"no case of {self.folder} changes in the middle square of its image.")
        batches = []
        for first in range(0, len(found), batch):
            names, cases = zip(*found[first : first + batch], strict=True)
            batches.append((names, _joined(cases)))
        return batches

    def truth(self, entry: EditCase, editor: Editor) -> OwnTruth:
        """Reads a case, at the size that the editor works on or at the own one.

        Without a mask but with a true edited image, the mask is where the two differ visibly.

        Raises:
            WysError: a file cannot be read, or before and after differ in shape.
        """

        def fitting(given: tuple[int, int]) -> tuple[int, int]:
            if self.size is None:
                return editor.fit(given)
            scale = self.size / max(given)
            return max(8, round(given[0] * scale)), max(8, round(given[1] * scale))

        return self._read(entry, fitting)

    def _read(
        self, entry: EditCase, size_for: Callable[[tuple[int, int]], tuple[int, int]]
    ) -> OwnTruth:
        """Reads a case and brings it to the size for its own (height, width)."""
        before, after = entry.read_before(), entry.read_after()
        given = (before.shape[-2], before.shape[-1])
        if after is not None:
            ratio = (after.shape[-2] * given[1]) / (after.shape[-1] * given[0])
            if not 0.99 < ratio < 1.01:
                raise WysError(f"{entry.before} and {entry.after} differ in shape.")
        size = size_for(given)
        mask = entry.read_mask(given)
        before = resize(before[None], size)
        after = None if after is None else resize(after[None], size)
        if mask is not None:
            # A pixel is in the mask where any part of it is, so that nothing thin is lost.
            mask = F.adaptive_max_pool2d(mask[None].float(), size)[0] > 0
        elif after is not None:
            mask = changed(before, after)
        return OwnTruth(before, after, mask, [entry.instruction], [entry.kind], [entry.captions])


def _covering(given: tuple[int, int], side: int) -> tuple[int, int]:
    """The size of the same shape whose shorter side is given."""
    scale = side / min(given)
    return max(side, round(given[0] * scale)), max(side, round(given[1] * scale))


def _middle(whole: OwnTruth, side: int) -> MaskedSquares:
    """The middle square of a case whose mask is known; of its true edit only the mask is kept."""
    assert whole.mask is not None
    height, width = whole.mask.shape[-2:]
    top, left = (height - side) // 2, (width - side) // 2
    rows, columns = slice(top, top + side), slice(left, left + side)
    return MaskedSquares(
        whole.before[..., rows, columns],
        None,
        whole.mask[..., rows, columns],
        whole.instructions,
        whole.kinds,
        whole.captions,
    )


def _joined(cases: Sequence[MaskedSquares]) -> MaskedSquares:
    return MaskedSquares(
        torch.cat([case.before for case in cases]),
        None,
        torch.cat([case.mask for case in cases]),
        [words for case in cases for words in case.instructions],
        [kind for case in cases for kind in case.kinds],
        [said for case in cases for said in case.captions],
    )
