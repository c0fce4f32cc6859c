"""The radiance field: contraction laws, ranges, determinism, and what a file keeps."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wys.camera import Rays
from wys.errors import WysError
from wys.nerf.field import FieldSettings, contract, uncontract
from wys.nerf.rendering import render_rays
from wys.nerf.scene import Scene
from wys.store import read_metadata, read_tensors, write_tensors

TINY = FieldSettings(
    levels=2, log2_size=8, coarsest=4, finest=8, width=8, proposal_grids=(8,), samples=4
)

coordinates = st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=3)


def _points(values: list[float]) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.double)


def _rays(n: int = 6) -> Rays:
    draw = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=draw), dim=-1)
    return Rays(torch.randn(n, 3, generator=draw), directions)


@given(coordinates)
def test_contraction_ends_in_the_ball_of_radius_2_and_keeps_the_direction(
    values: list[float],
) -> None:
    x = _points(values)
    y = contract(x)
    assert float(y.norm()) < 2
    norm = float(x.norm())
    if norm <= 1:
        assert torch.equal(x, y)
    else:
        assert torch.allclose(y / y.norm(), x / norm)
        assert float(y.norm()) == pytest.approx(2 - 1 / norm)


@given(coordinates)
def test_contraction_is_inverted(values: list[float]) -> None:
    x = _points(values)
    assert torch.allclose(uncontract(contract(x)), x, rtol=1e-6, atol=1e-9)


@given(coordinates, coordinates)
def test_contraction_never_pulls_apart(a: list[float], b: list[float]) -> None:
    x, y = _points(a), _points(b)
    assert float((contract(x) - contract(y)).norm()) <= float((x - y).norm()) * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("unbounded", [True, False])
def test_all_that_is_seen_lies_in_the_cube_of_the_grids(unbounded: bool) -> None:
    scene = Scene.create(TINY, 0, unbounded=unbounded, background="black")
    points = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    points = points * (100 if unbounded else 0.4)
    cube = scene.radiance.unit_cube(points)
    assert bool(((cube >= 0) & (cube <= 1)).all())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_density_is_positive_and_colour_in_range(precision: str) -> None:
    settings = replace(TINY, precision=precision)
    scene = Scene.create(settings, 0, unbounded=True, background="scene")
    points = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    density, features = scene.radiance.density(points)
    colour = scene.radiance.colour(features, torch.nn.functional.normalize(points, dim=-1))
    assert density.shape == (2, 5) and density.dtype == torch.float32 and bool((density > 0).all())
    assert colour.shape == (2, 5, 3) and bool(((colour > 0) & (colour < 1)).all())


def test_the_seed_decides_the_scene() -> None:
    def table(seed: int) -> torch.Tensor:
        scene = Scene.create(TINY, seed, unbounded=True, background="scene")
        return torch.cat([p.detach().flatten() for p in scene.parameters()])

    assert torch.equal(table(3), table(3))
    assert not torch.equal(table(3), table(4))


def test_a_clone_shares_nothing_and_a_relevance_field_leaves_the_radiance() -> None:
    scene = Scene.create(TINY, 0, unbounded=True, background="scene")
    copied, wider = scene.clone(), scene.with_relevance(0)
    with torch.no_grad():
        copied.radiance.grid.table.add_(1)
    assert not torch.equal(copied.radiance.grid.table, scene.radiance.grid.table)
    assert wider.radiance is scene.radiance and scene.relevance is None
    shown, again = render_rays(scene, _rays()), render_rays(wider, _rays())
    assert torch.equal(shown.rgb, again.rgb) and shown.relevance is None
    assert again.relevance is not None and again.relevance.shape == (6,)


@pytest.mark.parametrize("relevance", [True, False])
def test_a_file_keeps_the_scene_exactly(tmp_path: Path, relevance: bool) -> None:
    scene = Scene.create(TINY, 5, unbounded=False, background="white")
    scene = scene.with_relevance(0) if relevance else scene
    scene.save(tmp_path / "scene.safetensors")
    again = Scene.load(tmp_path / "scene.safetensors")
    assert again.settings == TINY and again.background == "white" and not again.unbounded
    for name, value in scene.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert torch.equal(render_rays(scene, _rays()).rgb, render_rays(again, _rays()).rgb)


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scene.safetensors"
    Scene.create(TINY, 0, unbounded=True, background="scene").save(path)
    tensors, metadata = read_tensors(path), read_metadata(path)
    with pytest.raises(WysError, match="does not exist"):
        Scene.load(tmp_path / "absent.safetensors")
    write_tensors(path, tensors)
    with pytest.raises(WysError, match="holds no scene"):
        Scene.load(path)
    tensors.pop("radiance.grid.table")
    write_tensors(path, tensors, metadata)
    with pytest.raises(WysError, match="holds no scene"):
        Scene.load(path)
    newer = metadata["scene"].replace('"version": 1', '"version": 99')
    write_tensors(path, tensors, {"scene": newer})
    with pytest.raises(WysError, match="version 99"):
        Scene.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features": 3}, "features must be an even number"),
        ({"near": 0.0}, "near .* must be above 0"),
        ({"samples": 0}, "samples, levels and width"),
        ({"log2_size": 30}, "log2_size is 1 to 24"),
        ({"finest": 1}, "coarsest at least 1 and at most finest"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, float], words: str) -> None:
    with pytest.raises(WysError, match=words):
        replace(TINY, **change)
