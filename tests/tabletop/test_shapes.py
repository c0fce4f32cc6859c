"""The closed forms against signed distances and a slow march along the ray."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from wys.tabletop import shapes
from wys.tabletop.shapes import SOLIDS


def _cylinder(p: Tensor, radius: float, height: float) -> Tensor:
    side = p[:2].norm(dim=0) - radius
    cap = (p[2] - height / 2).abs() - height / 2
    outside = torch.stack([side, cap]).clamp(min=0).norm(dim=0)
    return outside + torch.maximum(side, cap).clamp(max=0)


def _cube(p: Tensor) -> Tensor:
    half = shapes.CUBE_HALF
    q = (p - torch.tensor([0.0, 0.0, half], dtype=p.dtype)[:, None]).abs() - half
    return q.clamp(min=0).norm(dim=0) + q.amax(dim=0).clamp(max=0)


def _cone(p: Tensor) -> Tensor:
    # A lower bound of the distance that is exact on the surface: it only has to be safe to march.
    length = (shapes.CONE_RADIUS**2 + shapes.CONE_HEIGHT**2) ** 0.5
    radius = p[:2].norm(dim=0)
    below = shapes.CONE_HEIGHT - p[2]
    side = (radius * shapes.CONE_HEIGHT - below * shapes.CONE_RADIUS) / length
    return torch.maximum(side, -p[2])


def _capsule(p: Tensor) -> Tensor:
    low, high = shapes.CAPSULE_RADIUS, shapes.CAPSULE_HEIGHT - shapes.CAPSULE_RADIUS
    axis = torch.stack([torch.zeros_like(p[0]), torch.zeros_like(p[0]), p[2].clamp(low, high)])
    return (p - axis).norm(dim=0) - shapes.CAPSULE_RADIUS


def _torus(p: Tensor) -> Tensor:
    ring = p[:2].norm(dim=0) - shapes.TORUS_RADIUS
    return torch.stack([ring, p[2] - shapes.TORUS_TUBE]).norm(dim=0) - shapes.TORUS_TUBE


DISTANCES: dict[str, Callable[[Tensor], Tensor]] = {
    "sphere": lambda p: (p - torch.tensor([[0.0], [0.0], [1.0]], dtype=p.dtype)).norm(dim=0) - 1,
    "cube": _cube,
    "cylinder": lambda p: _cylinder(p, shapes.CYLINDER_RADIUS, shapes.CYLINDER_HEIGHT),
    "cone": _cone,
    "capsule": _capsule,
    "torus": _torus,
}


def _rays(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rays from all around towards points near the solids."""
    draw = torch.Generator().manual_seed(seed)
    target = torch.randn(3, count, generator=draw) * 0.7 + torch.tensor([[0.0], [0.0], [0.8]])
    direction = torch.nn.functional.normalize(torch.randn(3, count, generator=draw), dim=0)
    return target - 5 * direction, direction


def _march(distance: Callable[[Tensor], Tensor], o: Tensor, d: Tensor) -> Tensor:
    o, d = o.double(), d.double()
    t = torch.zeros(o.shape[1], dtype=torch.float64)
    for _ in range(3000):
        t = t + distance(o + t * d).clamp(max=1.0) * 0.9
    return torch.where(distance(o + t * d).abs() < 1e-6, t, torch.inf)


@pytest.mark.parametrize("name", SOLIDS)
def test_intersections_agree_with_a_slow_march(name: str) -> None:
    o, d = _rays(1500, seed=5)
    solid, distance = SOLIDS[name], DISTANCES[name]
    t = solid.intersect(o, d, torch.zeros(o.shape[1]))
    expected = _march(distance, o, d)
    disagree = torch.isinf(t) != torch.isinf(expected)
    # Rays that graze an edge may fall on either side of it in single precision.
    assert disagree.float().mean() < 0.004
    both = torch.isfinite(t) & torch.isfinite(expected)
    assert both.float().mean() > 0.2
    close = (t[both].double() - expected[both]).abs() < 5e-3
    assert close.float().mean() > 0.995
    on_surface = distance((o + t * d)[:, both].double()).abs()
    assert on_surface.max() < 2e-3


@pytest.mark.parametrize("name", SOLIDS)
def test_normals_are_gradients_of_the_distance(name: str) -> None:
    o, d = _rays(600, seed=6)
    t = SOLIDS[name].intersect(o, d, torch.zeros(o.shape[1]))
    p = (o + t * d)[:, torch.isfinite(t)]
    normal = SOLIDS[name].normal(p)
    torch.testing.assert_close(normal.norm(dim=0), torch.ones(p.shape[1]), rtol=0, atol=2e-3)
    q = p.double().requires_grad_()
    (gradient,) = torch.autograd.grad(DISTANCES[name](q).sum(), q)
    agreement = (torch.nn.functional.normalize(gradient, dim=0) * normal).sum(dim=0)
    assert (agreement > 0.999).float().mean() > 0.99  # all but points on edges


@pytest.mark.parametrize("name", SOLIDS)
def test_bounds_contain_the_solid_and_it_stands_on_the_table(name: str) -> None:
    solid = SOLIDS[name]
    o, d = _rays(4000, seed=7)
    t = solid.intersect(o, d, torch.zeros(o.shape[1]))
    p = (o + t * d)[:, torch.isfinite(t)]
    centre = torch.tensor([[0.0], [0.0], [solid.centre_height]])
    assert (p - centre).norm(dim=0).max() <= solid.bound + 1e-3
    assert p[:2].norm(dim=0).max() <= solid.footprint + 1e-3
    assert -1e-3 < p[2].min() < 0.06


@pytest.mark.parametrize("name", SOLIDS)
def test_parameters_below_the_least_are_no_hits(name: str) -> None:
    o, d = _rays(800, seed=8)
    first = SOLIDS[name].intersect(o, d, torch.zeros(o.shape[1]))
    hit = torch.isfinite(first)
    o, d, first = o[:, hit], d[:, hit], first[hit]
    later = SOLIDS[name].intersect(o, d, first + 0.05)
    assert (later > first + 0.05).all()
