"""What belongs to one visitor: an image, its map, and everything made of them so far.

A visit is a value. The jobs of `jobs.py` make a new one of it, and the page keeps one for each
visitor, so that two of them share nothing but the editor.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wys.apps.page.words import Figures, file_name
from wys.errors import WysError

if TYPE_CHECKING:
    from wys.image import Picture
    from wys.relevance import RelevanceMap

KEPT = 24
"""Results that a visit remembers; the oldest goes first."""
ARCHIVE = "wys.zip"
"""All files of a result in one."""


@dataclass(frozen=True)
class Given:
    """An image to edit."""

    path: Path
    """The file as it came, in the visitor's folder."""
    picture: Picture


@dataclass(frozen=True)
class MadeMap:
    """A relevance map, and what it was made with."""

    relevance: RelevanceMap
    editor: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """One edited image in its folder, whose files are those of `wys edit`."""

    folder: Path
    given: Given
    instruction: str
    seed: int
    run: int
    """Outcomes of one press of the button have one number."""
    figures: Figures
    command: str
    """The `wys edit` line that does the same."""

    @property
    def caption(self) -> str:
        return f"{self.instruction} · seed {self.seed}"


@dataclass
class Stop:
    """Whether a visitor wants the work under way to stop. Unlike a visit it is no value: the
    button that cancels and the job that looks at it between two steps share one."""

    wanted: bool = False


@dataclass(frozen=True)
class Visit:
    """One visitor's work so far."""

    folder: Path | None = None
    """Where the visitor's files lie; None before the first."""
    given: Given | None = None
    look: MadeMap | None = None
    outcomes: tuple[Outcome, ...] = ()
    """Oldest first."""
    shown: int | None = None
    """Which of `outcomes` is looked at."""
    editor: str = ""
    """The editor that the numbers in the form belong to; empty for the page's own."""
    runs: int = 0
    """Runs so far, for the names of folders."""

    @property
    def outcome(self) -> Outcome | None:
        """The result that is looked at."""
        return None if self.shown is None else self.outcomes[self.shown]

    @property
    def variants(self) -> tuple[int, ...]:
        """Positions of the results that were made together with the one looked at."""
        if self.outcome is None:
            return ()
        return tuple(i for i, o in enumerate(self.outcomes) if o.run == self.outcome.run)

    def taking(self, path: Path, name: str, root: Path, max_pixels: int) -> Visit:
        """With a copy of an image file to edit, and no map; raises WysError if it is no image."""
        from wys.image import read_picture

        try:
            picture = read_picture(path, max_pixels)
        except WysError as error:
            # The visitor knows the file by its own name, not by where the server put it.
            raise WysError(str(error).replace(str(path), file_name(name))) from error
        visit = self.with_folder(root)
        assert visit.folder is not None
        place = Path(tempfile.mkdtemp(prefix="input-", dir=visit.folder))
        # Beside the results, the input must not bear the name of one of them.
        taken = ("edited", "relevance", "mask", "sheet", "run", "wys", "shown")
        kept = file_name(name)
        copy = place / (f"input-{kept}" if kept.split(".")[0] in taken else kept)
        shutil.copyfile(path, copy)
        return replace(visit, given=Given(copy, picture), look=None)

    def with_folder(self, root: Path) -> Visit:
        """With a folder of its own below `root`."""
        if self.folder is not None:
            return self
        return replace(self, folder=Path(tempfile.mkdtemp(prefix="visit-", dir=root)))

    def cleared(self) -> Visit:
        """Without an image; the results stay."""
        return replace(self, given=None, look=None)

    def showing(self, position: int) -> Visit:
        """With another of the results looked at."""
        if not 0 <= position < len(self.outcomes):
            raise WysError("this result is gone; choose another.")
        return replace(self, shown=position)

    def with_outcome(self, outcome: Outcome) -> Visit:
        """With one more result, which is looked at unless its run has shown one already."""
        first = self.outcome is None or self.outcome.run != outcome.run
        outcomes, shown = (*self.outcomes, outcome), self.shown
        shown = len(outcomes) - 1 if first or shown is None else shown
        for old in outcomes[:-KEPT]:
            shutil.rmtree(old.folder, ignore_errors=True)
        shown -= max(0, len(outcomes) - KEPT)
        return replace(self, outcomes=outcomes[-KEPT:], shown=max(0, shown))

    def close(self) -> None:
        """Deletes the visitor's files."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
