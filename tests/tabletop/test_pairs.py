"""Pairs: exact masks, unique targets, disjoint splits, and items independent of their batch."""

from dataclasses import fields
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wys.tabletop import phrasings
from wys.tabletop.edits import (
    KINDS,
    LOCAL_KINDS,
    Add,
    ChangeBackground,
    ChangeFloor,
    ChangeLight,
    ChangeShape,
    Keep,
    Recolour,
    Remove,
    Resize,
    apply,
    target_slot,
)
from wys.tabletop.instructions import plainly, refers_to
from wys.tabletop.pairs import CHANGED, Pairs, kind_of, make_pairs
from wys.tabletop.raytracer import object_ids, render
from wys.tabletop.sampling import sample_cameras, sample_scenes
from wys.tabletop.shapes import SOLIDS
from wys.tabletop.world import (
    CLEVR,
    COLOURS,
    FULL,
    HELD_OUT,
    PLAIN,
    SHAPES,
    SceneRange,
    Split,
    TableScene,
)


@pytest.fixture(scope="module")
def plain() -> Pairs:
    return make_pairs(0, "train", 0, 90, size=48, scene_range=PLAIN)


@pytest.fixture(scope="module")
def full() -> Pairs:
    return make_pairs(0, "test", 0, 90, size=48, scene_range=FULL)


@pytest.fixture(params=["plain", "full"])
def pairs(request: pytest.FixtureRequest) -> Pairs:
    return request.getfixturevalue(request.param)


def test_masks_are_those_of_the_8_bit_images(pairs: Pairs) -> None:
    before = (pairs.before * 255).round().to(torch.uint8).int()
    after = (pairs.after * 255).round().to(torch.uint8).int()
    assert torch.equal(pairs.mask, ((before - after).abs() > CHANGED).any(dim=1))


def test_pairs_are_renderings_of_their_scenes(pairs: Pairs) -> None:
    few = slice(0, 6)
    again = render(pairs.scenes[few], pairs.cameras[few])
    torch.testing.assert_close(again.rgb, pairs.before[few], rtol=0, atol=1e-6)
    assert torch.equal(again.object_ids, pairs.object_ids[few])
    edited = render(pairs.edited[few], pairs.cameras[few]).rgb
    torch.testing.assert_close(edited, pairs.after[few], rtol=0, atol=1e-6)
    assert torch.equal(pairs.shapes, pairs.scenes.shape)
    assert torch.equal(pairs.colours, pairs.scenes.colour)
    assert torch.equal(pairs.materials, pairs.scenes.material)


def test_every_edit_is_seen(pairs: Pairs) -> None:
    share = pairs.mask.float().mean(dim=(1, 2))
    assert (share > 0).all()
    assert (share >= 0.005).float().mean() > 0.95


def test_kinds_are_balanced(pairs: Pairs) -> None:
    assert sorted(pairs.kinds) == sorted(KINDS * 10)
    assert set(get_args(Split)) == {"train", "validation", "test"}


def test_targets_are_named_uniquely(pairs: Pairs) -> None:
    for i, (kind, edit, words) in enumerate(
        zip(pairs.kinds, pairs.edits, pairs.descriptions, strict=True)
    ):
        target = int(pairs.target[i])
        if kind not in LOCAL_KINDS:
            assert target == 0 and words is None and target_slot(edit) is None
            continue
        assert words is not None and target == (target_slot(edit) or 0) + 1
        assert refers_to(pairs.scenes[i], pairs.cameras[i : i + 1], words) == [[target - 1]]
        assert (pairs.object_ids[i] == target).any()


def test_local_edits_keep_pixels_that_they_do_not_reach(plain: Pairs) -> None:
    local = [i for i, kind in enumerate(plain.kinds) if kind in LOCAL_KINDS]
    still = (plain.before == plain.after).all(dim=1)[local]
    assert still.float().mean() > 0.75  # bit for bit
    assert (plain.mask[local].float().mean(dim=(1, 2)) < 0.4).all()


def test_recolouring_rubber_changes_inside_the_silhouette_only(plain: Pairs) -> None:
    rows = [
        i
        for i, edit in enumerate(plain.edits)
        if isinstance(edit, Recolour) and not (plain.materials[i] & plain.scenes.present[i]).any()
    ]
    assert rows
    for i in rows:
        own = plain.object_ids[i] == plain.target[i]
        near = torch.nn.functional.max_pool2d(own[None].float(), 3, 1, 1)[0] > 0
        assert not (plain.mask[i] & ~near).any()


def test_objects_stay_apart_after_every_edit(pairs: Pairs) -> None:
    footprints = torch.tensor([solid.footprint for solid in SOLIDS.values()])
    scene = pairs.edited
    reach = footprints[scene.shape] * scene.radius
    distance = torch.cdist(scene.position, scene.position)
    couples = scene.present[:, :, None] & scene.present[:, None]
    couples &= ~torch.eye(5, dtype=torch.bool)
    assert ((distance - reach[:, :, None] - reach[:, None])[couples] > 0).all()


def test_added_objects_stand_where_the_words_say() -> None:
    pairs = make_pairs(1, "train", 0, 24, size=48, scene_range=PLAIN, kinds=["add"])
    ids = object_ids(pairs.edited, pairs.cameras)
    for i, edit in enumerate(pairs.edits):
        assert isinstance(edit, Add)
        new = int((pairs.edited.present[i] & ~pairs.scenes.present[i]).nonzero())
        assert (ids[i] == new + 1).sum() >= 4
        points = torch.cat([pairs.edited.position[i], torch.zeros(5, 1)], dim=1)
        pixels, depth = pairs.cameras[i : i + 1].project(points[None])
        offset = pixels[0, new] - pixels[0, edit.beside]
        if edit.side in ("left", "right"):
            assert (offset[0] < 0) == (edit.side == "left")
            assert offset[0].abs() > 2 * offset[1].abs()
        else:
            assert (depth[0, new] < depth[0, edit.beside]) == (edit.side == "front")


def _same(a: Pairs, b: Pairs, rows: slice) -> None:
    for f in fields(Pairs):
        left, right = getattr(a, f.name), getattr(b, f.name)
        if isinstance(left, list):
            assert left == right[rows], f.name
        elif isinstance(left, TableScene):
            for g in fields(TableScene):
                assert torch.equal(getattr(left, g.name), getattr(right, g.name)[rows]), g.name
        elif isinstance(left, torch.Tensor) and left.is_floating_point():
            torch.testing.assert_close(left, right[rows], rtol=0, atol=1e-6)
        elif isinstance(left, torch.Tensor):
            assert torch.equal(left, right[rows]), f.name


@given(st.integers(0, 20), st.integers(1, 4), st.sampled_from([1, 3]))
@settings(max_examples=6, deadline=None)
def test_an_item_does_not_depend_on_its_batch(first: int, count: int, per_scene: int) -> None:
    whole = make_pairs(2, "test", 0, 25, size=16, scene_range=FULL, edits_per_scene=per_scene)
    part = make_pairs(2, "test", first, count, size=16, scene_range=FULL, edits_per_scene=per_scene)
    _same(part, whole, slice(first, first + count))


def test_edits_of_one_scene_share_the_image_before() -> None:
    pairs = make_pairs(3, "train", 4, 8, size=24, scene_range=PLAIN, edits_per_scene=4)
    for start in (0, 4):
        group = pairs.before[start : start + 4]
        assert (group == group[:1]).all()
    assert not torch.equal(pairs.before[0], pairs.before[4])
    assert pairs.kinds == [kind_of(3, "train", i) for i in range(4, 12)]


def test_words_and_edits_do_not_depend_on_the_size_of_the_image() -> None:
    small = make_pairs(4, "validation", 0, 18, size=16, scene_range=PLAIN)
    wide = make_pairs(4, "validation", 0, 18, size=(24, 40), scene_range=PLAIN)
    assert small.instructions == wide.instructions and small.edits == wide.edits
    assert wide.before.shape == (18, 3, 24, 40)


def _has_held_out(scene: TableScene) -> torch.Tensor:
    rare = torch.tensor([COLOURS.index(HELD_OUT[shape]) for shape in SHAPES])
    return ((scene.colour == rare[scene.shape]) & scene.present).any(dim=1)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_held_out_pairs_and_phrasings_are_for_the_test_split(split: Split) -> None:
    pairs = make_pairs(5, split, 0, 360, size=4, scene_range=FULL, samples=1)
    rare = _has_held_out(pairs.scenes) | _has_held_out(pairs.edited)
    if split == "test":
        assert 0.25 < rare.float().mean() < 0.6
    else:
        assert not rare.any()
    lights = {i: e for i, e in enumerate(pairs.edits) if isinstance(e, ChangeLight)}
    for i, edit in lights.items():
        asked, words = phrasings.LIGHT[edit.light].of(split), pairs.instructions[i]
        if split == "test":
            assert words in asked
        else:
            assert any(sentence in words for sentence in asked)


def test_edits_change_something() -> None:
    for scene_range in (PLAIN, FULL, CLEVR):
        pairs = make_pairs(6, "train", 0, 54, size=4, scene_range=scene_range, samples=1)
        for f in fields(TableScene):
            assert getattr(pairs.scenes, f.name).shape == getattr(pairs.edited, f.name).shape
        unchanged = torch.ones(len(pairs), dtype=torch.bool)
        for f in fields(TableScene):
            a, b = getattr(pairs.scenes, f.name), getattr(pairs.edited, f.name)
            unchanged &= (a == b).reshape(len(pairs), -1).all(dim=1)
        assert not unchanged.any()


def test_apply_changes_only_what_is_named() -> None:
    scene, camera = sample_scenes(0, 0, 6, FULL), sample_cameras(0, 0, 6, FULL)
    after = apply(
        scene,
        [
            Recolour(0, "pink"),
            Remove(0),
            Resize(0, "large"),
            ChangeFloor(pattern="checker"),
            ChangeBackground("black"),
            ChangeLight("night"),
        ],
        camera,
    )
    changed = {
        f.name: (getattr(scene, f.name) != getattr(after, f.name)).reshape(6, -1).any(dim=1)
        for f in fields(TableScene)
    }
    allowed = ["colour", "present", "size", "floor_pattern", "background_colour", "light_kind"]
    for name, rows in changed.items():
        for row in rows.nonzero()[:, 0].tolist():
            assert allowed[row] == name
    with pytest.raises(ValueError, match="give one each"):
        apply(scene, [Remove(0)], camera)


def test_impossible_requests_are_refused() -> None:
    single = SceneRange(sizes=("small",))
    with pytest.raises(ValueError, match="offers all of size"):
        make_pairs(0, "train", 0, 2, size=8, scene_range=single, kinds=["size"])
    with pytest.raises(ValueError, match="at least 1"):
        make_pairs(0, "train", 0, 0, size=8, scene_range=single)


def test_what_is_not_there_changes_nothing() -> None:
    pairs = make_pairs(5, "train", 0, 24, size=32, scene_range=PLAIN, kinds=["absent"])
    assert torch.equal(pairs.before, pairs.after)
    assert not pairs.mask.any() and not pairs.target.any()
    named = zip(pairs.descriptions, pairs.instructions, strict=True)
    for i, (description, words) in enumerate(named):
        assert description is not None and words
        there = refers_to(pairs.scenes[i], pairs.cameras[i : i + 1], description)
        assert there == [[]]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_what_is_not_there_is_no_held_out_pair_either(split: Split) -> None:
    pairs = make_pairs(0, split, 0, 300, size=4, scene_range=FULL, kinds=["absent"], samples=1)
    for edit, description in zip(pairs.edits, pairs.descriptions, strict=True):
        assert isinstance(edit, Keep) and description is not None
        shape, colour = description.shape, description.colour
        assert shape is None or HELD_OUT[shape] != colour
        match edit.wish:
            case Recolour(colour=new) if shape is not None:
                assert HELD_OUT[shape] != new and new != colour
            case ChangeShape(shape=new) if colour is not None:
                assert HELD_OUT[new] != colour
            case ChangeShape(shape=new):
                assert new != shape


def test_the_plain_instructions_ask_for_the_same_edits() -> None:
    pairs = make_pairs(3, "test", 0, 9, size=16, scene_range=PLAIN)
    for words, edit, description in zip(
        pairs.plain_instructions, pairs.edits, pairs.descriptions, strict=True
    ):
        assert words == plainly(edit, description) and words
    assert len(set(pairs.plain_instructions)) == len(pairs)
