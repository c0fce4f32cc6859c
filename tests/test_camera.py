"""Cameras: the frame, the pixel grid, and that projecting undoes unprojecting."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wys.camera import Camera, intrinsics_from_fov, look_at


def some_cameras(seed: int, batch: int, height: int = 30, width: int = 40) -> Camera:
    draw = torch.Generator().manual_seed(seed)
    eye = torch.randn(batch, 3, generator=draw, dtype=torch.float64)
    eye = eye / eye.norm(dim=-1, keepdim=True) * 5 + torch.tensor([0.0, 0.0, 6.0])
    pose = look_at(eye, torch.zeros_like(eye), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    fov = 30 + 40 * torch.rand(batch, generator=draw, dtype=torch.float64)
    return Camera(intrinsics_from_fov(fov, height, width), pose, width, height)


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_unprojecting_undoes_projecting(seed: int, batch: int) -> None:
    camera = some_cameras(seed, batch)
    points = torch.randn(
        batch, 7, 3, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64
    )
    pixels, depth = camera.project(points)
    torch.testing.assert_close(camera.unproject(pixels, depth), points, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_rays_pass_through_the_pixel_centres(seed: int) -> None:
    camera = some_cameras(seed, 2)
    rays = camera.rays()
    assert rays.directions.shape == (2, 30, 40, 3)
    points = (rays.origins + 3.0 * rays.directions).reshape(2, -1, 3)
    pixels, _ = camera.project(points)
    expected = torch.tensor(
        [[column + 0.5, row + 0.5] for row in range(30) for column in range(40)],
        dtype=torch.float64,
    )
    torch.testing.assert_close(pixels, expected.expand(2, -1, -1), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        rays.directions.norm(dim=-1), torch.ones(2, 30, 40, dtype=torch.float64)
    )


def test_axes_are_those_of_opencv() -> None:
    eye = torch.tensor([[0.0, -10.0, 0.0]])
    pose = look_at(eye, torch.zeros(1, 3), torch.tensor([0.0, 0.0, 1.0]))
    camera = Camera(intrinsics_from_fov(torch.tensor([60.0]), 100, 100), pose, 100, 100)
    pixels, depth = camera.project(torch.tensor([[[1.0, 0, 0], [0, 0, 1.0], [0, 5.0, 0]]]))
    assert pixels[0, 0, 0] > 50 and pixels[0, 0, 1] == 50  # world x leads right
    assert pixels[0, 1, 1] < 50 and pixels[0, 1, 0] == 50  # up in the world is up in the image
    assert depth[0].tolist() == [10, 10, 15]
    rotation = pose[0, :3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3))
    assert math.isclose(float(torch.linalg.det(rotation)), 1, abs_tol=1e-6)


def test_field_of_view_and_resizing() -> None:
    camera = some_cameras(3, 1)
    larger = camera.resized(60, 80)
    point = torch.tensor([[[0.3, -0.2, 0.5]]], dtype=torch.float64)
    torch.testing.assert_close(larger.project(point)[0], 2 * camera.project(point)[0])
    intrinsics = intrinsics_from_fov(torch.tensor([90.0]), 20, 80)
    torch.testing.assert_close(intrinsics, torch.tensor([[10.0, 10.0, 40.0, 10.0]]))
    # A frame of aspect 2 in a square image is as wide as the image.
    intrinsics = intrinsics_from_fov(torch.tensor([90.0]), 40, 40, aspect=2.0)
    torch.testing.assert_close(intrinsics[0, 0], torch.tensor(10.0))


def test_indexing_keeps_the_image_size() -> None:
    camera = some_cameras(1, 4)
    part = camera[torch.tensor([2, 0])]
    assert part.intrinsics.shape == (2, 4) and (part.width, part.height) == (40, 30)
    assert torch.equal(part.world_from_camera[0], camera.world_from_camera[2])
