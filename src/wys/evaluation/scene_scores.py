"""What methods did to scenes: view by view, as lines of a journal and as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wys.camera import Camera
from wys.evaluation import metrics
from wys.evaluation.curves import (
    BINS,
    DISTANCES,
    Leakage,
    RelevanceCounts,
    calibration_error,
    pooled_leakage,
    precision_recall,
    reliability,
)
from wys.evaluation.intervals import of_several, weighted_mean, weights
from wys.evaluation.journal import Record
from wys.evaluation.judges import NAMES as JUDGED
from wys.evaluation.scores import ends

SEEN = (*JUDGED, "clip_consistency")
"""What networks judge."""
VIEWS = ("iou", "ap", "ssim", "stray", *SEEN)
"""Measures of single views, of which a row has the mean."""
ERRORS = ("inside", "outside", "consistency")
"""Squared errors of single views, which a row pools."""
PSNR = {"inside": "psnr_inside", "outside": "psnr_outside", "consistency": "consistency"}
"""What a row calls them."""


@dataclass(frozen=True)
class SceneScore:
    """What one method did to one scene, on its n held-out views."""

    method: str
    kind: str
    scene: int
    seed: int
    views: Mapping[str, Float[Tensor, " n"]]
    """The measures of VIEWS, NaN where undefined. iou is of the method's mask, ap (average
    precision) of its relevance; stray is 1 where a view without the target has a mask, else 0."""
    errors: Mapping[str, metrics.SquaredError]
    """The errors of ERRORS. consistency is between neighbouring views, one warped onto the other by
    the exact depth of the edit."""
    leakage: Leakage
    relevance: RelevanceCounts
    """No pixel, for a method that shows none."""
    seconds: float | None
    peak_mb: float | None
    """None for a mask alone, which comes with the edit."""

    @property
    def record(self) -> Record:
        """This score as a JSON object."""
        return {
            "seed": self.seed,
            "case": case_name(self.scene, self.kind),
            "method": self.method,
            "kind": self.kind,
            "scene": self.scene,
            **{
                name: [None if math.isnan(value) else value for value in values.tolist()]
                for name, values in self.views.items()
            },
            **{name: [e.total.tolist(), e.count.tolist()] for name, e in self.errors.items()},
            "leakage": [self.leakage.total.tolist(), self.leakage.count.tolist()],
            "relevance": [
                x.tolist()
                for x in (self.relevance.pixels, self.relevance.hits, self.relevance.relevance)
            ],
            "seconds": self.seconds,
            "peak_mb": self.peak_mb,
        }

    @staticmethod
    def from_record(record: Record) -> SceneScore:
        """The score that `record` made."""

        def lists(name: str) -> list[Tensor]:
            return [torch.tensor(values, dtype=torch.float64) for values in record[name]]

        return SceneScore(
            **{name: record[name] for name in ("method", "kind", "scene", "seed")},
            views={
                name: torch.tensor(
                    [math.nan if value is None else value for value in record[name]],
                    dtype=torch.float64,
                )
                for name in VIEWS
            },
            errors={name: metrics.SquaredError(*lists(name)) for name in ERRORS},
            leakage=Leakage(*lists("leakage")),
            relevance=RelevanceCounts(*lists("relevance")),
            seconds=record["seconds"],
            peak_mb=record["peak_mb"],
        )


def case_name(scene: int, kind: str) -> str:
    """What a journal calls the edit of a scene."""
    return f"{scene} {kind}"


def scene_score(
    method: str,
    kind: str,
    scene: int,
    seed: int,
    views: Mapping[str, Float[Tensor, " n"]],
    errors: Mapping[str, metrics.SquaredError] | None = None,
    leakage: Leakage | None = None,
    relevance: RelevanceCounts | None = None,
    seconds: float | None = None,
    peak_mb: float | None = None,
) -> SceneScore:
    """A score of which only some is known; all else is undefined, or has no pixel."""
    n = len(next(iter(views.values())))
    undefined = torch.full((n,), torch.nan, dtype=torch.float64)
    nothing = metrics.SquaredError(*torch.zeros(2, n, dtype=torch.float64))
    bins = len(DISTANCES) + 1
    return SceneScore(
        method,
        kind,
        scene,
        seed,
        {name: views.get(name, undefined) for name in VIEWS},
        {name: (errors or {}).get(name, nothing) for name in ERRORS},
        leakage or Leakage(*torch.zeros(2, n, bins, dtype=torch.float64)),
        relevance or RelevanceCounts(*torch.zeros(3, n, BINS, dtype=torch.float64)),
        seconds,
        peak_mb,
    )


def rows_of(scores: Sequence[SceneScore]) -> list[dict[str, Any]]:
    """Rows for each method: every case, each kind over the scenes, and all. PSNR is pooled."""
    rows = []
    several = len({score.seed for score in scores}) > 1
    for method in dict.fromkeys(score.method for score in scores):
        own = [score for score in scores if score.method == method]
        rows.append(_row(own, method, "all", "all"))
        for kind in dict.fromkeys(score.kind for score in own):
            same = [score for score in own if score.kind == kind]
            rows.append(_row(same, method, kind, "all"))
            for score in same:
                scene = f"{score.scene} of seed {score.seed}" if several else score.scene
                rows.append(_row([score], method, kind, scene))
    return rows


def _row(scores: Sequence[SceneScore], method: str, kind: str, scene: int | str) -> dict[str, Any]:
    errors = {
        name: metrics.SquaredError(
            torch.cat([s.errors[name].total for s in scores]),
            torch.cat([s.errors[name].count for s in scores]),
        )
        for name in ERRORS
    }
    views = {name: torch.cat([s.views[name] for s in scores]) for name in VIEWS}
    counts = RelevanceCounts(
        *(
            torch.cat([getattr(s.relevance, name) for s in scores])
            for name in ("pixels", "hits", "relevance")
        )
    )
    # Views of one scene, and edits that begin with one fit, are no independent cases.
    units = [f"{s.seed} {s.scene}" for s in scores for _ in s.views["iou"]]
    weight = weights(units)
    seconds = [s.seconds for s in scores if s.seconds is not None]
    row: dict[str, Any] = {
        "method": method,
        "kind": kind,
        "scene": scene,
        "iou": metrics.mean(views["iou"]),
        **{PSNR[name]: errors[name].psnr() for name in ("inside", "outside")},
        "ssim": metrics.mean(views["ssim"]),
        "consistency": errors["consistency"].psnr(),
        "seconds": sum(seconds) / len(seconds) if seconds else None,
        "peak_mb": max((s.peak_mb for s in scores if s.peak_mb is not None), default=None),
        "stray": metrics.mean(views["stray"]),
        "ap": metrics.mean(views["ap"]),
        "ece": calibration_error(counts),
        **{name: metrics.mean(views[name]) for name in SEEN},
        "cases": len(scores),
        "seeds": len({s.seed for s in scores}),
    }
    for name, values in views.items():
        row |= ends(name, weighted_mean(values), of_several(weight, units, ~values.isnan()))
    for name, error in errors.items():
        known = of_several(weight, units, error.count > 0)
        row |= ends(PSNR[name], error.weighted_psnr, known)
    if kind == "all":
        row["leakage"] = pooled_leakage([s.leakage for s in scores]).points()
        row["precision_recall"] = precision_recall(counts)
        row["reliability"] = reliability(counts)
    return row


def warp_error(
    images: Float[Tensor, "n 3 h w"], depth: Float[Tensor, "n h w"], cameras: Camera
) -> metrics.SquaredError:
    """How far neighbouring views disagree about the surfaces that both see.

    Each view is compared with the next, sampled where the next one's camera sees the same point.
    A point counts where the depths agree to 2 %.

    Args:
        depth: exact depth along the camera's z axis; infinite on the background.
        cameras: the n cameras, in the frame of the depth.
    """
    n, _, height, width = images.shape
    totals, counts = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for i in range(n - 1):
        here, there = cameras[i], cameras[i + 1]
        flat = depth[i].reshape(-1)
        points = here.unproject(here.pixel_centres().reshape(-1, 2), flat.clamp(max=1e6))
        pixels, far = there.project(points)
        place = pixels / pixels.new_tensor([width, height]) * 2 - 1
        grid = place[None, None]
        # Beyond the outermost pixels' centres their colours go on: black would be mixed in.
        seen = F.grid_sample(
            images[i + 1][None], grid, padding_mode="border", align_corners=False
        ).squeeze(2)[0]
        known = depth[i + 1].clamp(max=1e6)[None, None]
        theirs = F.grid_sample(known, grid, mode="nearest", align_corners=False)[0, 0, 0]
        both = (flat < torch.inf) & (far > 0) & (place.abs() <= 1).all(-1)
        both &= (theirs - far).abs() < 0.02 * far
        error = (seen - images[i].reshape(3, -1)).double().square().sum(0)
        totals[i], counts[i] = error[both].sum(), 3 * both.sum()
    return metrics.SquaredError(totals, counts)
