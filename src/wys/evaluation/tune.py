"""An editor's best settings, found on the validation split: what makes a `wys.json`.

`tune` finds all of them on the tabletop world; `tune_map` finds the map alone, also on images of
one's own, of which no exact edit is known.

Every prediction is made once, and an edit once for all masks (`predictions.py`). First the map:
every way to make it is scored by the IoU of its mask with the exact one, and how far its edges may
move to those of the image. Then guidance and steps, by the PSNR inside the exact mask. Then the
threshold once more, and how softly the edit fades in about it: as local as an edit can be that
still does nearly all it would do without a mask. Last the limits of the verdict.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wys.diffusion.conditioning import Guidance
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings
from wys.diffusion.settings import EditorSettings
from wys.errors import WysError
from wys.evaluation import metrics
from wys.evaluation.cases import Cases, Truth
from wys.evaluation.predictions import (
    PlainEdit,
    RawMaps,
    enlarged,
    judged_maps,
    mean_raw,
    plain_edit,
    raw_maps,
    raw_of,
    sources,
    under,
)
from wys.evaluation.verdict_study import fit_verdict, verdict_errors
from wys.image import resize
from wys.relevance import (
    PROBABILITIES,
    Normalisation,
    RelevanceSettings,
    Source,
    VerdictSettings,
    normalise,
    relevance_mask,
    relevance_values,
    smooth,
)
from wys.tabletop.pairs import Pairs
from wys.thresholds import RULES, Threshold, threshold_levels

LEVELS = ((0.8,), (0.999,), (0.8, 0.999))
DRAWS = (1, 2)
FIRST_STEPS = (1, 2)
SMOOTHINGS = (0.0, 0.7)
EDGES = (0.0, 0.75, 1.25, 2.0)
THRESHOLDS: tuple[Threshold, ...] = (*(k / 20 for k in range(2, 20)), *RULES)
SOFTNESSES = (0.0, 0.1, 0.15, 0.2, 0.25)
TEXT_SCALES = (1.0, 1.5, 2.0, 3.0)
IMAGE_SCALES = (1.0, 1.5)
SOFT = (0.0,)
STEPS = (2, 4, 10, 20)
"""One step alone would give the mean of all that the instruction might mean, a blur."""
WORTH_DB = 0.1
"""More steps have to gain at least this much."""
WORTH_IOU = 0.005
"""A map that costs more predictions has to gain at least this much."""
ROOM_IOU = 0.03
"""So much of the best IoU may be given for a more local edit."""
ROOM_DB = 0.4
"""And so much of the PSNR inside that the edit has without a mask."""
WORTH_OUTSIDE_DB = 0.5
"""Soft guidance costs a prediction more at every step, so it has to keep this much more outside."""
VERDICT_CASES = 3
"""The verdict is fitted to so many times the cases."""

Batch = tuple[tuple[str, ...], Pairs]


@runtime_checkable
class Masked(Truth, Protocol):
    """A batch of cases of which it is known where they change, if not into what."""

    @property
    def mask(self) -> Bool[Tensor, "b h w"]:
        """The pixels that the true edit changes."""


MaskedBatch = tuple[tuple[str, ...], Masked]
Stage = Literal["map", "edges", "guidance", "steps", "threshold", "soft", "verdict"]


@dataclass(frozen=True)
class Trial:
    """One candidate and its score."""

    stage: Stage
    settings: EditorSettings
    score: float
    """Mean IoU for a map, PSNR in dB inside the exact mask for guidance and steps, outside it for
    threshold (with softness) and soft guidance; the balanced error for the verdict."""
    done: int
    count: int


@dataclass(frozen=True)
class Way:
    """One way to make a raw map, and what it gave on every batch."""

    settings: RelevanceSettings
    raws: tuple[Float[Tensor, "b 1 h w"], ...]
    cost: int
    """Passes of a network that an edit does not make anyway; the locator's, which is a smaller one,
    counts alike."""


def ways_of(
    editor: Editor, batches: Sequence[MaskedBatch], seed: int, edits: Sequence[PlainEdit]
) -> list[Way]:
    """Every raw map: of each source, from predictions of its own and from the first steps of the
    edits, if there are any."""
    own, found = editor.settings.relevance, []
    needed = {(level, draw) for levels in LEVELS for level in levels for draw in range(max(DRAWS))}
    predicted: dict[tuple[float, int], list[RawMaps]] = {
        (level, draw): [
            raw_maps(editor, pairs, items, seed, level, draw) for items, pairs in batches
        ]
        for level, draw in sorted(needed)
    }
    runs: dict[Source, int] = {"difference": 2, "head": 1, "both": 2, "locator": 2}
    for source in sources(editor):
        for levels, draws in itertools.product(LEVELS, DRAWS):
            keys = [(level, draw) for level in levels for draw in range(draws)]
            raws = tuple(
                mean_raw([predicted[key][i] for key in keys], source) for i in range(len(batches))
            )
            settings = replace(
                own,
                source=source,
                first_steps=0,
                timesteps=levels,
                draws=draws,
                space="eps",
                edges=0.0,
            )
            found.append(Way(settings, raws, runs[source] * len(keys)))
        for steps in FIRST_STEPS if edits else ():
            raws = tuple(mean_raw(edit.raw_maps[:steps], source) for edit in edits)
            settings = replace(
                own, source=source, first_steps=steps, draws=1, space="eps", edges=0.0
            )
            found.append(Way(settings, raws, (runs[source] - 1) * steps))
    return found


def scaled_settings(
    how: RelevanceSettings, typical: float
) -> Iterator[tuple[RelevanceSettings, Threshold]]:
    """Every normalisation, blur and threshold of one raw map.

    Args:
        typical: the raw value that `absolute` maps to 1: that of a clear edit.
    """
    scale = 1.0 if how.source in PROBABILITIES else typical
    for smoothing in SMOOTHINGS:
        base = replace(how, smoothing=smoothing)
        for scaled in (
            replace(base, normalisation="paper"),
            replace(base, normalisation="percentile"),
            replace(base, normalisation="robust", scale=8.0),
            replace(base, normalisation="absolute", scale=scale),
        ):
            for threshold in THRESHOLDS:
                yield scaled, threshold


def shown_to(editor: Editor, batches: Sequence[MaskedBatch]) -> Float[Tensor, "b 3 h w"]:
    """The images of all batches as the editor sees them."""
    images = torch.cat([pairs.before for _, pairs in batches])
    return resize(images, editor.fit((images.shape[-2], images.shape[-1])))


def masks_of(
    values: Float[Tensor, "b 1 h w"], threshold: Threshold, size: tuple[int, int]
) -> Bool[Tensor, "b H W"]:
    """The masks of maps R at a size."""
    levels = threshold_levels(values, threshold).to(values)
    return enlarged(values, size) >= levels[:, None, None]


def best_edges(
    way: Way,
    how: RelevanceSettings,
    shown: Float[Tensor, "b 3 hs ws"],
    truth: Bool[Tensor, "b h w"],
) -> Iterator[tuple[float, RelevanceSettings]]:
    """The best mean IoU of one map with each of `EDGES`, over all thresholds."""
    raw, size = torch.cat(list(way.raws)), (truth.shape[-2], truth.shape[-1])
    for reach in EDGES:
        led = replace(how, edges=reach)
        values = relevance_values(raw, led, shown)
        ious = {
            level: float(metrics.iou(masks_of(values, level, size), truth).mean())
            for level in dict.fromkeys([how.threshold, *THRESHOLDS])
        }
        best = max(ious, key=lambda level: ious[level])
        yield ious[best], replace(led, threshold=best)


def best_scaling(
    way: Way, truth: Tensor, *, rules: bool = True, normalisation: Normalisation | None = None
) -> tuple[float, RelevanceSettings]:
    """The best mean IoU of one raw map over all scalings and thresholds, and its settings.

    Args:
        rules: also thresholds that are found for each map.
        normalisation: only this one.
    """
    raw = torch.cat(list(way.raws))
    typical = max(float(raw.flatten(1).quantile(0.98, dim=1).median()), 1e-6)
    size = (truth.shape[-2], truth.shape[-1])
    top, best, last = -1.0, way.settings, None
    for how, threshold in scaled_settings(way.settings, typical):
        if normalisation not in (None, how.normalisation):
            continue
        if isinstance(threshold, str) and not rules:
            continue
        if how != last:
            values, last = normalise(smooth(raw, how.smoothing), how), how
            fine = enlarged(values, size)
        levels = threshold_levels(values, threshold).to(values)
        score = float(metrics.iou(fine >= levels[:, None, None], truth).mean())
        if score > top:
            top, best = score, replace(how, threshold=threshold)
    return top, best


def tune_map(
    editor: Editor,
    batches: Sequence[MaskedBatch],
    seed: int,
    *,
    best_map: bool = False,
    before: bool = False,
    source: Source | None = None,
) -> Generator[Trial, None, tuple[EditorSettings, Float[Tensor, "b 1 h w"]]]:
    """Finds how to make, scale and cut a map, by the IoU of its mask with the exact one.

    Args:
        batches: cases of one size.
        seed: of the noise.
        best_map: take the best map, whatever it costs, not the cheapest of about equal ones.
        before: only maps that are made before an edit: an edit of any number of steps can have
            them, and they can be looked at first.
        source: only maps of this one; None tries all that the editor has.

    Returns:
        The editor's settings with the best map, and R of every case.
    """
    if source not in (None, *sources(editor)):
        raise WysError(
            f"{editor.name} makes no maps of the source {source}; it has "
            f"{', '.join(sources(editor))}."
        )
    truth = torch.cat([masked.mask for _, masked in batches])
    best = replace(editor.settings, size=editor.native_size)
    guidance = Guidance(TEXT_SCALES[0], IMAGE_SCALES[0])
    first = replace(best.edit, guidance=guidance, steps=max(FIRST_STEPS) + 1)
    looked = [] if before else _edits(editor, batches, seed, first, max(FIRST_STEPS))
    ways = ways_of(editor, batches, seed, looked)
    if source is not None:
        ways = [way for way in ways if way.settings.source == source]
    scored = []
    for done, way in enumerate(ways, 1):
        score, how = best_scaling(way, truth)
        scored.append((score, how, way))
        yield Trial("map", replace(best, relevance=how), score, done, len(ways))
    top = max(score for score, _, _ in scored)
    room = 0.0 if best_map else WORTH_IOU
    good = [entry for entry in scored if entry[0] >= top - room]
    iou, how, way = min(good, key=lambda entry: entry[2].cost)
    # Masks are scored hard: how softly an edit fades in is another question, for `tune`.
    how = replace(how, softness=0.0)
    if not _same_raw(how, editor.settings.relevance):
        # Limits in the units of another D say nothing about this one.
        how = replace(how, verdict=VerdictSettings())
    best = replace(best, relevance=how)
    yield Trial("map", best, iou, len(ways), len(ways))

    shown, plain = shown_to(editor, batches), iou
    for done, (found, led) in enumerate(best_edges(way, how, shown, truth), 1):
        if found > max(iou, plain + WORTH_IOU):
            best, iou = replace(best, relevance=led), found
        yield Trial("edges", replace(best, relevance=led), found, done, len(EDGES))
    yield Trial("edges", best, iou, len(EDGES), len(EDGES))
    return best, relevance_values(torch.cat(list(way.raws)), best.relevance, shown)


def _same_raw(one: RelevanceSettings, other: RelevanceSettings) -> bool:
    """Whether two maps are made of the same D, but for its noise."""
    names = ("source", "first_steps", "timesteps", "space")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def tune(
    editor: Editor,
    cases: Cases,
    *,
    best_map: bool = False,
    before: bool = False,
    source: Source | None = None,
) -> Iterator[Trial]:
    """Tries the grids one after the other; a stage starts from the best of the stage before.

    Args:
        best_map, before, source: as of `tune_map`.
    """
    batches = list(cases.batches(editor))
    truth = torch.cat([pairs.mask for _, pairs in batches])
    best, values = yield from tune_map(
        editor, batches, cases.seed, best_map=best_map, before=before, source=source
    )
    shown = shown_to(editor, batches)
    best, edits = yield from _tune_edit(editor, batches, cases.seed, best, values, truth)
    if best.relevance.first_steps:
        # The first of fewer or of more steps are at other noise levels.
        raw = torch.cat([raw_of(editor, batch, cases.seed, best)[0] for batch in batches])
        values = relevance_values(raw, best.relevance, shown)
    best = yield from _tune_masking(editor, batches, cases.seed, best, values, edits, truth)

    # A limit lies among the few weakest maps, so that it takes many cases to place it.
    more = replace(cases, cases=VERDICT_CASES * cases.cases)
    judged = [*more.batches(editor), *more.absent(editor)]
    made, kinds = judged_maps(editor, judged, cases.seed, best)
    verdict = fit_verdict(made, kinds)
    best = replace(best, relevance=replace(best.relevance, verdict=verdict))
    error = verdict_errors(replace(made, settings=best.relevance), kinds).nothing
    yield Trial("verdict", best, error, 1, 1)


def _tune_edit(
    editor: Editor,
    batches: Sequence[Batch],
    seed: int,
    start: EditorSettings,
    values: Tensor,
    truth: Tensor,
) -> Generator[Trial, None, tuple[EditorSettings, list[PlainEdit]]]:
    """Guidance, each scale upwards for as long as it gains; then the steps.

    An edit has more steps than its map is read off.
    """
    size = (truth.shape[-2], truth.shape[-1])
    mask = masks_of(values, start.relevance.threshold, size)
    best, top = start, -torch.inf
    fewest, *more = [steps for steps in STEPS if steps > start.relevance.first_steps]
    kept: list[PlainEdit] = []

    def attempt(stage: Stage, guidance: Guidance, steps: int, worth: float) -> tuple[Trial, bool]:
        nonlocal best, top, kept
        edit = replace(best.edit, guidance=guidance, steps=steps)
        edits = _edits(editor, batches, seed, edit)
        error = _error(batches, edits, mask, truth)
        score = error.psnr()
        score = -torch.inf if score is None else score
        better = score > top + worth
        settings = replace(best, edit=edit)
        if better:
            best, top, kept = settings, score, edits
        return Trial(stage, settings, score, 1, 1), better

    for axis, scales in (("text", TEXT_SCALES), ("image", IMAGE_SCALES[1:])):
        for scale in scales:
            base = best.edit.guidance if top > -torch.inf else Guidance(scale, IMAGE_SCALES[0])
            trial, better = attempt(
                "guidance", replace(base, soft=None, **{axis: scale}), fewest, 0.0
            )
            yield trial
            if not better:
                break
    for steps in more:
        trial, better = attempt("steps", best.edit.guidance, steps, WORTH_DB)
        yield trial
        if not better:
            break
    yield Trial("steps", best, float(top), 1, 1)
    return best, kept


def _tune_masking(
    editor: Editor,
    batches: Sequence[Batch],
    seed: int,
    start: EditorSettings,
    values: Tensor,
    edits: Sequence[PlainEdit],
    truth: Tensor,
) -> Generator[Trial, None, EditorSettings]:
    """The threshold and the softness about it that keep most outside, of those with nearly the best
    IoU and edit inside; then the same under soft guidance."""
    size = (truth.shape[-2], truth.shape[-1])
    levels = [level for level in THRESHOLDS if not isinstance(level, str)]
    ways = [
        replace(start.relevance, threshold=level, softness=softness)
        for level in dict.fromkeys([start.relevance.threshold, *levels])
        for softness in SOFTNESSES
    ]
    masks = [relevance_mask(values, size, how.threshold, how.softness) for how in ways]
    ious = [float(metrics.iou(mask.at(size)[:, 0], truth).mean()) for mask in masks]
    lowest = max(ious) - ROOM_IOU
    good = [
        (how, mask.alpha()[:, 0])
        for how, mask, iou in zip(ways, masks, ious, strict=True)
        if iou >= lowest
    ]

    def psnr(made: Sequence[PlainEdit], weight: Tensor, region: Tensor) -> float:
        value = _error(batches, made, weight, region).psnr()
        return torch.inf if value is None else value

    def most_outside(
        stage: Stage, edit: EditSettings, made: Sequence[PlainEdit], least: float
    ) -> Generator[Trial, None, Trial]:
        """The best trial of an edit, of those that do at least so much inside."""
        best = Trial(stage, start, -torch.inf, len(good), len(good))
        for done, (how, weight) in enumerate(good, 1):
            settings, outside = replace(start, relevance=how, edit=edit), psnr(made, weight, ~truth)
            yield Trial(stage, settings, outside, done, len(good))
            if outside > best.score and psnr(made, weight, truth) >= least:
                best = replace(best, settings=settings, score=outside)
        if best.score > -torch.inf:
            yield best
        return best

    # Where none does as much as an edit without a mask, the one that does most has to serve.
    most = max(psnr(edits, weight, truth) for _, weight in good)
    enough = min(psnr(edits, torch.ones_like(truth), truth) - ROOM_DB, most)
    best = yield from most_outside("threshold", start.edit, edits, enough)
    for scale in SOFT:
        edit = replace(start.edit, guidance=replace(start.edit.guidance, soft=scale))
        coarse = _at_latent_size(editor, values, size, batches)
        made = _edits(editor, batches, seed, edit, 0, coarse)
        rival = yield from most_outside("soft", edit, made, enough)
        if rival.score >= best.score + WORTH_OUTSIDE_DB:
            best = rival
    return best.settings


def _at_latent_size(
    editor: Editor, values: Tensor, size: tuple[int, int], batches: Sequence[Batch]
) -> tuple[Tensor, ...]:
    """Maps R as soft guidance takes them, batch by batch."""
    latent = [side // editor.latent_factor for side in editor.fit(size)]
    coarse = F.interpolate(values, size=latent, mode="bilinear", antialias=True)
    return coarse.split([len(pairs.mask) for _, pairs in batches])


def _edits(
    editor: Editor,
    batches: Sequence[MaskedBatch],
    seed: int,
    settings: EditSettings,
    first: int = 0,
    values: Sequence[Tensor] | None = None,
) -> list[PlainEdit]:
    return [
        plain_edit(
            editor, pairs, items, seed, settings, first, None if values is None else values[i]
        )
        for i, (items, pairs) in enumerate(batches)
    ]


def _error(
    batches: Sequence[Batch], edits: Sequence[PlainEdit], mask: Tensor, region: Tensor
) -> metrics.SquaredError:
    """The squared error in a region of edits under a mask, or by its weights."""
    after = torch.cat([pairs.after for _, pairs in batches])
    parts = mask.split([len(pairs.mask) for _, pairs in batches])
    images = [
        under(part, edit.image, pairs)
        for part, edit, (_, pairs) in zip(parts, edits, batches, strict=True)
    ]
    return metrics.squared_error(torch.cat(images), after, region)
