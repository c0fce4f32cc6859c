"""Where a user stands, and recorded paths."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from wys.apps.view.paths import PathSettings, cameras_of, film, free_name
from wys.apps.view.viewpoint import Viewpoint, along, quaternion, rotation
from wys.camera import Camera, look_at
from wys.datasets.camera_path import read_camera_path
from wys.errors import WysError


def standing(angle: float, fov: float = 0.8) -> Viewpoint:
    """On a circle around the middle, looking at it."""
    eye = torch.tensor([2 * math.cos(angle), 2 * math.sin(angle), 1.0], dtype=torch.float64)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    pose = look_at(eye, torch.zeros(3, dtype=torch.float64), up)
    x, y, z = eye.tolist()
    return Viewpoint((x, y, z), quaternion(pose[:3, :3]), fov)


STOPS = (standing(0.0), standing(1.0, 0.7), standing(2.5), standing(4.0))
WORLD = torch.tensor([[0.0, -2, 0, 1], [2, 0, 0, 0], [0, 0, 2, -1], [0, 0, 0, 1]])


def test_a_camera_and_its_viewpoint_are_one() -> None:
    for stop in STOPS:
        camera = stop.camera(40, 60)
        again = Viewpoint.of(camera)
        assert again.position == pytest.approx(stop.position, abs=1e-6)
        assert again.wxyz == pytest.approx(stop.wxyz, abs=1e-6)
        assert again.fov == pytest.approx(stop.fov, abs=1e-6)
        # It looks at the middle, which is then what one turns around.
        assert stop.target == pytest.approx((0, 0, 0), abs=1e-6)
    for wxyz in ((0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0.5, -0.5, 0.5, -0.5)):
        assert torch.allclose(rotation(quaternion(rotation(wxyz))), rotation(wxyz))


def test_a_narrow_window_shows_the_whole_width() -> None:
    stop = STOPS[0]
    assert stop.framing(1.0, 1.6) == stop
    narrow = stop.framing(1.0, 0.5)
    lens = narrow.camera(800, 400).intrinsics[0]
    assert 2 * math.atan(200 / float(lens)) == pytest.approx(stop.fov, abs=1e-6)


def test_stepping_back_brings_every_place_into_the_window() -> None:
    here, *others = STOPS
    places, window = [stop.position for stop in others], 1.5
    back = here.stepping_back(places, window)
    # Straight back, and no further than the outermost place asks for.
    assert back.target == pytest.approx(here.target) and back.wxyz == here.wxyz
    seen = (torch.tensor(places) - torch.tensor(back.position)) @ rotation(back.wxyz).float()
    reach = seen[:, :2].abs() / seen[:, 2:] / math.tan(here.fov / 2)
    assert (seen[:, 2] > 0).all()
    assert float((reach / torch.tensor([window, 1.0])).max()) == pytest.approx(1, abs=1e-4)
    # Whoever sees one of them stays, and so does whoever has none to see.
    assert back.stepping_back(places, window) == back
    assert here.stepping_back([], window) == here
    assert here.stepping_back([here.target], window) == here


def test_a_path_goes_smoothly_through_its_stops() -> None:
    views = along(STOPS, 31)
    for i, stop in enumerate(STOPS):
        assert views[10 * i].position == pytest.approx(stop.position, abs=1e-9)
        assert (
            abs(sum(a * b for a, b in zip(views[10 * i].wxyz, stop.wxyz, strict=True))) > 1 - 1e-9
        )
        assert views[10 * i].fov == pytest.approx(stop.fov)
    gaps = [math.dist(a.position, b.position) for a, b in pairwise(views)]
    assert max(gaps) < 0.4
    with pytest.raises(WysError, match="at least 2 cameras"):
        along(STOPS[:1], 10)


def test_a_film_comes_with_the_path_that_the_renderer_reads(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    settings = PathSettings(seconds=0.4, rate=5)

    def shoot(camera: Camera) -> torch.Tensor:
        return torch.rand(3, camera.height, camera.width)

    for name in ("camera_path", "camera_path-2"):
        assert free_name(tmp_path) == name
        steps = film(STOPS[:3], settings, (16, 24), WORLD, shoot, tmp_path, name)
        assert list(steps) == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (tmp_path / "camera_path.mp4").stat().st_size > 0
    path = read_camera_path(tmp_path / "camera_path.json", WORLD)
    assert path.seconds == pytest.approx(0.8)
    wanted = cameras_of(STOPS[:3], 4, 16, 24)
    assert torch.allclose(path.cameras.intrinsics, wanted.intrinsics, atol=1e-4)
    assert torch.allclose(path.cameras.world_from_camera, wanted.world_from_camera, atol=1e-5)
