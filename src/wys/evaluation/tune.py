"""An editor's best settings, found on the validation split: what makes a `wys.json`.

First the map: every way to make it is scored by the IoU of its mask with the exact one. Then the
edit with that map: every guidance is scored by the PSNR inside the exact mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from wys.diffusion.conditioning import Guidance
from wys.diffusion.editor import Editor
from wys.diffusion.settings import EditorSettings
from wys.evaluation import metrics
from wys.evaluation.image_bench import Cases, Run, join
from wys.image_edit import relevance_map
from wys.relevance import RelevanceMap, RelevanceSettings, Threshold, normalise, smooth
from wys.tabletop.pairs import Pairs

LEVELS = ((0.8,), (0.95,), (0.999,), (0.6, 0.8, 0.999))
SMOOTHINGS = (0.0, 0.7, 1.0)
THRESHOLDS: tuple[Threshold, ...] = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, "auto")
TEXT_SCALES = (1.0, 1.5, 2.0, 3.0)
IMAGE_SCALES = (1.0, 1.5)
STEPS = (4, 10, 20)
WORTH_DB = 0.1
"""More steps have to gain at least this much."""


@dataclass(frozen=True)
class Trial:
    """One candidate and its score."""

    stage: Literal["map", "guidance", "steps"]
    settings: EditorSettings
    score: float
    """Mean IoU for a map, PSNR inside in dB for an edit."""
    done: int
    count: int


def raw_settings(editor: Editor) -> list[RelevanceSettings]:
    """The ways to make a raw map; each costs predictions, all else is arithmetic on its result."""
    sources: tuple[Literal["difference", "head"], ...] = ("difference",)
    if editor.head is not None:
        sources = ("difference", "head")
    own = editor.settings.relevance
    return [
        replace(own, source=source, timesteps=levels, draws=draws)
        for source, levels, draws in itertools.product(sources, LEVELS, (1, 4))
    ]


def scaled_settings(how: RelevanceSettings, typical: float) -> Iterator[RelevanceSettings]:
    """Every normalisation, blur and threshold of one raw map.

    Args:
        typical: the raw value that `absolute` maps to 1: that of a clear edit.
    """
    for smoothing, threshold in itertools.product(SMOOTHINGS, THRESHOLDS):
        base = replace(how, smoothing=smoothing, threshold=threshold)
        if how.source == "head":
            # The head gives probabilities: nothing is to be edited where none is near the level.
            level = 0.5 if threshold == "auto" else threshold
            base = replace(base, verdict=replace(how.verdict, nothing_below=level / 2))
        yield replace(base, normalisation="paper")
        yield replace(base, normalisation="percentile")
        scale = 1.0 if how.source == "head" else typical
        yield replace(base, normalisation="absolute", scale=scale)


def mask_iou(raw: Float[Tensor, "b 1 h w"], pairs: Pairs, how: RelevanceSettings) -> Tensor:
    """IoU of each mask that the settings make of a raw map."""
    size = (pairs.mask.shape[-2], pairs.mask.shape[-1])
    values = normalise(smooth(raw, how.smoothing), how)
    made = RelevanceMap(values, raw, None, tuple(pairs.instructions), size, how)
    return metrics.iou(made.mask().at(size)[:, 0], pairs.mask)


def tune(editor: Editor, cases: Cases) -> Iterator[Trial]:
    """Tries the grids one after the other; a stage starts from the best of the stage before."""
    batches = list(cases.batches(editor))
    best = replace(editor.settings, size=editor.native_size)
    for trial in _tune_map(editor, cases, batches, best):
        yield trial
    best = trial.settings
    guidances = [Guidance(t, i) for t, i in itertools.product(TEXT_SCALES, IMAGE_SCALES)]
    top = -torch.inf
    start = best
    for done, guidance in enumerate(guidances, 1):
        settings = replace(start, edit=replace(start.edit, guidance=guidance, steps=STEPS[0]))
        score = _psnr_inside(editor, cases, batches, settings)
        if score > top:
            top, best = score, settings
        yield Trial("guidance", settings, score, done, len(guidances))
    for done, steps in enumerate(STEPS, 1):
        settings = replace(best, edit=replace(best.edit, steps=steps))
        score = _psnr_inside(editor, cases, batches, settings)
        if score > top + WORTH_DB:
            top, best = score, settings
        yield Trial("steps", settings, score, done, len(STEPS))
    yield Trial("steps", best, float(top), len(STEPS), len(STEPS))


def _tune_map(
    editor: Editor, cases: Cases, batches: list[Any], start: EditorSettings
) -> Iterator[Trial]:
    """A trial for each raw map with its best scaling; the last one is the best of all."""
    candidates = raw_settings(editor)
    top, best = -1.0, start
    for done, how in enumerate(candidates, 1):
        maps = [
            relevance_map(
                editor, pairs.before, pairs.instructions, how, seed=cases.seed, items=items
            ).raw.cpu()
            for items, pairs in batches
        ]
        typical = float(torch.cat([raw.flatten(1).quantile(0.98, dim=1) for raw in maps]).median())
        own_top, own_best = -1.0, how
        for scaled in scaled_settings(how, max(typical, 1e-6)):
            masked = zip(maps, batches, strict=True)
            score = metrics.mean(
                torch.cat([mask_iou(raw, pairs, scaled) for raw, (_, pairs) in masked])
            )
            if score is not None and score > own_top:
                own_top, own_best = score, scaled
        settings = replace(start, relevance=own_best)
        if own_top > top:
            top, best = own_top, settings
        yield Trial("map", settings, own_top, done, len(candidates))
    yield Trial("map", best, top, len(candidates), len(candidates))


def _psnr_inside(
    editor: Editor, cases: Cases, batches: list[Any], settings: EditorSettings
) -> float:
    """PSNR inside the exact mask of the edits with these settings, pooled over the cases."""
    runs = [Run(editor, pairs, items, cases.seed, settings) for items, pairs in batches]
    psnr = join([run.scores("wys") for run in runs]).inside.psnr()
    return -torch.inf if psnr is None else psnr
