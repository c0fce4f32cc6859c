"""Groups of options of the benches: which cases, which networks judge, where results go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from wys.apps.options import EditorOptions, optional
from wys.errors import WysError
from wys.names import resolved

if TYPE_CHECKING:
    from wys.diffusion.editor import Editor
    from wys.evaluation.cases import Cases, Source
    from wys.evaluation.journal import Journal
    from wys.evaluation.judges import Judges

RUN_FILES = ("run.json", "cases.jsonl", "tables.md", "report.html")
"""What a bench's --out holds beside its rows."""
World = Literal["plain", "full", "clevr"]
Size = Annotated[int | None, optional("PIXELS")]


@dataclass(frozen=True)
class CaseOptions:
    """On what it is measured."""

    cases: Annotated[int | None, optional("N")] = None
    """Number of cases (100; of --data: all); the kinds of edit take turns."""
    seed: int = 0
    """Seed of the cases and of the edits' noise."""
    seeds: int = 1
    """Measure with so many seeds, from --seed on."""
    split: Literal["test", "validation"] = "test"
    """test is for figures to publish, validation for choices."""
    world: World = "plain"
    """What the scenes are drawn from."""
    data: Annotated[Path | None, optional("DIR")] = None
    """A folder of cases in place of the world: one's own, MagicBrush's or PIE-Bench's."""
    size: Size = None
    """Side of the images (of --data: the longer one); the editor's own if not given."""
    batch: int = 8
    """Cases edited at once (of --data: always 1)."""

    def source(self) -> Source:
        """The cases; raises WysError where there are none."""
        from wys.evaluation.cases import Cases
        from wys.evaluation.own_cases import OwnCases

        if self.seeds < 1:
            raise WysError("a bench needs at least 1 seed.")
        if self.data is None:
            count = 100 if self.cases is None else self.cases
            return Cases(count, self.seed, self.split, self.world, self.size, self.batch)
        own = OwnCases(self.data, self.cases, self.seed, self.size)
        # The folder is read now, so that what is wrong with it shows before an editor is loaded.
        assert own.count
        return own

    def to_choose_on(self, count: int) -> Cases:
        """Validation cases of the world to find settings on, none of them among the measured."""
        from wys.evaluation.cases import Cases

        # Far from all seeds that a later command may add to the measured ones.
        seed = self.seed + (1000 if self.split == "validation" else 0)
        return Cases(count, seed, "validation", self.world, self.size, self.batch)

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds to measure with."""
        return tuple(range(self.seed, self.seed + self.seeds))

    def in_words(self, count: int) -> str:
        """What is measured on."""
        place = f"{self.split} split, {self.world} world" if self.data is None else str(self.data)
        return f"{count} cases, {place}{seeds_in_words(self.all_seeds)}"


@dataclass(frozen=True)
class JudgeOptions:
    """Networks that judge the edits, too."""

    clip: Annotated[str | None, optional("NAME")] = None
    """A CLIP for similarities, directions and their consistency: a directory or hub id."""
    lpips: Annotated[Path | None, optional("FILE")] = None
    """LPIPS for the distance to the true edit: a safetensors file (docs/benchmarks.md)."""

    def load(self, device: str) -> Judges:
        """The networks that are named; raises WysError where one cannot be loaded."""
        from wys.apps.progress import err
        from wys.diffusion.clip import Clip
        from wys.diffusion.loading import hide_library_bars
        from wys.evaluation.judges import Judges
        from wys.evaluation.lpips import Lpips

        hide_library_bars()
        with err.status("loading the networks that judge"):
            return Judges(
                None if self.clip is None else Clip.load(self.clip, device),
                None if self.lpips is None else Lpips.load(self.lpips, device),
            )

    @property
    def names(self) -> dict[str, str | None]:
        """Their names, as a record keeps them."""
        return {"clip": self.clip, "lpips": None if self.lpips is None else str(self.lpips)}


@dataclass(frozen=True)
class ResultOptions:
    """Where results go."""

    json: Annotated[Path | None, optional("FILE")] = None
    """Write the rows to this file."""
    out: Annotated[Path | None, optional("DIR")] = None
    """Write cases.jsonl, rows.json, tables.md and report.html there; the same command goes on
    with a run that was stopped (speed and scene-fit begin anew)."""

    def check(self) -> None:
        """Raises WysError where results could not be written."""
        from wys.apps.results import check_writable

        if self.json is not None:
            check_writable(self.json)
            own = None if self.out is None else resolved(self.out)
            if resolved(self.json).parent == own and self.json.name in RUN_FILES:
                raise WysError(f"{self.json} is a file of --out's own; give --json another name.")
        if self.out is not None:
            check_writable(self.out / "rows.json")

    def claim(self, bench: str, **what: Any) -> None:
        """Takes --out for a bench that begins anew each time; WysError where another's lies."""
        from wys.evaluation.journal import Journal

        Journal(self.out, {"bench": bench, **what})

    def journal(
        self, bench: str, options: EditorOptions, editor: Editor, what: Mapping[str, Any]
    ) -> Journal:
        """The run's lines: those of --out, or none."""
        from wys.diffusion.settings import settings_as_json
        from wys.evaluation.journal import Journal

        who = {
            "editor": options.editor,
            "weights": editor.fingerprint,
            "dtype": options.dtype,
            "device": editor.device.type,
            "settings": settings_as_json(editor.settings),
        }
        return Journal(self.out, {"bench": bench, **who, **what})

    def write(
        self,
        rows: Sequence[dict[str, Any]],
        title: str,
        facts: str,
        journal: Journal | None = None,
    ) -> None:
        """Prints the table and writes the files; `facts` says what was measured."""
        from rich.console import Console

        from wys.evaluation.html_report import write_results
        from wys.evaluation.report import rich_table, tables_of
        from wys.store import write_json

        for study, own in tables_of(rows).items():
            table = rich_table(own, study or f"{title}: {facts}")
            # Squeezed into a narrow terminal, figures would lose their digits; long lines wrap.
            needed = Console(width=1000).measure(table).maximum
            Console(width=max(Console().width, needed)).print(table)
        if self.json is not None:
            write_json(self.json, list(rows))
            print(f"Rows in {self.json}")
        if self.out is not None:
            write_results(self.out, title, [f"{facts}."], rows, journal)
            print(f"Report in {self.out / 'report.html'}")


def load_editor(options: EditorOptions) -> Editor:
    """Loads the editor, telling that it does."""
    from wys.apps.progress import err

    with err.status("loading the editor"):
        return options.load()


def seeds_in_words(seeds: Sequence[int]) -> str:
    """ ", seeds 0 to 2"; nothing for a single one."""
    return "" if len(seeds) < 2 else f", seeds {seeds[0]} to {seeds[-1]}"


CaseGroup = tyro.conf.OmitArgPrefixes[CaseOptions]
JudgeGroup = tyro.conf.OmitArgPrefixes[JudgeOptions]
ResultGroup = tyro.conf.OmitArgPrefixes[ResultOptions]
