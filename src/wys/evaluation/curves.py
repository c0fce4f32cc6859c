"""Curves of relevance maps and edits: precision and recall, reliability, leakage over distance.

All are kept as sums for each case, so that cases can be pooled in any way and a run can go on from
what it has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

BINS = 20
"""Equal bins of relevance between 0 and 1."""
DISTANCES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)
"""Upper ends of the bins of distance, in longer sides of the image; the last bin has no end."""


@dataclass(frozen=True)
class RelevanceCounts:
    """The pixels of b relevance maps by their relevance."""

    pixels: Float[Tensor, "b bins"]
    """Pixels in each bin of relevance."""
    hits: Float[Tensor, "b bins"]
    """Those of them that the true edit changes."""
    relevance: Float[Tensor, "b bins"]
    """Sum of their relevance."""

    def pooled(self) -> RelevanceCounts:
        """All maps as one."""
        return RelevanceCounts(
            *(x.sum(0, keepdim=True) for x in (self.pixels, self.hits, self.relevance))
        )


def relevance_counts(
    values: Float[Tensor, "b h w"], exact: Bool[Tensor, "b h w"], bins: int = BINS
) -> RelevanceCounts:
    """Counts pixels by relevance; bin k holds k / bins <= value < (k + 1) / bins, the last also 1.

    Args:
        values: relevance in [0, 1].
        exact: the pixels that the true edit changes.
    """
    flat = values.flatten(1).double().cpu()
    place = (flat * bins).floor().long().clamp(0, bins - 1)
    hit = exact.flatten(1).double().cpu()

    def per_bin(amount: Float[Tensor, "b n"]) -> Float[Tensor, "b bins"]:
        return torch.zeros(len(flat), bins, dtype=torch.float64).scatter_add(1, place, amount)

    return RelevanceCounts(per_bin(torch.ones_like(flat)), per_bin(hit), per_bin(flat))


def precision_recall(counts: RelevanceCounts) -> list[dict[str, float]]:
    """Precision and recall of `relevance >= threshold`, all pixels pooled, thresholds falling.

    Thresholds that no pixel reaches have no precision and no point. Empty where there is nothing
    to find.
    """
    whole = counts.pooled()
    found, hits = (x[0].flip(0).cumsum(0).tolist() for x in (whole.pixels, whole.hits))
    bins = len(found)
    if not hits[-1]:
        return []
    return [
        {
            "threshold": (bins - 1 - i) / bins,
            "precision": hits[i] / found[i],
            "recall": hits[i] / hits[-1],
        }
        for i in range(bins)
        if found[i]
    ]


def reliability(counts: RelevanceCounts) -> list[dict[str, float]]:
    """For each bin that holds pixels: their mean relevance, and the share that really changes.

    A calibrated map has both alike (DeGroot & Fienberg 1983). "pixels" is the bin's share of all.
    """
    whole = counts.pooled()
    total = float(whole.pixels.sum())
    columns = (whole.pixels, whole.hits, whole.relevance)
    rows = zip(*(column[0].tolist() for column in columns), strict=True)
    return [
        {"relevance": relevance / n, "changed": hits / n, "pixels": n / total}
        for n, hits, relevance in rows
        if n
    ]


def calibration_error(counts: RelevanceCounts) -> float | None:
    """Expected calibration error: mean over pixels of |relevance - changed| of their bin, 0 to 1.

    (Naeini et al. 2015; Guo et al. 2017, equation 3.) None where there is no pixel.
    """
    points = reliability(counts)
    if not points:
        return None
    return sum(p["pixels"] * abs(p["relevance"] - p["changed"]) for p in points)


def distance_to(mask: Bool[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Euclidean distance in pixels from each pixel's centre to the nearest one in the mask.

    Exact, one axis after the other (Felzenszwalb & Huttenlocher 2012, equation 1, by search);
    infinite where the mask is empty.
    """
    height, width = mask.shape
    rows = torch.arange(height, dtype=torch.float64)[:, None].expand(height, width)
    nothing = torch.full((height, width), torch.inf, dtype=torch.float64)
    last = torch.where(mask, rows, -nothing).cummax(0).values
    following = torch.where(mask, rows, nothing).flip(0).cummin(0).values.flip(0)
    along = torch.minimum(rows - last, following - rows).square()
    columns = torch.arange(width, dtype=torch.float64)
    across = (columns[:, None] - columns).square()
    # Row by row: all pairs of columns of all rows at once would be too much for large images.
    return torch.stack([(row + across).amin(1) for row in along]).sqrt()


@dataclass(frozen=True)
class Leakage:
    """How far b images are from the truth, by the distance to the region that should change."""

    total: Float[Tensor, "b bins"]
    """Sum of the absolute differences of all channels, on the [0, 1] scale."""
    count: Float[Tensor, "b bins"]
    """Values summed (pixels x channels)."""

    def points(self) -> list[dict[str, Any]]:
        """The pooled mean absolute difference in each bin of distance; None in empty bins.

        "to" is the bin's upper end in longer sides of the image, None for the rest of the image.
        """
        ends = [*DISTANCES, None]
        sums = zip(ends, self.total.sum(0).tolist(), self.count.sum(0).tolist(), strict=True)
        return [
            {"to": end, "change": total / count if count else None} for end, total, count in sums
        ]


def leakage(
    image: Float[Tensor, "b 3 h w"],
    truth: Float[Tensor, "b 3 h w"],
    exact: Bool[Tensor, "b h w"],
) -> Leakage:
    """Differences to the truth outside the exact mask, by distance; none where it is empty."""
    difference = (image.double().cpu() - truth.double().cpu()).abs().sum(1)
    side = max(exact.shape[-2:])
    ends = torch.tensor(DISTANCES, dtype=torch.float64) * side
    bins = len(DISTANCES) + 1
    totals, counts = [], []
    for own, mask in zip(difference, exact.cpu(), strict=True):
        away = distance_to(mask)
        outside = (away > 0) & (away < torch.inf)
        place = torch.bucketize(away[outside], ends)
        empty = torch.zeros(bins, dtype=torch.float64)
        totals.append(empty.scatter_add(0, place, own[outside]))
        counts.append(3 * torch.bincount(place, minlength=bins).double())
    return Leakage(torch.stack(totals), torch.stack(counts))


def pooled_leakage(parts: Sequence[Leakage]) -> Leakage:
    """Several batches as one."""
    return Leakage(torch.cat([p.total for p in parts]), torch.cat([p.count for p in parts]))
