"""Views: photographs stay what they are, edits stand beside them, and moves keep poses rigid."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wys.camera import Camera, look_at
from wys.errors import WysError
from wys.views import ViewSet, moved


def some_cameras(count: int, height: int = 6, width: int = 8) -> Camera:
    draw = torch.Generator().manual_seed(count)
    eye = torch.randn(count, 3, generator=draw) + torch.tensor([5.0, 0.0, 3.0])
    pose = look_at(eye, torch.zeros_like(eye), torch.tensor([0.0, 0.0, 1.0]))
    intrinsics = torch.tensor([9.0, 9.5, 4.2, 2.9]).expand(count, 4).clone()
    return Camera(intrinsics, pose, width, height)


def some_views(count: int = 4) -> ViewSet:
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 3, 6, 8), dtype=torch.uint8, generator=draw)
    return ViewSet(tuple(f"v{i}" for i in range(count)), images, some_cameras(count))


def test_an_edit_stands_beside_its_photograph() -> None:
    views = some_views()
    before = views.originals.clone()
    edit = torch.full((3, 6, 8), 0.5)
    edited = views.with_edit(2, edit).with_relevance(1, torch.rand(1, 2, 2))
    assert torch.equal(views.originals, before) and torch.equal(edited.originals, before)
    assert views.edits == (None,) * 4
    assert (edited.image(2) == 128 / 255).all()
    assert torch.equal(edited.original(2), views.image(2))
    assert torch.equal(edited.images[[0, 1, 3]], before[[0, 1, 3]])
    assert (edited.images[2] == 128).all()
    assert edited.relevance[1] is not None and edited.relevance[0] is None
    back = edited.without_edits()
    assert torch.equal(back.images, before) and back.relevance[1] is not None


def test_bytes_of_an_edit_are_kept() -> None:
    views = some_views()
    edit = torch.arange(3 * 6 * 8).reshape(3, 6, 8).to(torch.uint8)
    assert torch.equal(views.with_edit(0, edit).images[0], edit)


def test_select_keeps_what_belongs_together() -> None:
    views = some_views().with_edit(3, torch.zeros(3, 6, 8))
    chosen = views.select([3, 1])
    assert chosen.names == ("v3", "v1")
    assert chosen.edits[0] is not None and chosen.edits[1] is None
    assert torch.equal(chosen.originals[1], views.originals[1])
    assert torch.equal(chosen.cameras.centre[0], views.cameras.centre[3])
    assert len(views.select([])) == 0 and views.select([]).size == (6, 8)


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused() -> None:
    views = some_views()
    bad = views.cameras.world_from_camera.clone()
    bad[1, 0, 3] = float("nan")
    camera = Camera(views.cameras.intrinsics, bad, 8, 6)
    with pytest.raises(WysError, match="view v1 holds values that are not finite"):
        ViewSet(views.names, views.originals, camera)
    with pytest.raises(WysError, match="3 photographs for 4 views"):
        ViewSet(views.names, views.originals[:3], views.cameras)
    with pytest.raises(WysError, match="4 camera"):
        ViewSet(views.names[:3], views.originals[:3], Camera(camera.intrinsics[:3], bad, 8, 6))
    with pytest.raises(WysError, match="8 x 7 pixels"):
        ViewSet(views.names, views.originals, some_cameras(4, height=7))
    with pytest.raises(WysError, match="two views are called a"):
        ViewSet(("a", "b", "a", "c"), views.originals, views.cameras)
    with pytest.raises(WysError, match="8 bits"):
        ViewSet(views.names, views.originals.float(), views.cameras)
    with pytest.raises(WysError, match="the edit of view v0"):
        views.with_edit(0, torch.zeros(3, 6, 9))


@settings(max_examples=20, deadline=None)
@given(
    scale=st.floats(0.01, 100),
    angle=st.floats(-3, 3),
    shift=st.tuples(*[st.floats(-10, 10)] * 3),
)
def test_a_point_keeps_its_pixel_when_all_space_moves(
    scale: float, angle: float, shift: tuple[float, float, float]
) -> None:
    cosine, sine = torch.tensor(angle).double().cos(), torch.tensor(angle).double().sin()
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[0, 0], similarity[0, 1], similarity[1, 0], similarity[1, 1] = (
        cosine,
        -sine,
        sine,
        cosine,
    )
    similarity[:3, :3] *= scale
    similarity[:3, 3] = torch.tensor(shift)
    cameras = some_cameras(3)
    cameras = Camera(cameras.intrinsics.double(), cameras.world_from_camera.double(), 8, 6)
    points = torch.randn(3, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    there = moved(cameras, similarity)
    moved_points = points @ similarity[:3, :3].T + similarity[:3, 3]
    pixels, depth = cameras.project(points)
    pixels_there, depth_there = there.project(moved_points)
    torch.testing.assert_close(pixels_there, pixels)
    torch.testing.assert_close(depth_there, depth * scale)
    rotation = there.world_from_camera[:, :3, :3]
    torch.testing.assert_close(rotation.mT @ rotation, torch.eye(3).double().expand(3, 3, 3))
    back = moved(there, torch.linalg.inv(similarity))
    torch.testing.assert_close(back.world_from_camera, cameras.world_from_camera)
