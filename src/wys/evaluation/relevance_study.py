"""Which way to make, cut and judge a relevance map is best, and what did not help.

Whatever is chosen (thresholds, limits, weights) is chosen on cases of the validation split; the
rows are measured on others. Rows share the keys "study" and "variant":

    map            every way to make a raw map, at its best scaling and single threshold
    normalisation  the scalings of the best way, each at its best single threshold
    edges          edges moved to those of the image, each at its best single threshold
    threshold      the rules that find a threshold for each map, beside the single one
    verdict        shares of wrong verdicts, with the editor's own limits and with fitted ones
    guidance       soft guidance beside hard, with the mask and without (`edit_variants.py`)
    economy        edits of fewer and of more steps, and in windows
    score          how well signs that need no truth tell the error (`edit_study.py`)
    auto           what choosing by the score gains
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings
from wys.diffusion.settings import PAPER, EditorSettings
from wys.edit_score import ScoreSettings
from wys.evaluation import metrics
from wys.evaluation.cases import Cases
from wys.evaluation.edit_study import auto_rows, fitted_score
from wys.evaluation.edit_variants import economy_rows, guidance_rows
from wys.evaluation.journal import Journal
from wys.evaluation.predictions import enlarged, judged_maps, plain_edit
from wys.evaluation.scores import named_objects
from wys.evaluation.tune import (
    FIRST_STEPS,
    Batch,
    Way,
    best_edges,
    best_scaling,
    masks_of,
    shown_to,
    ways_of,
)
from wys.evaluation.verdict_study import fit_verdict, verdict_errors
from wys.relevance import Normalisation, RelevanceMap, RelevanceSettings, relevance_values
from wys.thresholds import RULES, Threshold

Study = Literal["map", "verdict", "guidance", "economy", "auto"]
STUDIES: tuple[Study, ...] = get_args(Study)
"""What can be asked for: `map` with normalisations and thresholds, `auto` with the score."""

Row = dict[str, Any]


@dataclass(frozen=True)
class StudyStep:
    """One part of the study is done."""

    done: int
    count: int
    rows: list[Row]
    """All rows so far."""
    settings: EditorSettings
    """The editor's own, with the score's weights once they are fitted."""


@dataclass(frozen=True)
class Side:
    """The cases on which things are chosen, or those on which they are measured."""

    batches: list[Batch]
    ways: list[Way]
    truth: Bool[Tensor, "b h w"]
    shown: Float[Tensor, "b 3 hs ws"]
    """The images as the editor sees them."""
    seconds: float
    """Of one prediction of one branch, for one case."""

    @staticmethod
    def of(editor: Editor, cases: Cases) -> Side:
        """Every raw map of the cases."""
        batches = list(cases.batches(editor))
        edit = _looked_at(editor)
        edits = [
            plain_edit(editor, pairs, items, cases.seed, edit, max(FIRST_STEPS))
            for items, pairs in batches
        ]
        total = sum(made.seconds for edit in edits for made in edit.raw_maps)
        branches = {"full", "image", *edit.guidance.branches}
        return Side(
            batches,
            ways_of(editor, batches, cases.seed, edits),
            torch.cat([pairs.mask for _, pairs in batches]),
            shown_to(editor, batches),
            total / (len(branches) * max(FIRST_STEPS) * cases.cases),
        )

    def values(self, way: Way, how: RelevanceSettings) -> Tensor:
        """R of all cases, at the size that its settings give it."""
        return relevance_values(torch.cat(list(way.raws)), how, self.shown)

    def enlarged(self, way: Way, how: RelevanceSettings) -> Tensor:
        """R of all cases, at image size."""
        return enlarged(self.values(way, how), self.size)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.truth.shape[-2], self.truth.shape[-1]

    def iou(self, way: Way, how: RelevanceSettings, threshold: Threshold | None = None) -> float:
        """Mean IoU of the masks of a way with the exact ones."""
        level = how.threshold if threshold is None else threshold
        masks = masks_of(self.values(way, how), level, self.size)
        return float(metrics.iou(masks, self.truth).mean())


def relevance_study(
    editor: Editor,
    choose: Cases,
    measure: Cases,
    studies: Sequence[Study] = STUDIES,
    auto_cases: int = 9,
    journal: Journal | None = None,
) -> Iterator[StudyStep]:
    """The rows of the studies asked for, study by study.

    Args:
        choose: cases of the validation split.
        auto_cases: so many cases of either side for `auto`, whose edits are many.
        journal: studies that are in it are not made again.
    """
    journal = journal or Journal()
    few_chosen, few_measured = (
        replace(cases, cases=min(cases.cases, auto_cases)) for cases in (choose, measure)
    )

    @cache
    def sides() -> tuple[Side, Side]:
        return Side.of(editor, choose), Side.of(editor, measure)

    def weights() -> ScoreSettings:
        fitted = journal.once("score weights", lambda: asdict(fitted_score(editor, few_chosen)))
        return ScoreSettings(**fitted)

    makers: dict[Study, Callable[[], list[Row]]] = {
        "map": lambda: map_rows(*sides()),
        "verdict": lambda: verdict_rows(editor, choose, measure, *sides()),
        "guidance": lambda: guidance_rows(editor, measure),
        "economy": lambda: economy_rows(editor, measure),
        "auto": lambda: auto_rows(editor, few_measured, weights()),
    }
    rows: list[Row] = []
    settings = editor.settings
    wanted = [study for study in STUDIES if study in studies]
    for done, study in enumerate(wanted, 1):
        rows += journal.once(study, makers[study])
        if study == "auto":
            settings = replace(settings, score=weights())
        yield StudyStep(done, len(wanted), list(rows), settings)


def map_rows(chosen: Side, measured: Side) -> list[Row]:
    """The studies of maps, normalisations and thresholds."""
    rows, tops = [], []
    pairs = [pairs for _, pairs in measured.batches]
    for own, way in zip(chosen.ways, measured.ways, strict=True):
        top, how = best_scaling(own, chosen.truth, rules=False)
        tops.append((top, how, own, way))
        fine = measured.enlarged(way, how)
        parts = fine.split([len(p.mask) for p in pairs])
        found = [
            metrics.grounding(part, p.object_ids, named_objects(p))
            for part, p in zip(parts, pairs, strict=True)
        ]
        rows.append(
            {
                "study": "map",
                "variant": way_name(way.settings),
                "normalisation": how.normalisation,
                "smoothing": how.smoothing,
                "threshold": how.threshold,
                "cases": len(measured.truth),
                "iou": measured.iou(way, how),
                "ap": metrics.mean(metrics.average_precision(fine, measured.truth)),
                "grounding": metrics.mean(torch.cat([f.hit for f in found])),
                "chance": metrics.mean(torch.cat([f.chance for f in found])),
                "predictions": way.cost,
                "seconds": way.cost * measured.seconds,
            }
        )
    _, how, own, way = max(tops, key=lambda entry: entry[0])
    kinds: tuple[Normalisation, ...] = get_args(Normalisation)
    for normalisation in kinds:
        _, scaled = best_scaling(own, chosen.truth, rules=False, normalisation=normalisation)
        rows.append(
            {
                "study": "normalisation",
                "variant": f"{way_name(way.settings)}, {normalisation}",
                "threshold": scaled.threshold,
                "iou": measured.iou(way, scaled),
            }
        )
    for _, led in best_edges(own, how, chosen.shown, chosen.truth):
        name = f"moved within {led.edges:g} latent pixels" if led.edges else "not moved"
        rows.append(
            {
                "study": "edges",
                "variant": name,
                "threshold": led.threshold,
                "iou": measured.iou(way, led),
            }
        )
    levels: list[Threshold] = [how.threshold, *RULES]
    for level in levels:
        name = str(level) if isinstance(level, str) else f"fixed at {level:g}"
        rows.append({"study": "threshold", "variant": name, "iou": measured.iou(way, how, level)})
    fine = measured.enlarged(way, how)
    each = torch.stack([metrics.iou(fine >= k / 40, measured.truth) for k in range(1, 40)])
    best = float(each.max(dim=0).values.mean())
    rows.append({"study": "threshold", "variant": "best of each map", "iou": best})
    return rows


def _looked_at(editor: Editor) -> EditSettings:
    """The edit off whose first steps maps are read: the editor's own, of at least 4 steps."""
    edit = editor.settings.edit
    return replace(edit, steps=max(edit.steps, 4))


def verdict_rows(
    editor: Editor, choose: Cases, measure: Cases, chosen: Side, measured: Side
) -> list[Row]:
    """The errors of verdicts: of the editor's own map and the preset's, with their own limits, and
    of the best map of each source, with own and with fitted limits."""
    by_source: dict[str, tuple[float, RelevanceSettings]] = {}
    for way in chosen.ways:
        top, how = best_scaling(way, chosen.truth, rules=False)
        if top > by_source.get(how.source, (-1.0, how))[0]:
            by_source[how.source] = (top, how)
    chosen_on = [*chosen.batches, *choose.absent(editor)]
    measured_on = [*measured.batches, *measure.absent(editor)]
    rows = [
        _verdict_row(name, *judged_maps(editor, measured_on, measure.seed, settings))
        for name, settings in (("the editor's own map", editor.settings), ("preset paper", PAPER))
    ]
    for _, how in by_source.values():
        own = replace(editor.settings, relevance=how, edit=_looked_at(editor))
        fitted = fit_verdict(*judged_maps(editor, chosen_on, choose.seed, own))
        maps, kinds = judged_maps(editor, measured_on, measure.seed, own)
        for name, limits in (("own limits", how.verdict), ("fitted limits", fitted)):
            judged = replace(maps, settings=replace(how, verdict=limits))
            rows.append(_verdict_row(f"{way_name(how)}, {name}", judged, kinds))
    return rows


def _verdict_row(name: str, maps: RelevanceMap, kinds: Sequence[str]) -> Row:
    errors = verdict_errors(maps, kinds)
    shares = {
        "false_edit": errors.false_edit,
        "false_nothing": errors.false_nothing,
        "nothing_error": errors.nothing,
        "false_whole": errors.false_whole,
        "false_local": errors.false_local,
        "whole_error": errors.whole,
    }
    return {
        "study": "verdict",
        "variant": name,
        "absent": kinds.count("absent"),
        "edits": len(kinds) - kinds.count("absent"),
        **{key: None if math.isnan(share) else share for key, share in shares.items()},
    }


def way_name(how: RelevanceSettings) -> str:
    """A way to make a map, in words."""
    if how.first_steps:
        return f"{how.source}, first {how.first_steps} steps of the edit"
    levels = " + ".join(f"{level:g}" for level in how.timesteps)
    return f"{how.source}, {levels}, {how.draws} draw{'s' if how.draws > 1 else ''}"
