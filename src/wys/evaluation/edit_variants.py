"""Ways to edit the same cases, beside each other: how they are guided, and what costs less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings
from wys.diffusion.window import WindowSettings
from wys.evaluation.cases import Cases
from wys.evaluation.scores import Scores, join, score
from wys.image_edit import edit_image, relevance_map
from wys.masks import Mask

STRONG = 2.0
"""Soft guidance is also tried at so many times the editor's own scale of the instruction."""
STEPS = (0.5, 2.0, 5.0)
"""Numbers of steps, as multiples of the editor's own."""
MARGINS = (0.15, 0.25)
"""Margins of windows."""
GUIDED = (0.3, 0.8)
"""Noise levels outside of which guidance may be spared (arXiv 2404.07724)."""

MEASURES = ("psnr_inside", "psnr_outside", "ssim")
KEPT = ("cases", *(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")))
"""What a row takes over from one of `Scores`."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """One way to edit."""

    settings: EditSettings
    masked: bool = True
    """Under the mask of the map, or without a mask."""


def guidance_rows(editor: Editor, cases: Cases) -> list[Row]:
    """Hard and soft guidance, at the editor's own scale and at a stronger one."""
    edit = editor.settings.edit
    own = edit.guidance
    variants: dict[str, Variant] = {}
    for guidance in (own, replace(own, text=own.text * STRONG)):
        name = f"text {guidance.text:g}, image {guidance.image:g}"
        hard, soft, even = (
            replace(edit, guidance=replace(guidance, soft=scale)) for scale in (None, 0.0, 1.0)
        )
        variants[f"{name}, hard, mask"] = Variant(hard)
        variants[f"{name}, soft 0, mask"] = Variant(soft)
        if guidance.text != 1:
            variants[f"{name}, soft 1, mask"] = Variant(even)
        if guidance is own:
            variants[f"{name}, hard, no mask"] = Variant(hard, masked=False)
            variants[f"{name}, soft 0, no mask"] = Variant(soft, masked=False)
    return _rows("guidance", editor, cases, variants)


def economy_rows(editor: Editor, cases: Cases) -> list[Row]:
    """The editor's own edit of the whole image, and what costs less or more than that."""
    own = replace(editor.settings.edit, window=None)
    variants: dict[str, Variant] = {}
    for factor in (1.0, *STEPS):
        steps = max(1, round(own.steps * factor))
        name = "1 step" if steps == 1 else f"{steps} steps"
        variants[name] = Variant(replace(own, steps=steps))
    for margin in MARGINS:
        window = WindowSettings(margin=margin)
        variants[f"window, margin {margin:g}"] = Variant(replace(own, window=window))
    if len(own.guidance.branches) > 1:
        low, high = GUIDED
        variants[f"guided from {low:g} to {high:g}"] = Variant(replace(own, guided=GUIDED))
    return _rows("economy", editor, cases, variants)


def _rows(study: str, editor: Editor, cases: Cases, variants: Mapping[str, Variant]) -> list[Row]:
    """PSNR inside and outside the true region, and the cost in operations, the first one's being 1.

    Before all others the input as it is (`noop`). The maps are made once for all variants, and cost
    nothing.
    """
    scores: dict[str, list[Scores]] = {name: [] for name in ("noop", *variants)}
    work = dict.fromkeys(variants, 0)
    for items, pairs in cases.batches(editor):
        made = relevance_map(editor, pairs.before, pairs.instructions, seed=cases.seed, items=items)
        everywhere = Mask.from_image(torch.ones_like(pairs.mask)[:, None], made.image_size)
        scores["noop"].append(score(pairs, pairs.before, 0.0))
        for name, variant in variants.items():
            with FlopCounterMode(display=False) as counter:
                edit = edit_image(
                    editor,
                    pairs.before,
                    pairs.instructions,
                    variant.settings,
                    relevance=made,
                    mask=made.mask() if variant.masked else everywhere,
                    seed=cases.seed,
                    items=items,
                )
            work[name] += int(counter.get_total_flops())
            scores[name].append(score(pairs, edit.image, 0.0))
    rows = []
    first = next(iter(work.values()))
    for name, found in scores.items():
        whole = join(found).row(name, "all")
        row = {key: whole[key] for key in KEPT if key in whole}
        cost = work.get(name, 0) / first
        rows.append({"study": study, "variant": name, **row, "cost": cost})
    return rows
