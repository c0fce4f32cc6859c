"""Camera paths: nerfstudio's file by its own formula, and loops that stay where cameras were."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from wys.camera import Camera, look_at
from wys.datasets.camera_path import orbit, read_camera_path
from wys.errors import WysError
from wys.tabletop.posed import posed_capture, posed_edit
from wys.views import Applied, Capture, ViewSet, moved

SIGNS = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)


def known_cameras() -> Camera:
    return posed_edit(0, 0, "recolour").cameras(4, (30, 50))


def write_path(file: Path, cameras: Camera, **changes: Any) -> dict[str, Any]:
    """A camera_path.json as the viewer writes it; the field of view is vertical, in degrees."""
    entries = [
        {
            "camera_to_world": (pose.double() * SIGNS).reshape(-1).tolist(),
            "fov": math.degrees(2 * math.atan(cameras.height / 2 / intrinsics[1].item())),
            "aspect": cameras.width / cameras.height,
        }
        for pose, intrinsics in zip(cameras.world_from_camera, cameras.intrinsics, strict=True)
    ]
    content = {
        "camera_type": "perspective",
        "render_height": cameras.height,
        "render_width": cameras.width,
        "fps": 24,
        "seconds": 3,
        "camera_path": entries,
    } | changes
    file.write_text(json.dumps(content))
    return content


def test_a_recorded_path_gives_back_its_cameras(tmp_path: Path) -> None:
    cameras = known_cameras()
    similarity = posed_edit(0, 0, "recolour").scene_from_world
    write_path(tmp_path / "camera_path.json", cameras)
    path = read_camera_path(tmp_path / "camera_path.json", similarity)
    expected = moved(cameras, similarity)
    torch.testing.assert_close(path.cameras.world_from_camera, expected.world_from_camera)
    torch.testing.assert_close(path.cameras.intrinsics, expected.intrinsics)
    assert (path.cameras.height, path.cameras.width, path.seconds) == (30, 50, 3)


def test_a_path_in_nerfstudios_own_frame_is_brought_back(tmp_path: Path) -> None:
    cameras = known_cameras()
    angle = torch.tensor(0.7).double()
    transform = torch.eye(4, dtype=torch.float64)
    transform[0, 0], transform[0, 1] = angle.cos(), -angle.sin()
    transform[1, 0], transform[1, 1] = angle.sin(), angle.cos()
    transform[:3, 3] = torch.tensor([1.0, -2.0, 0.5])
    scaled = transform.clone()
    scaled[:3] *= 0.25
    write_path(tmp_path / "camera_path.json", moved(cameras, scaled))
    parser = {"transform": transform[:3].tolist(), "scale": 0.25}
    (tmp_path / "dataparser_transforms.json").write_text(json.dumps(parser))
    path = read_camera_path(tmp_path / "camera_path.json", torch.eye(4))
    torch.testing.assert_close(
        path.cameras.world_from_camera, cameras.world_from_camera, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("applied_scale", [1.0, 2.5])
def test_what_had_been_applied_before_training_is_not_undone_twice(
    tmp_path: Path, applied_scale: float
) -> None:
    # As nerfstudio computes it: the cameras go through T and a scale, and the file that it saves
    # holds T after the applied transform, and the scale times the applied one.
    cameras = known_cameras()
    applied = torch.tensor([[1.0, 0, 0, 0.3], [0, 0, 1, 0], [0, -1, 0, -0.2], [0, 0, 0, 1]])
    applied = applied.double()
    angle = torch.tensor(0.7).double()
    trained = torch.eye(4, dtype=torch.float64)
    trained[1, 1], trained[1, 2] = angle.cos(), -angle.sin()
    trained[2, 1], trained[2, 2] = angle.sin(), angle.cos()
    trained[:3, 3] = torch.tensor([1.0, -2.0, 0.5])
    saved = {"transform": (trained @ applied)[:3].tolist(), "scale": 0.4 * applied_scale}
    (tmp_path / "dataparser_transforms.json").write_text(json.dumps(saved))
    scaled = trained.clone()
    scaled[:3] *= 0.4
    write_path(tmp_path / "camera_path.json", moved(cameras, scaled))
    path = read_camera_path(
        tmp_path / "camera_path.json", torch.eye(4), Applied(applied, applied_scale)
    )
    torch.testing.assert_close(
        path.cameras.world_from_camera, cameras.world_from_camera, atol=1e-4, rtol=0
    )


def test_the_seconds_follow_from_the_rate_where_they_are_not_given(tmp_path: Path) -> None:
    write_path(tmp_path / "p.json", known_cameras(), seconds=None, fps=8)
    assert read_camera_path(tmp_path / "p.json", torch.eye(4)).seconds == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"camera_path": []}, "has no camera_path"),
        ({"camera_path": [3]}, "camera 0 is not an object"),
        ({"camera_path": [{"fov": 50}]}, "no camera_to_world of 16 numbers"),
        ({"camera_path": [{"camera_to_world": [1.0] * 16, "fov": 50}]}, "last row"),
        ({"render_height": None}, "no render_height"),
        ({"render_width": 10.5}, "no render_width in whole pixels"),
        ({"fps": -5}, "fps is -5, and must be above 0"),
        ({"fps": 0, "seconds": None}, "fps is 0, and must be above 0"),
        ({"seconds": 10**400}, "seconds is an integer beyond all measure"),
        ({"camera_type": "equirectangular"}, "equirectangular camera"),
    ],
)
def test_malformed_paths_are_named(tmp_path: Path, changes: Any, message: str) -> None:
    write_path(tmp_path / "p.json", known_cameras(), **changes)
    with pytest.raises(WysError, match=message) as caught:
        read_camera_path(tmp_path / "p.json", torch.eye(4))
    assert "p.json" in str(caught.value)


def test_a_field_of_view_is_needed(tmp_path: Path) -> None:
    content = write_path(tmp_path / "p.json", known_cameras())
    content["camera_path"][2]["fov"] = 0
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(WysError, match="camera 2 has no fov between 0 and 180"):
        read_camera_path(tmp_path / "p.json", torch.eye(4))


def capture_of(azimuths: torch.Tensor) -> Capture:
    """A capture from cameras at these azimuths that look at the origin."""
    n = len(azimuths)
    height = 0.5 + 0.1 * (torch.arange(n) % 3)
    eye = torch.stack([azimuths.cos(), azimuths.sin(), height], dim=1)
    pose = look_at(eye, torch.zeros_like(eye), torch.tensor([0.0, 0.0, 1.0]))
    cameras = Camera(torch.tensor([40.0, 40.0, 16.0, 12.0]).expand(n, 4), pose, 32, 24)
    views = ViewSet(tuple(map(str, range(n))), torch.zeros(n, 3, 24, 32).byte(), cameras)
    return Capture(views, views.select([]), torch.eye(4), True, "scene", "test")


def azimuth_of(cameras: Camera) -> torch.Tensor:
    return torch.atan2(cameras.centre[:, 1], cameras.centre[:, 0])


def test_an_orbit_goes_all_around_where_cameras_did() -> None:
    capture = posed_capture(posed_edit(0, 1, "recolour"), views=8, held_out=0, size=16)
    loop = orbit(capture, 24, height=20)
    assert (loop.height, loop.width) == (20, 20)
    steps = torch.diff(azimuth_of(loop)) % (2 * math.pi)
    torch.testing.assert_close(steps, torch.full_like(steps, 2 * math.pi / 24))
    centre, _ = loop.project(torch.zeros(24, 1, 3))
    torch.testing.assert_close(centre, torch.full_like(centre, 10.0), atol=1e-3, rtol=0)
    reach, trained = loop.centre.norm(dim=1), capture.train.cameras.centre.norm(dim=1)
    assert trained.min() <= reach.min() and reach.max() <= trained.max() + 1e-5
    ratio = loop.intrinsics[0, 0] / capture.train.cameras.intrinsics[0, 0]
    assert float(ratio) == pytest.approx(20 / 16)


def test_an_orbit_in_front_of_a_scene_stays_in_front() -> None:
    # Around the direction of -x, where azimuths jump.
    capture = capture_of(math.pi + torch.linspace(-0.6, 0.6, 9))
    loop = orbit(capture, 40)
    assert (loop.height, loop.width) == (24, 32)
    away = (azimuth_of(loop) - math.pi + math.pi) % (2 * math.pi) - math.pi
    assert away.abs().max() < 0.6 and away.max() > 0.3 and away.min() < -0.3
    moves = (loop.centre.roll(-1, 0) - loop.centre).norm(dim=1)
    assert moves.max() < 0.15
    assert loop.intrinsics[0, 0].item() == pytest.approx(40)


@pytest.mark.parametrize("direction", [(0.0, -1.0, 0.0), (0.6, 0.6, 0.5), (0.1, 0.0, 3.0)])
def test_an_orbit_of_a_walk_straight_ahead_still_moves(
    direction: tuple[float, float, float],
) -> None:
    """Cameras on one line through the middle, which all look along it."""
    capture = capture_of(torch.zeros(9))
    eye = torch.linspace(1, 2, 9)[:, None] * torch.tensor(direction)
    pose = look_at(eye, torch.zeros_like(eye), torch.tensor([0.0, 0.0, 1.0]))
    cameras = replace(capture.train.cameras, world_from_camera=pose)
    loop = orbit(replace(capture, train=replace(capture.train, cameras=cameras)), 24)
    rays = loop.centre / loop.centre.norm(dim=1, keepdim=True)
    widest = (rays @ rays.T).clamp(-1, 1).min().acos().rad2deg()
    assert 9 < widest < 12
    axis = torch.tensor(direction) / torch.tensor(direction).norm()
    assert (rays @ axis).min() > math.cos(math.radians(12))


def test_an_orbit_of_another_shape_shows_all_of_a_photograph() -> None:
    loop = orbit(capture_of(torch.linspace(0, 6, 20)), 3, height=48, width=48)
    fx = float(loop.intrinsics[0, 0])
    assert fx == pytest.approx(60)  # 32 pixels of a photo become 48, and rows are added.
    assert orbit(capture_of(torch.linspace(0, 6, 20)), 3, width=64).height == 48
