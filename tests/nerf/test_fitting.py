"""Fitting: drawing pixels, exact resuming, a detached relevance field, and a fit end to end."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from wys.camera import Camera, Rays, look_at
from wys.errors import WysError
from wys.nerf import fitting
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import (
    FitSettings,
    Fitter,
    Pixels,
    RelevanceFitSettings,
    draw_pixels,
    fit,
    fit_relevance,
)
from wys.nerf.rendering import Samples, Shading, render
from wys.nerf.scene import Scene
from wys.store import read_tensors, write_tensors
from wys.views import ViewSet

FIELD = FieldSettings(
    levels=4,
    log2_size=12,
    coarsest=4,
    finest=32,
    width=16,
    proposal_grids=(24,),
    proposal_samples=32,
    samples=12,
    precision="float32",
)
FIT = FitSettings(iterations=10, rays=64, warmup=2)


def _ball_views(count: int = 8, size: int = 24, radius: float = 0.6) -> ViewSet:
    """An analytic scene: a ball whose colour is its normal, in front of a sky by direction."""
    angle = torch.arange(count) * (2 * math.pi / count)
    height = torch.where(torch.arange(count) % 2 == 0, 0.5, 1.2)
    eye = torch.stack([2.2 * angle.cos(), 2.2 * angle.sin(), height], dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0])
    pose = look_at(eye, torch.zeros(count, 3), up)
    intrinsics = torch.tensor([1.4 * size, 1.4 * size, size / 2, size / 2]).expand(count, 4)
    cameras = Camera(intrinsics, pose, size, size)
    rays = cameras.rays()
    closest = -(rays.origins * rays.directions).sum(-1)
    beside = (rays.origins + closest[..., None] * rays.directions).square().sum(-1)
    t = closest - (radius**2 - beside).clamp(min=0).sqrt()
    normal = (rays.origins + t[..., None] * rays.directions) / radius
    sky = torch.stack([0.3 + 0 * t, 0.5 + 0 * t, 0.6 + 0.3 * rays.directions[..., 2]], dim=-1)
    rgb = torch.where((beside < radius**2)[..., None], (normal + 1) / 2, sky)
    images = (rgb.permute(0, 3, 1, 2) * 255).round().to(torch.uint8)
    return ViewSet(tuple(f"view{i}" for i in range(count)), images, cameras)


def _scene(seed: int = 0) -> Scene:
    return Scene.create(FIELD, seed, unbounded=True, background="scene")


def _weights(scene: Scene) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in scene.state_dict().items()}


def _draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_drawn_pixels_carry_their_own_rays() -> None:
    views = _ball_views()
    pixels = draw_pixels(views.images, views.cameras, 50, _draw())
    rays, images = views.cameras.rays(), views.images.float() / 255
    for origin, direction, rgb in zip(
        pixels.rays.origins, pixels.rays.directions, pixels.rgb, strict=True
    ):
        same = (rays.origins - origin).norm(dim=-1) + (rays.directions - direction).norm(dim=-1)
        view, row, column = (int(i) for i in torch.unravel_index(same.argmin(), same.shape))
        assert float(same.min()) < 1e-5
        assert torch.equal(images[view, :, row, column], rgb)


@pytest.mark.parametrize(("photographs", "weight"), [(8, 3.0), (32, 3.0 / 16)])
def test_decay_is_the_gradient_of_the_grids_mean_squares(
    monkeypatch: pytest.MonkeyPatch, photographs: int, weight: float
) -> None:
    views, scene, free = _ball_views(photographs), _scene(), _scene()
    grid = scene.radiance.grid
    with torch.no_grad():
        for each in (scene, free):
            each.radiance.grid.table.add_(0.1)
    seen: list[torch.Tensor] = []
    for each, decay in ((scene, 3.0), (free, 0.0)):
        fitter = Fitter(each, replace(FIT, decay=decay), 0)
        table = each.radiance.grid.table
        monkeypatch.setattr(
            fitter._optimiser, "step", lambda table=table: seen.append(table.grad.clone())
        )
        fitter.step(views.images, views.cameras)
    table = grid.table.detach().clone().requires_grad_()
    rows = table.reshape(grid.levels, -1)
    (weight * rows.square().mean(dim=1).sum()).backward()
    torch.testing.assert_close(seen[0] - seen[1], table.grad, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("unbounded", [True, False])
def test_gradients_near_the_camera_fall_with_its_distance_squared(
    unbounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """min(1, d^2) of what the loss alone gives, where d is how far an interval's middle is."""
    scene = Scene.create(FIELD, 0, unbounded=unbounded, background="scene")
    with torch.no_grad():
        scene.radiance.grid.table.normal_(generator=_draw(2))
    # The first camera stands among what it sees, the second apart.
    origins = torch.tensor([[0.2, 0.1, 0.0]] * 20 + [[0.0, 0.0, 2.5]] * 20)
    directions = F.normalize(torch.randn(40, 3, generator=_draw()) - 0.3 * origins, dim=-1)
    pixels = Pixels(Rays(origins, directions), torch.rand(40, 3, generator=_draw(1)))
    seen: list[tuple[Samples, Shading]] = []

    def watched(scene: Scene, samples: Samples) -> Shading:
        seen.append((samples, shade(scene, samples)))
        return seen[-1][1]

    shade = fitting.shade
    monkeypatch.setattr(fitting, "shade", watched)
    fitter = Fitter(scene, replace(FIT, interlevel=0.0, distortion=0.0), 0)
    losses = fitter.losses(pixels, None)
    ((samples, shading),) = seen
    shading.density.retain_grad(), shading.rgb.retain_grad()
    losses["colour"].backward()

    # The loss once more, with the light that each interval lets through taken one by one.
    density, rgb = (v.detach().double().requires_grad_() for v in (shading.density, shading.rgb))
    starts, ends = samples.distances[:, :-1].double(), samples.distances[:, 1:].double()
    light, shown = torch.ones(40, dtype=torch.float64), torch.zeros(40, 3, dtype=torch.float64)
    for k in range(density.shape[1]):
        through = torch.exp(-density[:, k] * (ends[:, k] - starts[:, k]))
        through = 0 * through if k == density.shape[1] - 1 else through
        shown = shown + (light * (1 - through))[:, None] * rgb[:, k]
        light = light * through
    ((shown - pixels.rgb) ** 2).mean().backward()
    distance = (starts + ends) / 2
    scale = torch.where(distance < 1, distance**2, 1.0) if unbounded else torch.ones_like(distance)
    assert int((distance < 0.5).sum()) > 20 and int((distance > 1.5).sum()) > 20
    for values, alone, own in (
        (shading.density, density, scale),
        (shading.rgb, rgb, scale[..., None]),
    ):
        largest = float(alone.grad.abs().max())
        torch.testing.assert_close(
            values.grad.double(), own * alone.grad, rtol=1e-3, atol=1e-4 * largest
        )


def test_weights_of_losses_are_not_negative() -> None:
    for name in ("interlevel", "distortion", "decay"):
        with pytest.raises(WysError, match="weights of a fit's losses"):
            replace(FIT, **{name: -1.0})


def test_a_share_of_the_pixels_comes_from_the_region() -> None:
    views = _ball_views()
    images = torch.zeros_like(views.images)
    where = torch.zeros(8, 24, 24, dtype=torch.bool)
    where[3, 5:7, 5:7] = True
    images[where[:, None].expand_as(images)] = 255
    among = where.flatten().nonzero()[:, 0]
    found = draw_pixels(images, views.cameras, 200, _draw(), among=among, share=0.25)
    inside = found.rgb[:, 0] == 1
    assert 50 <= int(inside.sum()) <= 60
    everywhere = draw_pixels(images, views.cameras, 200, _draw(), among=among[:0])
    assert int((everywhere.rgb[:, 0] == 1).sum()) < 10


def test_five_and_five_steps_are_ten_through_a_file(tmp_path: Path) -> None:
    views = _ball_views()
    whole = _scene()
    fitter = Fitter(whole, FIT, 7)
    losses = [fitter.step(views.images, views.cameras) for _ in range(10)]

    first = Fitter(_scene(), FIT, 7)
    for _ in range(5):
        first.step(views.images, views.cameras)
    write_tensors(tmp_path / "fit.safetensors", first.state())
    rest = _scene(seed=99)
    second = Fitter(rest, FIT, 7)
    second.restore(read_tensors(tmp_path / "fit.safetensors"))
    assert second.iteration == 5
    again = [second.step(views.images, views.cameras) for _ in range(5)]
    assert again == losses[5:]
    for name, value in _weights(whole).items():
        assert torch.equal(value, rest.state_dict()[name]), name


def test_a_saved_state_is_not_changed_by_further_steps() -> None:
    views = _ball_views()
    fitter = Fitter(_scene(), FIT, 0)
    fitter.step(views.images, views.cameras)
    state = fitter.state()
    kept = {name: value.clone() for name, value in state.items()}
    fitter.step(views.images, views.cameras)
    assert all(torch.equal(state[name], value) for name, value in kept.items())


def test_a_state_of_other_settings_is_refused() -> None:
    state = Fitter(_scene(), FIT, 0).state()
    other = Scene.create(replace(FIELD, width=8), 0, unbounded=True, background="scene")
    with pytest.raises(WysError, match="other settings"):
        Fitter(other, FIT, 0).restore(state)


def test_a_constant_rate_replaces_the_schedule() -> None:
    views = _ball_views()
    scene = _scene()
    before = _weights(scene)
    Fitter(scene, FIT, 0, rate=1e-4).step(views.images, views.cameras)
    moved = (scene.radiance.colour_net[0].weight - before["radiance.colour_net.0.weight"]).abs()
    # Adam's first step is the rate itself.
    assert float(moved.max().detach()) == pytest.approx(1e-4, rel=1e-2)


def test_the_schedule_rises_and_falls() -> None:
    settings = FitSettings(iterations=100, warmup=10, final=0.1)
    shares = [settings.share(i) for i in range(101)]
    assert shares[0] < shares[5] < shares[10] and shares[10] > 0.9
    assert all(a >= b for a, b in pairwise(shares[10:]))
    assert shares[100] == pytest.approx(0.1) and settings.share(500) == pytest.approx(0.1)


def test_a_small_fit_shows_views_that_it_was_not_given() -> None:
    views = _ball_views(count=12, size=24)
    kept = [i for i in range(12) if i not in (3, 8)]
    scene = _scene()
    settings = FitSettings(iterations=120, rays=256)
    steps = list(fit(scene, views.select(kept), settings, 0))
    assert [step.iteration for step in steps] == list(range(1, 121))
    assert steps[-1].losses["colour"] < 0.1 * steps[0].losses["colour"]
    error = torch.stack(
        [(render(scene, views.cameras[i]).rgb - views.original(i)).square().mean() for i in (3, 8)]
    ).mean()
    # Of a sky without texture ten views leave much open.
    assert -10 * math.log10(float(error)) > 17


def test_fitting_relevance_leaves_density_and_colour_bit_identical() -> None:
    views = _ball_views()
    scene = _scene()
    list(fit(scene, views, replace(FIT, iterations=30, rays=128), 0))
    scene = scene.with_relevance(0)
    maps = torch.zeros(1, 8, 8)
    maps[:, 2:6, 2:6] = 1
    for i in range(6):
        views = views.with_relevance(i, maps)
    before, shown = _weights(scene), render(scene, views.cameras[0])
    losses = [
        step.losses["relevance"]
        for step in fit_relevance(scene, views, RelevanceFitSettings(iterations=60, rays=256), 0)
    ]
    after = render(scene, views.cameras[0])
    for name, value in _weights(scene).items():
        assert torch.equal(value, before[name]) == name.startswith("radiance."), name
    assert torch.equal(shown.rgb, after.rgb) and torch.equal(shown.depth, after.depth)
    assert all(p.grad is None for p in scene.radiance.parameters())
    assert losses[-1] < 0.3 * losses[0]
    assert after.relevance is not None
    relevance = after.relevance[0]
    assert float(relevance[9:15, 9:15].mean()) > 0.7 > 0.3 > float(relevance[:3].mean())


def test_rays_are_traced_once_and_learnt_from_again(monkeypatch: pytest.MonkeyPatch) -> None:
    views = _ball_views()
    for i in range(6):
        views = views.with_relevance(i, torch.full((1, 8, 8), i / 6))
    scene, traced = _scene().with_relevance(0), 0

    def counted(*arguments: object) -> object:
        nonlocal traced
        traced += 1
        return trace(*arguments)

    trace = fitting._trace
    monkeypatch.setattr(fitting, "_trace", counted)
    settings = RelevanceFitSettings(iterations=12, rays=32, traced=4)
    steps = list(fit_relevance(scene, views, settings, 0))
    assert [step.iteration for step in steps] == list(range(1, 13)) and traced == 4
    # The same rays come again: each round fits them better than the one before.
    rounds = torch.tensor([step.losses["relevance"] for step in steps]).reshape(3, 4)
    assert bool((rounds[1:] < rounds[:-1]).all())
    with pytest.raises(WysError, match="traced"):
        RelevanceFitSettings(traced=0)


def test_a_relevance_fit_needs_a_field_and_maps() -> None:
    views = _ball_views()
    with pytest.raises(WysError, match="no relevance field"):
        list(fit_relevance(_scene(), views, RelevanceFitSettings(), 0))
    with pytest.raises(WysError, match="no view"):
        list(fit_relevance(_scene().with_relevance(0), views, RelevanceFitSettings(), 0))
