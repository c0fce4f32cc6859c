"""Where along a ray to look: intervals, their refinement, and losses on them.

Symbols: a ray is o + t d with |d| = 1; `s` in [0, 1] is a normalised distance along it and `t` the
distance in scene units. k intervals have k + 1 `edges` in s. A histogram is edges with one weight
for each interval.

Barron et al., "Mip-NeRF 360" (arXiv 2111.12077): equations of the functions below.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wys.camera import Rays


@dataclass(frozen=True)
class Spacing:
    """The map from s to t of n rays: t = closest + scale tan(first + s (last - first)).

    Equal steps in s are equal angles as seen from a point at distance `scale` from the ray's point
    closest to the scene's middle. Steps are even around the scene and grow with the square of the
    distance from it, towards the camera as well as away from it: the contraction's own measure,
    where mip-NeRF 360 (section 5) spaces by disparity from the camera alone.
    """

    closest: Float[Tensor, "n 1"]
    """t of the point closest to the origin."""
    scale: Float[Tensor, "n 1"]
    first: Float[Tensor, "n 1"]
    """Angle at s = 0."""
    last: Float[Tensor, "n 1"]
    """Angle at s = 1."""

    def distance(self, s: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """t at s."""
        return self.closest + self.scale * torch.tan(torch.lerp(self.first, self.last, s))


def spacing(rays: Rays, near: Float[Tensor, "n 1"], far: float, radius: float | None) -> Spacing:
    """The spacing of rays [n, 3] between `near` and `far`.

    Args:
        radius: of the ball around the origin outside of which there is nothing; None for a scene
            without end. A ray that misses the ball has no length: all its t are equal.
    """
    closest = -(rays.origins * rays.directions).sum(-1, keepdim=True)
    beside = (rays.origins + closest * rays.directions).square().sum(-1, keepdim=True)
    scale = (1 + beside).sqrt()
    start, end = near, torch.full_like(closest, far)
    if radius is not None:
        half = (radius**2 - beside).clamp(min=0).sqrt()
        start = torch.maximum(start, closest - half)
        end = torch.maximum(torch.minimum(end, closest + half), start)
    return Spacing(
        closest,
        scale,
        torch.atan2(start - closest, scale),
        torch.atan2(end - closest, scale),
    )


def even_edges(
    count: int, intervals: int, draw: torch.Generator | None, like: Tensor
) -> Float[Tensor, "count k1"]:
    """Edges of equal intervals on [0, 1]; with `draw` the inner ones jitter by half an interval."""
    edges = torch.linspace(0, 1, intervals + 1, device=like.device).expand(count, -1)
    if draw is None:
        return edges
    jitter = torch.rand(count, intervals - 1, generator=draw).to(like.device) - 0.5
    return torch.cat([edges[:, :1], edges[:, 1:-1] + jitter / intervals, edges[:, -1:]], dim=1)


def refine(
    edges: Float[Tensor, "n k1"],
    weights: Float[Tensor, "n k"],
    intervals: int,
    draw: torch.Generator | None,
) -> Float[Tensor, "n j1"]:
    """Edges of new intervals that each hold an equal share of a histogram.

    The first and last edge stay. With `draw` the shares jitter, by one number for each ray.
    """
    quantiles = torch.linspace(0, 1, intervals + 1, device=edges.device).expand(len(edges), -1)
    if draw is not None:
        jitter = torch.rand(len(edges), 1, generator=draw).to(edges) - 0.5
        inner = quantiles[:, 1:-1] + jitter / intervals
        quantiles = torch.cat([quantiles[:, :1], inner, quantiles[:, -1:]], dim=1)
    return invert(edges, weights, quantiles)


def invert(
    edges: Float[Tensor, "n k1"], weights: Float[Tensor, "n k"], quantiles: Float[Tensor, "n q"]
) -> Float[Tensor, "n q"]:
    """Where the cumulative distribution of a histogram (total above 0) reaches the quantiles."""
    heights = torch.cat([torch.zeros_like(weights[:, :1]), weights.cumsum(1)], dim=1)
    heights = heights / heights[:, -1:]
    upper = torch.searchsorted(heights, quantiles.contiguous(), right=True)
    upper = upper.clamp(1, weights.shape[1])
    left, right = edges.gather(1, upper - 1), edges.gather(1, upper)
    below, above = heights.gather(1, upper - 1), heights.gather(1, upper)
    # An empty interval is crossed at once.
    share = ((quantiles - below) / (above - below).clamp(min=1e-12)).clamp(0, 1)
    return torch.lerp(left, right, share)


def outer_weights(
    edges: Float[Tensor, "n k1"],
    weights: Float[Tensor, "n k"],
    within: Float[Tensor, "n j1"],
) -> Float[Tensor, "n j"]:
    """For each interval of `within`, the sum of the weights of all intervals that overlap it.

    Mip-NeRF 360, equation 12. Both edges begin and end at the same places.
    """
    total = torch.cat([torch.zeros_like(weights[:, :1]), weights.cumsum(1)], dim=1)
    k = weights.shape[1]
    first = torch.searchsorted(edges, within[:, :-1].contiguous(), right=True).sub_(1)
    last = torch.searchsorted(edges, within[:, 1:].contiguous(), right=False)
    first, last = first.clamp_(0, k - 1), last.clamp_(1, k)
    return total.gather(1, last) - total.gather(1, first)


def interlevel_loss(
    edges: Float[Tensor, "n k1"],
    weights: Float[Tensor, "n k"],
    fine_edges: Float[Tensor, "n j1"],
    fine_weights: Float[Tensor, "n j"],
) -> Float[Tensor, ""]:
    """How far the proposed histogram fails to bound the fine one; mean over rays.

    Mip-NeRF 360, equation 13: sum over i of max(0, w_i - bound_i)^2 / w_i. The fine histogram is
    taken as it is: its weights get no gradient.
    """
    fine = fine_weights.detach()
    bound = outer_weights(edges, weights, fine_edges.detach())
    return ((fine - bound).clamp(min=0).square() / (fine + 1e-7)).sum(1).mean()


def distortion_loss(
    edges: Float[Tensor, "n k1"], weights: Float[Tensor, "n k"]
) -> Float[Tensor, ""]:
    """How spread out the weights lie along the rays; mean over rays.

    Mip-NeRF 360, equation 15: sum over i, j of w_i w_j |m_i - m_j| + sum over i of w_i^2 d_i / 3,
    with middles m and lengths d. As the middles are sorted, the double sum is a cumulative one.
    """
    middles, lengths = (edges[:, 1:] + edges[:, :-1]) / 2, edges[:, 1:] - edges[:, :-1]
    moments = weights * middles
    before, moments_before = weights.cumsum(1) - weights, moments.cumsum(1) - moments
    between = 2 * (moments * before - weights * moments_before).sum(1)
    return (between + (weights.square() * lengths).sum(1) / 3).mean()
