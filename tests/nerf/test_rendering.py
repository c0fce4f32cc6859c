"""Rendering: an analytic scene, backgrounds, detached relevance, and independence of chunks."""

import math

import pytest
import torch
from torch import Tensor

from wys.camera import Camera, Rays, look_at
from wys.nerf.field import FieldSettings
from wys.nerf.rendering import composite, render, render_rays, sample, shade
from wys.nerf.scene import Scene
from wys.views import Background

SETTINGS = FieldSettings(
    levels=2,
    log2_size=10,
    coarsest=4,
    finest=16,
    width=8,
    proposal_grids=(8,),
    proposal_samples=32,
    samples=48,
    precision="float32",
)


def _scene(background: Background = "scene", unbounded: bool = True) -> Scene:
    scene = Scene.create(SETTINGS, 0, unbounded=unbounded, background=background)
    with torch.no_grad():
        scene.radiance.grid.table.normal_(generator=torch.Generator().manual_seed(1))
    return scene.with_relevance(0)


def _rays(n: int = 10) -> Rays:
    draw = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=draw), dim=-1)
    return Rays(-3.0 * directions + 0.3 * torch.randn(n, 3, generator=draw), directions)


def _camera(size: int = 12) -> Camera:
    pose = look_at(torch.tensor([2.5, 0.4, 1.0]), torch.zeros(3), torch.tensor([0.0, 0.0, 1.0]))
    half = size / 2
    return Camera(torch.tensor([1.5 * size, 1.5 * size, half, half]), pose, size, size)


@pytest.mark.parametrize("background", ["white", "black"])
def test_a_ball_of_fog_lets_exp_minus_sigma_d_through(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constant density fills the bounded scene's ball; a chord of it has a known length."""
    scene, sigma = _scene(background, unbounded=False), 0.9
    colour = torch.tensor([0.2, 0.5, 0.7])

    def density(points: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full(points.shape[:-1], sigma), points

    def shown(features: Tensor, directions: Tensor) -> Tensor:
        return colour.expand_as(features)

    monkeypatch.setattr(scene.radiance, "density", density)
    monkeypatch.setattr(scene.radiance, "colour", shown)
    rays = _rays()
    closest = -(rays.origins * rays.directions).sum(1)
    beside = (rays.origins + closest[:, None] * rays.directions).square().sum(1)
    chord = 2 * (SETTINGS.radius**2 - beside).clamp(min=0).sqrt()
    through = torch.exp(-sigma * chord)
    found = render_rays(scene, rays)
    assert torch.allclose(found.opacity, 1 - through, atol=1e-4)
    behind = 1.0 if background == "white" else 0.0
    expected = (1 - through)[:, None] * colour + through[:, None] * behind
    assert torch.allclose(found.rgb, expected, atol=1e-4)


def test_a_wall_is_seen_at_its_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = _scene()

    def wall(points: Tensor) -> Tensor:
        return torch.where(points[..., 0] > 0.4, 300.0, 1e-6)

    monkeypatch.setattr(scene.radiance, "proposed_density", wall)
    monkeypatch.setattr(
        scene.radiance, "density", lambda points: (wall(points), torch.zeros_like(points))
    )
    monkeypatch.setattr(scene.radiance, "colour", lambda features, directions: features + 0.5)
    direction = torch.tensor([[0.8, 0.6, 0.0]])
    found = render_rays(scene, Rays(torch.tensor([[-2.0, -1.5, 0.1]]), direction))
    assert float(found.depth) == pytest.approx(2.4 / 0.8, abs=0.05)
    assert float(found.opacity) == pytest.approx(1, abs=1e-4)


def test_every_ray_of_a_scene_without_end_ends_in_it() -> None:
    found = render_rays(_scene(), _rays())
    assert torch.allclose(found.opacity, torch.ones(10), atol=1e-5)
    assert bool(((found.rgb >= 0) & (found.rgb <= 1)).all())


def test_a_bounded_scene_shows_its_background_where_a_ray_misses() -> None:
    rays = Rays(torch.tensor([[5.0, 5, 5]]), torch.tensor([[1.0, 0, 0]]))
    found = render_rays(_scene("white", unbounded=False), rays)
    assert torch.allclose(found.rgb, torch.ones(1, 3), atol=1e-4)
    assert float(found.opacity.detach()) == pytest.approx(0, abs=1e-4)


def test_relevance_is_the_sum_of_weights_times_r_and_moves_nothing_else() -> None:
    scene = _scene()
    samples = sample(scene, _rays())
    shading = shade(scene, samples)
    shown, weights = composite(samples, shading, scene.background)
    assert shading.relevance is not None and shown.relevance is not None
    slow = [
        sum(float(w) * float(r) for w, r in zip(ws, rs, strict=True))
        for ws, rs in zip(weights.tolist(), shading.relevance.tolist(), strict=True)
    ]
    assert shown.relevance.tolist() == pytest.approx(slow, abs=1e-5)
    shown.relevance.sum().backward()
    assert scene.relevance is not None
    assert all(p.grad is not None for p in scene.relevance.parameters())
    assert all(p.grad is None for p in scene.radiance.parameters())


def test_a_view_does_not_depend_on_its_chunks_and_is_the_same_each_time() -> None:
    scene, camera = _scene(), _camera()
    whole, parts = render(scene, camera), render(scene, camera, chunk=7)
    again = render(scene, camera)
    assert whole.rgb.shape == (3, 12, 12) and whole.depth.shape == (1, 12, 12)
    assert whole.relevance is not None and whole.relevance.shape == (1, 12, 12)
    assert torch.allclose(whole.rgb, parts.rgb, atol=1e-5)
    assert torch.equal(whole.rgb, again.rgb) and not whole.rgb.requires_grad
    rays = camera.rays()
    direct = render_rays(scene, rays)
    assert direct.rgb.shape == (12, 12, 3)
    assert torch.allclose(direct.rgb.permute(2, 0, 1), whole.rgb, atol=1e-5)


def test_jitter_is_a_function_of_the_generator() -> None:
    scene = _scene()
    first, second, other = (
        render_rays(scene, _rays(), draw=torch.Generator().manual_seed(s)).rgb for s in (1, 1, 2)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_gradients_of_a_rendered_colour_are_those_of_finite_differences() -> None:
    scene = _scene()
    samples = sample(scene, _rays(3))
    parameter = scene.radiance.density_net[-1].bias
    assert isinstance(parameter, Tensor)

    def loss() -> Tensor:
        shown, _ = composite(samples, shade(scene, samples), scene.background)
        return shown.rgb.double().sum()

    loss().backward()
    assert parameter.grad is not None
    exact = float(parameter.grad[0])
    values = []
    for step in (1e-2, -1e-2):
        with torch.no_grad():
            parameter[0] += step
            values.append(float(loss()))
            parameter[0] -= step
    assert math.isclose((values[0] - values[1]) / 2e-2, exact, rel_tol=2e-2, abs_tol=1e-3)
