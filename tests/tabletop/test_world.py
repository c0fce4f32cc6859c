"""Scenes: apart, in the frame, in sight, and the same in every batch."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wys.tabletop.raytracer import object_ids
from wys.tabletop.sampling import sample_cameras, sample_scenes
from wys.tabletop.shapes import SOLIDS
from wys.tabletop.world import (
    CLEVR,
    CLOSE_UP,
    COLOURS,
    FULL,
    HELD_OUT,
    PLAIN,
    SHAPES,
    SceneRange,
    TableScene,
    join,
)

RANGES = {"full": FULL, "plain": PLAIN, "close-up": CLOSE_UP, "clevr": CLEVR}


def same(a: TableScene, b: TableScene) -> bool:
    return all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(TableScene))


@pytest.mark.parametrize("name", RANGES)
def test_objects_never_touch_whatever_their_shapes(name: str) -> None:
    scene = sample_scenes(1, 0, 300, RANGES[name])
    distance = torch.cdist(scene.position, scene.position)
    pairs = scene.present[:, :, None] & scene.present[:, None]
    pairs &= ~torch.eye(5, dtype=torch.bool)
    widest = scene.radius * max(solid.footprint for solid in SOLIDS.values())
    assert ((distance - widest[:, :, None] - widest[:, None])[pairs] > 0.05).all()
    assert (scene.present.sum(dim=1) >= 1).all()
    assert scene.present.sum(dim=1).max() == RANGES[name].objects[1]


@pytest.mark.parametrize("name", RANGES)
def test_objects_are_in_the_frame_and_in_sight(name: str) -> None:
    scene_range = RANGES[name]
    scene = sample_scenes(2, 0, 120, scene_range)
    camera = sample_cameras(2, 0, 120, scene_range, size=(48, round(48 * scene_range.aspect)))
    ids = object_ids(scene, camera)
    seen = torch.stack([(ids == slot + 1).sum(dim=(1, 2)) for slot in range(5)], dim=1)
    assert (seen[~scene.present] == 0).all()
    assert (seen[scene.present] >= 3).float().mean() > 0.99
    border = torch.cat([ids[:, 0], ids[:, -1], ids[:, :, 0], ids[:, :, -1]], dim=1)
    assert (border > 0).float().mean() < 0.03


@given(st.integers(0, 500), st.integers(1, 5), st.sampled_from(["train", "validation", "test"]))
@settings(max_examples=15, deadline=None)
def test_a_scene_does_not_depend_on_its_batch(first: int, count: int, split: str) -> None:
    together = sample_scenes(3, first, count, FULL, split=split)  # type: ignore[arg-type]
    alone = [sample_scenes(3, first + i, 1, FULL, split=split) for i in range(count)]  # type: ignore[arg-type]
    assert same(together, join(alone))


def test_seeds_and_splits_differ() -> None:
    base = sample_scenes(0, 0, 8, FULL)
    assert same(base, sample_scenes(0, 0, 8, FULL))
    assert not same(base, sample_scenes(1, 0, 8, FULL))
    assert not same(base, sample_scenes(0, 0, 8, FULL, split="test"))


def test_held_out_pairs_stay_in_the_test_split() -> None:
    held_out = torch.tensor([COLOURS.index(HELD_OUT[shape]) for shape in SHAPES])
    for split in ("train", "validation"):
        scene = sample_scenes(0, 0, 1500, FULL, split=split)  # type: ignore[arg-type]
        assert not (scene.colour == held_out[scene.shape]).any()
    scene = sample_scenes(0, 0, 1500, FULL, split="test")
    rare = ((scene.colour == held_out[scene.shape]) & scene.present).any(dim=1).float().mean()
    assert 0.25 < rare < 0.6


def test_the_view_does_not_depend_on_the_size_of_the_image() -> None:
    small = sample_cameras(0, 0, 4, FULL, size=32)
    large = sample_cameras(0, 0, 4, FULL, size=96)
    torch.testing.assert_close(small.resized(96, 96).intrinsics, large.intrinsics)
    assert torch.equal(small.world_from_camera, large.world_from_camera)


def test_ranges_are_kept() -> None:
    narrow = SceneRange(
        objects=(2, 2),
        shapes=("cone",),
        colours=("red", "pink"),
        materials=("metal",),
        sizes=("small",),
    )
    scene = sample_scenes(0, 0, 50, narrow)
    assert (scene.present.sum(dim=1) <= 2).all()
    assert {SHAPES[i] for i in scene.shape.flatten().tolist()} == {"cone"}
    assert {COLOURS[i] for i in scene.colour.flatten().tolist()} == {"pink"}  # red is held out
    assert scene.material.min() == 1 and scene.size.max() == 0


def test_alike_objects_share_shapes_and_colours_and_nothing_else_changes() -> None:
    usual, alike = (sample_scenes(0, 0, 1500, replace(PLAIN, alike=a)) for a in (0.0, 1.0))
    assert same(usual, sample_scenes(0, 0, 1500, PLAIN))
    others = {f.name for f in fields(TableScene)} - {"shape", "colour"}
    assert all(torch.equal(getattr(usual, name), getattr(alike, name)) for name in others)
    shared = {}
    for name in ("shape", "colour"):
        for scene, which in ((usual, "usual"), (alike, "alike")):
            values = getattr(scene, name)
            shared[name, which] = (values[:, 1:] == values[:, :1]).float().mean()
    # By chance one in six shapes, and one in ten colours less the one that is held out.
    assert abs(shared["shape", "usual"] - 1 / 6) < 0.03
    assert abs(shared["shape", "alike"] - (1 + 1 / 6) / 2) < 0.03
    assert shared["colour", "usual"] < 0.15 and shared["colour", "alike"] > 0.35
    held_out = torch.tensor([COLOURS.index(HELD_OUT[shape]) for shape in SHAPES])
    assert not (alike.colour == held_out[alike.shape]).any()
    half = sample_scenes(0, 0, 1500, replace(PLAIN, alike=0.5))
    differs = (half.shape != usual.shape).any(dim=1)
    assert 0.3 < differs.float().mean() < 0.5
    assert torch.equal(half.shape[differs], alike.shape[differs])


def test_indexing_and_joining() -> None:
    scene = sample_scenes(0, 0, 6, FULL)
    assert same(join([scene[:2], scene[2], scene[[3, 4, 5]]]), scene)
    copy = scene.clone()
    copy.colour[0, 0] += 1
    assert not same(copy, scene)
    assert len(replace(scene)) == 6
