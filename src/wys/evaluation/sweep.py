"""Edit against preservation: what an editor's guidance and threshold trade for one another.

A stronger edit comes nearer to the truth inside the region and farther from it outside. One point
of that trade says little about an editor; the curve says what it can do, and the point of doing
nothing where it has to begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from wys.diffusion.editor import Editor
from wys.diffusion.settings import EditorSettings
from wys.errors import WysError
from wys.evaluation.cases import Source
from wys.evaluation.image_bench import BenchStep, Method, Run
from wys.evaluation.journal import Journal
from wys.evaluation.judges import NO_JUDGES, Judges
from wys.evaluation.scores import rows_of


@dataclass(frozen=True)
class SweepSettings:
    """What is varied; all else is the editor's own."""

    guidance: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 5.0, 7.5)
    """Guidance scales of the instruction, for `wys` and for InstructPix2Pix without a mask."""
    image_guidance: tuple[float, ...] = (1.0, 1.2, 1.5, 2.0)
    """Guidance scales of the input image, for both."""
    thresholds: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Thresholds of the relevance map, for `wys`."""

    def __post_init__(self) -> None:
        if not (self.guidance or self.image_guidance or self.thresholds):
            raise WysError("curves need a guidance or a threshold at least.")
        if any(scale < 0 for scale in (*self.guidance, *self.image_guidance)):
            raise WysError("guidance scales are 0 or more.")
        if any(not 0 <= threshold <= 1 for threshold in self.thresholds):
            raise WysError("thresholds are numbers from 0 to 1.")


Sweep = Literal["none", "guidance", "image guidance", "threshold"]


@dataclass(frozen=True)
class Point:
    """One point of a curve."""

    sweep: Sweep
    value: float | None
    method: Method

    @property
    def name(self) -> str:
        """How the journal calls it."""
        return self.method if self.value is None else f"{self.method} {self.sweep} {self.value:g}"

    def settings(self, own: EditorSettings) -> EditorSettings:
        """The editor's own settings with the value of this point."""
        if self.value is None:
            return own
        if self.sweep == "threshold":
            return replace(own, relevance=replace(own.relevance, threshold=self.value))
        axis = "text" if self.sweep == "guidance" else "image"
        guidance = replace(own.edit.guidance, **{axis: self.value})
        return replace(own, edit=replace(own.edit, guidance=guidance))


def points_of(settings: SweepSettings) -> list[Point]:
    """All points: doing nothing first, then curve by curve."""
    methods: tuple[Method, ...] = ("ip2p", "wys")
    return [
        Point("none", None, "noop"),
        *(Point("guidance", v, m) for m in methods for v in sorted(settings.guidance)),
        *(Point("image guidance", v, m) for m in methods for v in sorted(settings.image_guidance)),
        *(Point("threshold", v, "wys") for v in sorted(settings.thresholds)),
    ]


def sweep(
    editor: Editor,
    cases: Source,
    settings: SweepSettings | None = None,
    *,
    seeds: Sequence[int] = (0,),
    judges: Judges = NO_JUDGES,
    journal: Journal | None = None,
) -> Iterator[BenchStep]:
    """Measures every point on the cases; the rows have "sweep" and "value" beside their method.

    Args:
        seeds: of the noise and, where the source draws them, of the cases.
        judges: networks that judge the edited images, too.
        journal: what is in it is not measured again.
    """
    journal = journal or Journal()
    points = points_of(settings or SweepSettings())
    count = len(seeds) * len(points) * -(-cases.count // cases.batch)
    done = 0
    for seed in seeds:
        for items, truth in cases.batches(editor, seed):
            for point in points:
                if not journal.has(seed, items, point.name):
                    own = point.settings(editor.settings)
                    scores = Run(editor, truth, items, seed, own).scores(point.method, judges)
                    journal.add(scores.records(seed, items, point.name, truth.instructions))
                done += 1
                yield BenchStep(done, count)
    rows: list[dict[str, Any]] = []
    for point in points:
        known = [
            record
            for record in journal.records
            if record["method"] == point.name and record["seed"] in seeds
        ]
        for row in rows_of(known, cases.unit):
            if row["kind"] == "all":
                rows.append(
                    {**row, "method": point.method, "sweep": point.sweep, "value": point.value}
                )
    yield BenchStep(done, count, rows)
