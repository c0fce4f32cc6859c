"""The state of a scene's edit: what is written is what is read."""

import pytest
import torch

from wys.camera import Camera, intrinsics_from_fov, look_at
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings, Fitter
from wys.nerf.region import Region
from wys.nerf.scene import Scene
from wys.relevance import RelevanceMap, RelevanceSettings
from wys.scene_state import SceneEditState
from wys.views import ViewSet

HOW = RelevanceSettings(draws=2)


def random_state(seed: int, settings: FieldSettings) -> tuple[SceneEditState, Scene, ViewSet]:
    """Any state of an edit, with the scene and the views that it began with."""
    draw = torch.Generator().manual_seed(seed)

    def chance() -> bool:
        return bool(torch.rand((), generator=draw) < 0.5)

    def some(*shape: int) -> torch.Tensor | None:
        return torch.rand(*shape, generator=draw) if chance() else None

    count, size = 12, 6
    eye = torch.randn(count, 3, generator=draw) + torch.tensor([3.0, 0.0, 0.0])
    pose = look_at(eye, torch.zeros(count, 3), torch.tensor([0.0, 0.0, 1.0]))
    cameras = Camera(intrinsics_from_fov(torch.full((count,), 40.0), size, size), pose, size, size)
    images = torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=draw)
    views = ViewSet(tuple(f"view{i}" for i in range(count)), images, cameras)
    begun = Scene.create(settings, seed, unbounded=True, background="scene")
    edited = Scene.create(settings, seed + 1, unbounded=True, background="scene")
    fitter = Fitter(edited, FitSettings(rays=8), seed)
    if chance():
        fitter.step(images, cameras)
    changed, maps = views, []
    for i in range(count):
        if chance():
            changed = changed.with_edit(i, torch.rand(3, size, size, generator=draw))
        if chance():
            changed = changed.with_relevance(i, torch.rand(1, 4, 4, generator=draw))
        raw = some(1, 1, 3, 3)
        values = torch.rand(1, 1, 4, 4, generator=draw)
        spread = some(1, 1, 3, 3)
        size_of = (size, size)
        maps.append(
            None if raw is None else RelevanceMap(values, raw, spread, ("red",), size_of, HOW)
        )
    inside = torch.rand(4, 4, 4, generator=draw) < 0.5
    state = SceneEditState(
        changed,
        edited.with_relevance(0) if seed % 2 else edited,
        tuple(maps),
        Region(inside, 1.1) if seed % 3 else None,
        seed,
        fitter.state() if chance() else {},
    )
    return state, begun, views


@pytest.mark.parametrize("seed", range(6))
def test_a_state_is_what_its_tensors_say(seed: int, small_field: FieldSettings) -> None:
    state, begun, views = random_state(seed, small_field)
    again = SceneEditState.from_tensors(state.tensors(), begun, views, "red", HOW)

    def same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
        if one is None or other is None:
            return one is other
        return one.dtype == other.dtype and torch.equal(one, other)

    assert again.position == state.position
    assert (again.scene.relevance is None) == (state.scene.relevance is None)
    own, found = state.scene.state_dict(), again.scene.state_dict()
    assert own.keys() == found.keys() and all(same(own[key], found[key]) for key in own)
    assert again.views.names == views.names and same(again.views.originals, views.originals)
    for one, other in (
        *zip(state.views.edits, again.views.edits, strict=True),
        *zip(state.views.relevance, again.views.relevance, strict=True),
    ):
        assert same(one, other)
    for one, other in zip(state.maps, again.maps, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert same(one.values, other.values) and same(one.raw, other.raw)
            assert same(one.spread, other.spread) and one.settings == other.settings
            assert one.instructions == other.instructions and one.image_size == other.image_size
    assert (again.region is None) == (state.region is None)
    if again.region is not None and state.region is not None:
        assert same(again.region.inside, state.region.inside)
        assert again.region.extent == state.region.extent
    assert again.fitter.keys() == state.fitter.keys()
    assert all(same(again.fitter[key], value) for key, value in state.fitter.items())
