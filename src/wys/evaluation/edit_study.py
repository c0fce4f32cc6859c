"""Whether edits can be chosen without the truth: the score's correlation, and what it gains."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wys.auto_edit import AutoEdit, AutoSettings, auto_edit
from wys.diffusion.editor import Editor
from wys.edit_score import SIGNS, ScoreSettings, edit_score, fit_score
from wys.evaluation import metrics
from wys.evaluation.cases import Cases
from wys.image_edit import relevance_map
from wys.tabletop.pairs import Pairs

Row = dict[str, Any]


def candidates_of(
    editor: Editor, cases: Cases, auto: AutoSettings | None = None
) -> list[tuple[Pairs, AutoEdit]]:
    """Every candidate edit of the cases, whatever the verdict."""
    found = []
    for items, pairs in cases.batches(editor):
        made = relevance_map(editor, pairs.before, pairs.instructions, seed=cases.seed, items=items)
        steps = auto_edit(
            editor, pairs.before, made, auto=auto, force=True, seed=cases.seed, items=items
        )
        *_, last = steps
        assert last.result is not None
        found.append((pairs, last.result))
    return found


def exact_error(pairs: Pairs, result: AutoEdit) -> Float[Tensor, "b n"]:
    """The error of every candidate over the whole image, in dB (minus its PSNR)."""
    everywhere = torch.ones_like(pairs.mask)
    errors = [metrics.squared_error(edit.image, pairs.after, everywhere) for edit in result.edits]
    mean = torch.stack([error.total / error.count for error in errors], dim=1)
    return 10 * mean.clamp(min=1e-10).log10()


def fitted_score(editor: Editor, cases: Cases, auto: AutoSettings | None = None) -> ScoreSettings:
    """The score's weights that fit the exact error of the cases best."""
    found = candidates_of(editor, cases, auto)
    signs = torch.cat([result.signs for _, result in found])
    return fit_score(signs, torch.cat([exact_error(*entry) for entry in found]))


def auto_rows(
    editor: Editor, cases: Cases, weights: ScoreSettings, auto: AutoSettings | None = None
) -> list[Row]:
    """Rows of correlation for each sign and the score, and of what the choice gains.

    A correlation is with the exact error: signs and the negative score are good where it is high.
    `per_case` is the mean over the cases, `pooled` takes all edits of all cases together.
    """
    found = candidates_of(editor, cases, auto)
    error = torch.cat([exact_error(*entry) for entry in found])
    signs = torch.cat([result.signs for _, result in found])
    told = {name: signs[..., i] for i, name in enumerate(SIGNS)}
    told["score"] = -edit_score(signs, weights)
    rows: list[Row] = [
        {
            "study": "score",
            "variant": name,
            "weight": getattr(weights, name, None),
            "per_case": metrics.mean(metrics.spearman(value, error)),
            "pooled": metrics.mean(metrics.spearman(value.reshape(1, -1), error.reshape(1, -1))),
        }
        for name, value in told.items()
    ]
    candidates = found[0][1].candidates
    fixed = min(
        range(len(candidates)),
        key=lambda n: (
            candidates[n].seed,
            abs(candidates[n].threshold_step),
            candidates[n].text,
        ),
    )
    count = len(error)
    choices = {
        "fixed settings": torch.full((count,), fixed),
        "auto": told["score"].argmin(dim=1),
        "best candidate": error.argmin(dim=1),
    }
    pairs = [pairs for pairs, _ in found]
    made = {"noop": torch.cat([p.before for p in pairs])}
    made |= {name: _chosen(found, choice) for name, choice in choices.items()}
    for name, image in made.items():
        rows.append({"study": "auto", "variant": name, "cases": count} | _psnr(pairs, image))
    return rows


def _chosen(found: list[tuple[Pairs, AutoEdit]], choice: Tensor) -> Tensor:
    """The candidate of each case that is chosen."""
    rows = choice.split([len(pairs.mask) for pairs, _ in found])
    images = [
        torch.stack([result.edits[int(n)].image[i] for i, n in enumerate(own)])
        for own, (_, result) in zip(rows, found, strict=True)
    ]
    return torch.cat(images)


def _psnr(pairs: list[Pairs], image: Tensor) -> dict[str, float | None]:
    """Pooled PSNR of an image for each case: inside, outside and over the whole image."""
    after = torch.cat([p.after for p in pairs])
    mask = torch.cat([p.mask for p in pairs])
    regions = {
        "psnr_inside": mask,
        "psnr_outside": ~mask,
        "psnr": torch.ones_like(mask),
    }
    return {
        name: metrics.squared_error(image, after, region).psnr() for name, region in regions.items()
    }
