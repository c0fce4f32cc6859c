"""Intervals along rays: fast functions against slow, obvious ones."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wys.camera import Rays
from wys.nerf.intervals import (
    distortion_loss,
    even_edges,
    interlevel_loss,
    invert,
    outer_weights,
    refine,
    spacing,
)


def _histogram(seed: int, n: int = 5, k: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    inner = torch.rand(n, k - 1, generator=draw).sort(dim=1).values
    edges = torch.cat([torch.zeros(n, 1), inner, torch.ones(n, 1)], dim=1)
    return edges, torch.rand(n, k, generator=draw) ** 3


def _rays(seed: int, n: int = 64, reach: float = 3.0) -> Rays:
    draw = torch.Generator().manual_seed(seed)
    origins = reach * torch.randn(n, 3, generator=draw)
    directions = torch.randn(n, 3, generator=draw)
    return Rays(origins, torch.nn.functional.normalize(directions, dim=-1))


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_inverts_the_cumulative_distribution(seed: int) -> None:
    edges, weights = _histogram(seed)
    quantiles = torch.rand(5, 7, generator=torch.Generator().manual_seed(seed + 1))
    found = invert(edges, weights, quantiles)
    for row in range(5):
        shares = (weights[row] / weights[row].sum()).tolist()
        for j, q in enumerate(quantiles[row].tolist()):
            total = 0.0
            for i, share in enumerate(shares):
                if total + share >= q or i == len(shares) - 1:
                    left, right = float(edges[row, i]), float(edges[row, i + 1])
                    # A thin interval turns the rounding of the shares' sum into a length.
                    assert float(found[row, j]) == pytest.approx(
                        left + (right - left) * (q - total) / share,
                        abs=1e-6 + 1e-6 * (right - left) / share,
                    )
                    break
                total += share


def test_an_empty_interval_gets_no_edge() -> None:
    edges = torch.tensor([[0.0, 0.4, 0.6, 1.0]])
    found = refine(edges, torch.tensor([[1.0, 0.0, 1.0]]), 8, None)
    assert not bool(((found > 0.4 + 1e-6) & (found < 0.6 - 1e-6)).any())
    assert found[0, 0] == 0 and found[0, -1] == 1


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=30)
def test_refined_edges_are_sorted_and_span_the_same(seed: int, jitter: bool) -> None:
    edges, weights = _histogram(seed)
    draw = torch.Generator().manual_seed(seed) if jitter else None
    found = refine(edges, weights + 1e-3, 6, draw)
    assert bool((found[:, 1:] >= found[:, :-1]).all())
    assert torch.equal(found[:, [0, -1]], edges[:, [0, -1]])
    even = even_edges(5, 6, draw, edges)
    assert bool((even[:, 1:] > even[:, :-1]).all())
    assert torch.equal(even[:, [0, -1]], edges[:, [0, -1]])


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_outer_weights_sum_what_overlaps(seed: int) -> None:
    edges, weights = _histogram(seed)
    fine, _ = _histogram(seed + 1, k=6)
    found = outer_weights(edges, weights, fine)
    for row in range(5):
        for j in range(6):
            slow = sum(
                float(weights[row, i])
                for i in range(9)
                if edges[row, i] < fine[row, j + 1] and edges[row, i + 1] > fine[row, j]
            )
            assert float(found[row, j]) == pytest.approx(slow, abs=1e-5)


def test_the_interlevel_loss_is_zero_for_a_bound_and_moves_the_proposal_alone() -> None:
    edges, weights = _histogram(0)
    assert float(interlevel_loss(edges, weights, edges, 0.9 * weights)) < 1e-9
    weights.requires_grad_()
    fine = (2 * weights.detach()).requires_grad_()
    loss = interlevel_loss(edges, weights, edges, fine)
    loss.backward()
    # max(0, 2 w - w)^2 / 2 w = w / 2
    assert float(loss.detach()) == pytest.approx(
        float(weights.detach().sum(1).mean()) / 2, rel=1e-3
    )
    assert fine.grad is None and weights.grad is not None and bool((weights.grad < 0).all())


@given(st.integers(0, 10_000))
@settings(max_examples=30)
def test_the_distortion_loss_is_the_double_sum(seed: int) -> None:
    edges, weights = _histogram(seed)
    edges, weights = edges.double(), weights.double()
    slow = 0.0
    for row in range(5):
        middles = ((edges[row, 1:] + edges[row, :-1]) / 2).tolist()
        for i in range(9):
            for j in range(9):
                slow += float(weights[row, i] * weights[row, j]) * abs(middles[i] - middles[j])
            slow += float(weights[row, i] ** 2 * (edges[row, i + 1] - edges[row, i])) / 3
    assert float(distortion_loss(edges, weights)) == pytest.approx(slow / 5, rel=1e-9)


def test_the_distortion_loss_has_the_right_gradient() -> None:
    edges, weights = _histogram(3, n=2, k=5)
    edges, weights = edges.double(), weights.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: distortion_loss(edges, w), (weights,))


def test_spacing_ends_at_near_and_far_and_rises() -> None:
    rays = _rays(0)
    place = spacing(rays, torch.full((64, 1), 0.1), 100.0, None)
    t = place.distance(torch.linspace(0, 1, 50).expand(64, -1))
    assert torch.allclose(t[:, 0], torch.tensor(0.1), atol=1e-3)
    assert torch.allclose(t[:, -1], torch.tensor(100.0), rtol=1e-2)
    assert bool((t[:, 1:] > t[:, :-1]).all())


def test_spacing_is_even_in_the_angle_from_beside_the_ray() -> None:
    rays = Rays(torch.tensor([[-3.0, 0, 0]]), torch.tensor([[1.0, 0, 0]]))
    place = spacing(rays, torch.tensor([[0.5]]), 1e3, None)
    t = place.distance(torch.linspace(0, 1, 20)[None])[0].double()
    angles = torch.atan(t - 3)
    assert torch.allclose(angles.diff(), angles.diff().mean().expand(19), atol=1e-4)
    assert float(angles[0]) == pytest.approx(math.atan(-2.5), abs=1e-4)


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_a_bounded_ray_spans_the_ball_and_a_miss_has_no_length(seed: int) -> None:
    rays = _rays(seed, reach=2.0)
    place = spacing(rays, torch.full((64, 1), 0.05), 1e3, 1.5)
    start, end = place.distance(torch.tensor([[0.0, 1.0]]).expand(64, -1)).unbind(1)
    for t in (start, end):
        radius = (rays.origins + rays.directions * t[:, None]).norm(dim=1)
        crosses = (end - start) > 1e-3
        assert bool((radius[crosses] < 1.5 + 1e-2).all())
    closest = -(rays.origins * rays.directions).sum(1)
    beside = (rays.origins + closest[:, None] * rays.directions).norm(dim=1)
    missed = (beside > 1.5) | (closest + (1.5**2 - beside**2).clamp(min=0).sqrt() < 0.05)
    assert float((end - start)[missed].abs().max() if missed.any() else 0) < 1e-3
