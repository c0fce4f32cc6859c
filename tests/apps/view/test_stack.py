"""What a camera shows: modes, strengths, and pictures that are no longer wanted."""

from dataclasses import replace
from itertools import count

import pytest
import torch

from wys.apps.scene_data import mask_of
from wys.apps.view.stack import Mode, Place, Stack, along_axis, row_bands
from wys.camera import Camera
from wys.nerf.layering import Look
from wys.nerf.rendering import Rendering, render
from wys.nerf.scene import Scene
from wys.thresholds import Threshold


def shown(stack: Stack, camera: Camera, mode: Mode = "colour") -> Rendering:
    shot = stack.shoot(camera, mode)
    assert shot is not None
    return shot.rendering


def same(one: Rendering, other: Rendering) -> bool:
    return all(torch.equal(getattr(one, n), getattr(other, n)) for n in ("rgb", "depth", "opacity"))


def fields(stack: Stack, *names: str) -> Look:
    kept = [(x.place.scene, x.room) for x in stack.layers if x.name in names]
    return Look(((stack.base, None), *kept))


def test_strengths_of_0_and_1_are_the_original_and_the_edit_bit_for_bit(
    stack: Stack, camera: Camera
) -> None:
    original, edited = fields(stack)(camera), fields(stack, "01", "02")(camera)
    assert not same(original, edited)
    assert same(shown(stack, camera), edited) and same(shown(stack, camera, "edited"), edited)
    off = stack.with_strengths({"01": 0.0, "02": 0.0})
    assert same(shown(off, camera), original) and same(shown(off, camera, "edited"), edited)
    assert same(shown(stack, camera, "original"), original)
    # The second edit stands for itself where the first is off.
    second = stack.with_strengths({"01": 0.0})
    assert same(shown(second, camera), fields(stack, "02")(camera))


def test_a_strength_between_mixes_the_two_pictures(stack: Stack, camera: Camera) -> None:
    first = replace(stack, layers=stack.layers[:1])
    before, after = fields(stack)(camera).rgb, fields(stack, "01")(camera).rgb
    half = shown(first.with_strengths({"01": 0.5}), camera).rgb
    assert torch.allclose(half, (before + after) / 2, atol=1e-6)
    # Where the edit changes nothing the bytes are those of before.
    left = (before == after).all(0)
    assert bool(left.any()) and torch.equal(half[:, left], before[:, left])


def test_an_edit_in_part_keeps_what_a_later_one_does_not_touch(
    stack: Stack, camera: Camera
) -> None:
    first, both = fields(stack, "01")(camera), fields(stack, "01", "02")(camera)
    part = stack.with_strengths({"01": 0.25})
    mixed = shown(part, camera).rgb
    touched = torch.zeros(20, 30, dtype=torch.bool)
    for name in ("rgb", "depth", "opacity"):
        touched |= (getattr(first, name) != getattr(both, name)).any(0)
    alone = shown(replace(part, layers=part.layers[:1]), camera).rgb
    assert torch.equal(mixed[:, touched], both.rgb[:, touched])
    assert torch.equal(mixed[:, ~touched], alone[:, ~touched])


def test_an_edit_of_all_of_space_hides_those_before(stack: Stack, camera: Camera) -> None:
    top = replace(stack.layers[1], room=None)
    whole = replace(stack, layers=(stack.layers[0], top))
    assert same(shown(whole, camera), Look(((top.place.scene, None),))(camera))
    below = shown(replace(stack, layers=stack.layers[:1]), camera).rgb
    half = shown(whole.with_strengths({"02": 0.5}), camera).rgb
    assert torch.allclose(half, (below + shown(whole, camera).rgb) / 2, atol=1e-6)


def test_every_mode_has_a_picture_of_its_own(stack: Stack, camera: Camera) -> None:
    modes: tuple[Mode, ...] = ("colour", "original", "relevance", "mask", "depth")
    pictures = []
    for mode in modes:
        shot = stack.shoot(camera, mode)
        assert shot is not None
        pictures.append(shot.picture(mode))
        assert pictures[-1].shape == (3, 20, 30)
        assert float(pictures[-1].min()) >= 0 and float(pictures[-1].max()) <= 1
    for i, one in enumerate(pictures):
        assert not any(torch.equal(one, other) for other in pictures[:i])


def test_relevance_is_the_previews_before_that_of_the_last_edit(
    stack: Stack, camera: Camera
) -> None:
    previewed = replace(stack, preview=replace(stack.layers[0].place))
    one, other = (shown(s, camera, "relevance").relevance for s in (stack, previewed))
    assert one is not None and other is not None and not torch.equal(one, other)
    bare = Stack(stack.base)
    shot = bare.shoot(camera, "relevance")
    assert shot is not None and torch.equal(shot.picture("relevance"), shot.picture("colour"))


def test_the_mask_is_what_the_region_hid_before_its_edit(stack: Stack, camera: Camera) -> None:
    shot = stack.shoot(camera, "mask")
    top = stack.layers[1].place
    assert shot is not None and top.region is not None
    before = fields(stack, "01")(camera)
    assert torch.equal(shot.mask, top.region.seen_by(camera, before.depth))
    assert bool(shot.mask.any()) and not bool(shot.mask.all())


@pytest.mark.parametrize(("threshold", "stretched"), [(0.5, True), ("auto", False)])
def test_the_mask_of_a_picture_in_bands_is_that_of_the_whole(
    stack: Stack,
    camera: Camera,
    threshold: Threshold,
    stretched: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place(stack.layers[0].place.scene, None, threshold, stretched)
    asked = Stack(stack.base, preview=place)
    field = Scene(stack.base.radiance, place.scene.relevance, background=stack.base.background)
    whole = mask_of(render(field, camera), camera, None, threshold, stretched)
    monkeypatch.setattr("wys.apps.view.stack.row_bands", lambda c: row_bands(c, rays=7 * 30))
    shot = asked.shoot(camera, "mask")
    assert shot is not None and bool(whole.any()) and not bool(whole.all())
    # Rays of a band are rounded differently: a pixel may lie on either side of the threshold.
    assert int((shot.mask != whole).sum()) <= 1


def test_bands_are_the_picture(camera: Camera) -> None:
    bands = list(row_bands(camera, rays=7 * 30))
    assert [band.height for band in bands] == [7, 7, 6]
    rows = torch.cat([band.rays().directions for band in bands])
    assert torch.allclose(rows, camera.rays().directions, atol=1e-6)


def test_a_picture_that_is_not_wanted_any_more_ends(
    stack: Stack, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wys.apps.view.stack.BAND", 30)
    asked = count()
    large = camera.resized(600, 30)
    monkeypatch.setattr("wys.apps.view.stack.row_bands", lambda c: row_bands(c, rays=60))
    assert stack.shoot(large, "colour", lambda: next(asked) == 2) is None
    assert next(asked) == 3


def test_depth_along_the_axis_is_what_graphics_programs_count(camera: Camera) -> None:
    points = torch.tensor([[0.3, 0.2, 1.0]])
    distance = (points - camera.centre).norm()
    pixels, along = camera.project(points)
    column, row = pixels[0].floor().long().tolist()
    found = along_axis(camera, distance.expand(1, 20, 30))[row, column]
    assert float(found) == pytest.approx(float(along[0]), rel=5e-3)
