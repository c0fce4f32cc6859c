"""Posed edits: one scene for all kinds, exact from everywhere, words that need no viewpoint."""

import dataclasses

import pytest
import torch

from wys.errors import WysError
from wys.image import to_uint8
from wys.tabletop.instructions import POSITIONS, refers_to
from wys.tabletop.pairs import changed
from wys.tabletop.posed import POSED_KINDS, PosedEdit, PosedSet, posed_edit, posed_views
from wys.tabletop.raytracer import render
from wys.tabletop.world import PLAIN, RADII, TableScene
from wys.views import moved


@pytest.fixture(scope="module")
def cases() -> list[PosedEdit]:
    return [posed_edit(3, i, kind) for i, kind in enumerate(POSED_KINDS)]


@pytest.fixture(scope="module")
def posed() -> PosedSet:
    return posed_views(posed_edit(0, 1, "recolour"), views=6, held_out=3, size=40)


def same(first: TableScene, second: TableScene) -> bool:
    return all(
        torch.equal(getattr(first, f.name), getattr(second, f.name))
        for f in dataclasses.fields(first)
    )


def test_all_kinds_share_one_scene_and_its_cameras() -> None:
    some = [posed_edit(3, 0, kind) for kind in ("recolour", "remove", "light")]
    assert all(same(case.before, some[0].before) for case in some)
    poses = [case.cameras(5, 16).world_from_camera for case in some]
    assert all(torch.equal(pose, poses[0]) for pose in poses)
    assert len({case.instruction for case in some}) == 3
    assert not same(some[0].before, posed_edit(3, 1, "recolour").before)


def test_items_are_reproducible(cases: list[PosedEdit]) -> None:
    again = posed_edit(3, 2, POSED_KINDS[2])
    assert again.instruction == cases[2].instruction and again.edit == cases[2].edit
    assert same(again.after, cases[2].after)


def test_words_single_the_target_out_from_everywhere(cases: list[PosedEdit]) -> None:
    for case in cases:
        if case.target is None:
            continue
        assert case.description is not None and case.description.position not in POSITIONS
        cameras = case.cameras(4, 32)
        for i in range(4):
            slots = refers_to(case.before, cameras[i : i + 1], case.description)
            assert slots == [[case.target]]


def test_only_the_target_differs(cases: list[PosedEdit]) -> None:
    for case in cases:
        if case.target is None:
            continue
        for name in ("present", "shape", "colour", "material", "size"):
            difference = getattr(case.before, name) != getattr(case.after, name)
            others = [slot for slot in range(difference.shape[1]) if slot != case.target]
            assert not difference[0, others].any()
        assert not same(case.before, case.after)


def test_the_target_is_seen_well_from_most_cameras(cases: list[PosedEdit]) -> None:
    for case in cases:
        if case.target is None:
            continue
        ids = render(case.before[[0] * 9], case.cameras(9, 40), samples=1).object_ids
        share = (ids == case.target + 1).float().mean(dim=(1, 2))
        assert (share >= 0.005).float().mean() >= 0.6


def test_cameras_stand_around_the_objects() -> None:
    case = posed_edit(3, 0, "recolour")
    cameras = case.cameras(12, 32)
    middle = -case.scene_from_world[:3, 3] / case.scene_from_world[0, 0]
    offset = cameras.centre - middle
    near, far = PLAIN.camera_distance
    assert ((offset.norm(dim=1) >= near - 1e-4) & (offset.norm(dim=1) <= far + 1e-4)).all()
    elevation = torch.asin(offset[:, 2] / offset.norm(dim=1)).rad2deg()
    low, high = PLAIN.camera_elevation
    assert elevation.min() >= low - 1e-3 and elevation.max() <= high + 1e-3
    # Neighbours are at most one and a half steps apart, so the ring has no hole.
    azimuth = torch.atan2(offset[:, 1], offset[:, 0]).rad2deg().sort().values
    gaps = torch.cat([azimuth[1:], azimuth[:1] + 360]) - azimuth
    assert gaps.max() <= 1.51 * 360 / 12
    pixels, _ = cameras.project(middle.expand(12, 1, 3))
    torch.testing.assert_close(pixels, torch.full_like(pixels, 16.0), atol=1e-3, rtol=0)


def test_the_truth_is_that_of_the_scenes(posed: PosedSet) -> None:
    case, truth = posed.case, posed.truth
    rows = [0, 4]
    before = render(case.before[[0, 0]], posed.cameras[rows])
    after = render(case.after[[0, 0]], posed.cameras[rows]).rgb
    torch.testing.assert_close(truth.before[rows], before.rgb, rtol=0, atol=1e-6)
    torch.testing.assert_close(truth.after[rows], after, rtol=0, atol=1e-6)
    assert torch.equal(truth.mask, changed(truth.before, truth.after))
    shown = (truth.object_ids == case.target + 1).flatten(1).any(dim=1)  # type: ignore[operator]
    assert torch.equal(truth.target_visible, shown)
    # Nothing changes far from the target: the corners of most views stay.
    assert truth.mask.float().mean() < 0.3
    chosen = truth.select([2, 0])
    assert torch.equal(chosen.mask[0], truth.mask[2])


def test_held_out_views_interleave_and_the_last_misses_the_target(posed: PosedSet) -> None:
    assert posed.held_out_rows == [1, 4, 7]
    assert sorted(posed.train_rows + posed.held_out_rows) == list(range(9))
    assert not posed.truth.target_visible[7]
    assert posed.truth.target_visible[posed.train_rows].float().mean() > 0.7
    ring = posed.case.cameras(9, 40)
    assert torch.equal(ring.centre, posed.cameras.centre)
    unmoved = [i for i in range(9) if i != 7]
    assert torch.equal(ring.world_from_camera[unmoved], posed.cameras.world_from_camera[unmoved])
    up = posed.cameras.world_from_camera[7, 2, 0]
    assert abs(float(up)) < 1e-6  # Turned about the vertical: still level.


def test_a_capture_shows_the_scene_before_the_edit_in_the_unit_ball(posed: PosedSet) -> None:
    capture = posed.capture()
    assert torch.equal(capture.train.originals, to_uint8(posed.truth.before[posed.train_rows]))
    assert capture.held_out.names == tuple(posed.names[i] for i in posed.held_out_rows)
    assert capture.unbounded and capture.background == "scene"
    scene = posed.case.before
    height = scene.radius[..., None]
    points = torch.cat([scene.position, height], dim=-1)[scene.present].double()
    s = capture.scene_from_world
    within = (points @ s[:3, :3].T + s[:3, 3]).norm(dim=1)
    assert (within + max(RADII) * s[0, 0] <= 1.1).all()
    world = moved(capture.train.cameras, torch.linalg.inv(s))
    expected = posed.cameras[posed.train_rows].world_from_camera
    torch.testing.assert_close(world.world_from_camera, expected, atol=1e-5, rtol=0)


def test_kinds_that_need_a_viewpoint_are_refused() -> None:
    with pytest.raises(WysError, match="add cannot be asked for without a viewpoint"):
        posed_edit(0, 0, "add")
