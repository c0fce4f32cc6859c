"""The scene frame: focus, scale and up, against arrangements whose answer is known."""

import math

import pytest
import torch

from wys.camera import Camera, look_at
from wys.datasets.normalise import Poses, focus_point, scene_similarity
from wys.errors import WysError
from wys.views import moved

UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def ring(count: int, target: torch.Tensor, distance: float = 4.0, arc: float = 360.0) -> Poses:
    """Cameras about a point, at two heights, all looking at it."""
    angle = torch.arange(count).double() * math.radians(arc) / count
    height = 0.3 + 0.4 * (torch.arange(count) % 2).double()
    eye = torch.stack([height.cos() * angle.cos(), height.cos() * angle.sin(), height.sin()], dim=1)
    eye = target + distance * eye
    pose = look_at(eye, target.expand_as(eye), UP)
    return Poses(pose, torch.full((count,), 0.5, dtype=torch.float64))


def transformed(poses: Poses, similarity: torch.Tensor) -> Poses:
    n = len(poses.half_view)
    camera = Camera(torch.ones(n, 4).double(), poses.world_from_camera, 1, 1)
    return Poses(moved(camera, similarity).world_from_camera, poses.half_view)


def rotation(axis: list[float], angle: float) -> torch.Tensor:
    vector = torch.tensor(axis, dtype=torch.float64)
    vector = vector / vector.norm() * angle
    skew = torch.zeros(3, 3, dtype=torch.float64)
    skew[0, 1], skew[0, 2], skew[1, 2] = -vector[2], vector[1], -vector[0]
    return torch.linalg.matrix_exp(skew - skew.T)


@pytest.mark.parametrize("arc", [360.0, 60.0])
def test_a_ring_is_centred_scaled_and_stood_upright(arc: float) -> None:
    target = torch.tensor([3.0, -2.0, 5.0], dtype=torch.float64)
    poses = ring(12, target, distance=4.0, arc=arc)
    world = torch.eye(4, dtype=torch.float64)
    world[:3, :3] = 7 * rotation([1.0, 2.0, 0.5], 1.1)
    world[:3, 3] = torch.tensor([10.0, 0.0, -3.0])
    tilted = transformed(poses, world)
    similarity = scene_similarity(tilted)
    whole = similarity @ world
    # What the cameras look at is the origin, up is up, and 4 * 0.5 is the radius of the unit ball.
    torch.testing.assert_close(
        whole[:3, :3] @ target + whole[:3, 3], torch.zeros(3).double(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(whole[:3, :3] @ UP, UP / 2, atol=1e-6, rtol=0)
    here = transformed(tilted, similarity)
    distances = here.centres.norm(dim=1)
    torch.testing.assert_close(distances, torch.full_like(distances, 2.0), atol=1e-5, rtol=0)


def test_what_stands_upright_already_is_not_turned() -> None:
    similarity = scene_similarity(ring(9, torch.zeros(3).double()))
    torch.testing.assert_close(similarity[:3, :3], torch.eye(3).double() / 2, atol=1e-9, rtol=0)


def test_a_few_strays_do_not_move_the_focus() -> None:
    target = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    poses = ring(20, target)
    eyes = poses.centres[:3]
    elsewhere = look_at(eyes, target + torch.tensor([5.0, -6.0, 3.0]).double(), UP)
    strayed = Poses(torch.cat([poses.world_from_camera[3:], elsewhere]), poses.half_view)
    assert float((focus_point(strayed) - target).norm()) < 0.02


def test_parallel_axes_have_a_focus_in_front() -> None:
    eye = torch.tensor([[float(x), 0.0, float(z)] for x in range(4) for z in range(2)]).double()
    pose = look_at(eye, eye + torch.tensor([0.0, 1.0, 0.0]).double(), UP)
    poses = Poses(pose, torch.full((8,), 0.5, dtype=torch.float64))
    focus = focus_point(poses)
    assert 1 < float(focus[1]) < 20 and -1 < float(focus[0]) < 4
    assert bool(torch.isfinite(scene_similarity(poses)).all())


def test_cameras_that_look_outwards_are_centred_among_themselves() -> None:
    inwards = ring(10, torch.zeros(3).double(), distance=1.0)
    eye = inwards.centres
    outwards = Poses(look_at(eye, 2 * eye, UP), inwards.half_view)
    assert float(focus_point(outwards).norm()) < 1
    assert bool(torch.isfinite(scene_similarity(outwards)).all())


def test_cameras_at_one_point_are_refused() -> None:
    pose = look_at(torch.ones(4, 3).double(), ring(4, UP).centres, UP)
    with pytest.raises(WysError, match="stand at one point"):
        scene_similarity(Poses(pose, torch.ones(4).double()))
