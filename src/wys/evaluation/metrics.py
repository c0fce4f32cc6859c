"""Measures of masks, relevance maps and edited images, all per case and batched.

Symbols: `b` cases, images RGB in [0, 1], `exact` the mask of the pixels that the true edit changes.
What is undefined for a case (nothing to find, nothing to compare) is NaN, and `mean` leaves it out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.errors import WysError

PSNR_CAP = 99.0
"""Equal images have an infinite PSNR; tables show this many dB instead."""


def mean(values: Float[Tensor, " b"]) -> float | None:
    """Mean of the values that are not NaN; None where there is none."""
    kept = values[~values.isnan()]
    return float(kept.mean()) if len(kept) else None


def iou(predicted: Bool[Tensor, "b h w"], exact: Bool[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """Intersection over union per case; two empty masks agree, so they count 1."""
    intersection = (predicted & exact).flatten(1).sum(1).double()
    union = (predicted | exact).flatten(1).sum(1).double()
    return torch.where(union > 0, intersection / union.clamp(min=1), 1.0)


def average_precision(
    values: Float[Tensor, "b h w"], exact: Bool[Tensor, "b h w"]
) -> Float[Tensor, " b"]:
    """Average precision of `values` as a score for `exact`: sum over n of (R_n - R_n-1) P_n.

    n runs over the distinct values from high to low, so equal values share one threshold and the
    order of the pixels does not matter. NaN where `exact` is empty.
    """
    score, order = values.flatten(1).double().sort(dim=1, descending=True, stable=True)
    hit = exact.flatten(1).gather(1, order).double()
    hits = hit.cumsum(1)
    count = torch.arange(1, score.shape[1] + 1, device=score.device, dtype=torch.float64)
    # A threshold lies only behind the last of several equal scores: precision is read there.
    last = torch.ones_like(score, dtype=torch.bool)
    last[:, :-1] = score[:, :-1] != score[:, 1:]
    position = torch.arange(score.shape[1], device=score.device).expand_as(score)
    end = torch.where(last, position, score.shape[1])
    end = end.flip(1).cummin(1).values.flip(1)
    precision = (hits / count).gather(1, end)
    total = hits[:, -1]
    return torch.where(total > 0, (hit * precision).sum(1) / total.clamp(min=1), torch.nan)


@dataclass(frozen=True)
class Grounding:
    """Whether a relevance map points at the named object."""

    hit: Float[Tensor, " b"]
    """1 where the named object has the highest mean relevance of all objects, else 0; NaN where
    no object is named or it is not visible."""
    chance: Float[Tensor, " b"]
    """1 / number of visible objects; NaN where `hit` is."""


def grounding(
    values: Float[Tensor, "b h w"],
    object_ids: Int[Tensor, "b h w"],
    target: Int[Tensor, " b"],
) -> Grounding:
    """Does the named object's silhouette have the highest mean relevance of all objects?

    `object_ids` is 0 where there is no object, `target` the named object's id or 0 for a global
    edit. The named object must be strictly ahead: a constant map points at nothing.
    """
    count = max(int(object_ids.max()), int(target.max()), 1)
    ids = torch.arange(1, count + 1, device=values.device)
    inside = (object_ids[:, None] == ids[:, None, None]).flatten(2)  # b objects pixels
    area = inside.sum(2)
    average = (inside * values.double().flatten(1)[:, None]).sum(2) / area.clamp(min=1)
    average = average.masked_fill(area == 0, -torch.inf)

    index = (target.clamp(min=1) - 1)[:, None]
    own = average.gather(1, index)
    rival = average.scatter(1, index, -torch.inf).max(1, keepdim=True).values
    defined = (target > 0) & (area.gather(1, index)[:, 0] > 0)
    hit = (own > rival)[:, 0].double()
    chance = 1 / (area > 0).sum(1).clamp(min=1).double()
    return Grounding(
        hit=torch.where(defined, hit, torch.nan), chance=torch.where(defined, chance, torch.nan)
    )


@dataclass(frozen=True)
class SquaredError:
    """Squared error per case over a region: sums, so that cases can be pooled."""

    total: Float[Tensor, " b"]
    """Sum of squared differences over the region's pixels and channels, on the [0, 1] scale."""
    count: Float[Tensor, " b"]
    """Number of values summed (pixels x channels)."""

    def psnr(self, chosen: Bool[Tensor, " b"] | None = None) -> float | None:
        """PSNR in dB of the pooled error of the chosen cases, at most 99; None if no pixel."""
        keep = torch.ones_like(self.total, dtype=torch.bool) if chosen is None else chosen
        total, count = float(self.total[keep].sum()), float(self.count[keep].sum())
        if count == 0:
            return None
        return PSNR_CAP if total == 0 else min(PSNR_CAP, -10 * math.log10(total / count))

    def median_psnr(self) -> float | None:
        """The median of the cases' own PSNR in dB, at most 99; None if no case has a pixel.

        Beside the pooled figure, which a few cases that went wrong decide, what is usual.
        """
        each = self.total[self.count > 0].double() / self.count[self.count > 0]
        if not len(each):
            return None
        return float((-10 * each.log10()).clamp(max=PSNR_CAP).quantile(0.5))

    def weighted_psnr(self, weight: Float[Tensor, "draws b"]) -> Float[Tensor, " draws"]:
        """`psnr` where each case counts as often as a draw says; NaN where no pixel is left."""
        mean_error = (weight @ self.total.double()) / (weight @ self.count.double())
        return (-10 * mean_error.log10()).clamp(max=PSNR_CAP)


def squared_error(
    image: Float[Tensor, "b 3 h w"],
    truth: Float[Tensor, "b 3 h w"],
    region: Bool[Tensor, "b h w"],
) -> SquaredError:
    """Squared error of `image` against `truth` inside `region`.

    Raises:
        WysError: the image has values that are not finite, which no figure can stand for.
    """
    if not bool(torch.isfinite(image).all()):
        raise WysError("an image to be measured has values that are not numbers.")
    squared = (image.double() - truth.double()).square() * region[:, None]
    return SquaredError(squared.flatten(1).sum(1), region.flatten(1).sum(1).double() * 3)


def largest_difference(
    image: Float[Tensor, "b 3 h w"],
    other: Float[Tensor, "b 3 h w"],
    region: Bool[Tensor, "b h w"],
) -> Int[Tensor, " b"]:
    """Largest absolute difference inside `region` between the 8-bit files of two images."""
    bytes_of = [x.mul(255).round().clamp(0, 255) for x in (image, other)]
    difference = (bytes_of[0] - bytes_of[1]).abs() * region[:, None]
    return difference.flatten(1).max(1).values.long()


def ssim(image: Float[Tensor, "b 3 h w"], truth: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Structural similarity per image (Wang et al. 2004), on float colours in [0, 1].

    Gaussian windows of 11 x 11 pixels (sigma 1.5) around every pixel, edges mirrored; images have
    at least 6 rows and columns.
    """
    # Imported here: torchmetrics brings in far more than this one measure.
    from torchmetrics.functional.image import structural_similarity_index_measure

    value = structural_similarity_index_measure(
        image.float(), truth.float(), data_range=1.0, reduction="none"
    )
    assert isinstance(value, Tensor)
    return value.reshape(len(image)).double()


def spearman(a: Float[Tensor, "b n"], b: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Rank correlation of each pair of rows, in [-1, 1]; equal values share their mean rank.

    NaN where a row is constant.
    """
    ranks = [_ranks(x) for x in (a, b)]
    x, y = (r - r.mean(dim=1, keepdim=True) for r in ranks)
    length = x.square().sum(dim=1).sqrt() * y.square().sum(dim=1).sqrt()
    return torch.where(length > 0, (x * y).sum(dim=1) / length.clamp(min=1e-12), torch.nan)


def _ranks(values: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """The rank of each value in its row, from 0; the mean rank where values are equal."""
    rows = [row.double().unique(return_inverse=True, return_counts=True) for row in values]
    return torch.stack([(n.cumsum(0) - (n + 1) / 2)[index] for _, index, n in rows])
