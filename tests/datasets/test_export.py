"""The way out: what is written is read back as it was, and what does not fit is refused."""

import json
from pathlib import Path

import pytest
import torch

from wys.camera import Camera
from wys.datasets.export import write_views
from wys.datasets.reading import ReadSettings, read_capture
from wys.errors import WysError
from wys.tabletop.posed import posed_edit
from wys.views import Applied, moved

ALL = ReadSettings(holdout=0)
HEIGHT, WIDTH = 12, 16


def known_cameras(count: int = 10) -> Camera:
    """A tabletop ring in world coordinates."""
    return posed_edit(0, 0, "recolour").cameras(count, (HEIGHT, WIDTH))


def known_images(count: int = 10) -> torch.Tensor:
    draw = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=draw)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    """Once in world coordinates, then again from the frame that reading chose."""
    names = tuple(f"{i:03d}" for i in range(10))
    write_views(tmp_path / "in", names, known_images(), known_cameras(), torch.eye(4))
    capture = read_capture(tmp_path / "in", ALL)
    views = capture.train
    write_views(
        tmp_path / "out", views.names, views.originals, views.cameras, capture.scene_from_world
    )
    again = read_capture(tmp_path / "out", ALL)
    world = moved(again.train.cameras, torch.linalg.inv(again.scene_from_world.double()))
    torch.testing.assert_close(
        world.world_from_camera, known_cameras().world_from_camera, atol=1e-4, rtol=0
    )
    assert torch.equal(again.train.originals, known_images())
    assert again.train.names == views.names == names
    torch.testing.assert_close(again.scene_from_world, capture.scene_from_world)
    torch.testing.assert_close(
        again.train.cameras.world_from_camera, views.cameras.world_from_camera, atol=1e-5, rtol=0
    )
    content = json.loads((tmp_path / "out" / "transforms.json").read_text())
    assert content["fl_x"] == pytest.approx(views.cameras.intrinsics[0, 0].item())
    assert content["frames"][0]["file_path"] == "images/000.png"


def test_what_was_applied_before_is_passed_on(tmp_path: Path) -> None:
    names = tuple(f"{i:03d}" for i in range(10))
    applied = Applied(torch.eye(4, dtype=torch.float64)[[2, 0, 1, 3]], 2.5)
    write_views(tmp_path, names, known_images(), known_cameras(), torch.eye(4), applied)
    back = read_capture(tmp_path, ALL).applied
    assert back is not None and back.scale == 2.5
    assert torch.equal(back.transform, applied.transform)


def test_a_world_far_from_its_origin_comes_back_to_the_millimetre(tmp_path: Path) -> None:
    """As map projections have them: hundreds of kilometres from 0."""
    cameras = known_cameras().exact()
    cameras.world_from_camera[:, :3, 3] += torch.tensor([652_000.0, 5_411_000.0, 430.0])
    names = tuple(f"{i:03d}" for i in range(10))
    write_views(tmp_path / "in", names, known_images(), cameras, torch.eye(4))
    capture = read_capture(tmp_path / "in", ALL)
    write_views(
        tmp_path / "out", names, known_images(), capture.train.cameras, capture.scene_from_world
    )
    poses = [
        torch.tensor(frame["transform_matrix"], dtype=torch.float64)[:3, 3]
        for frame in json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"]
    ]
    centres = torch.stack(poses)
    torch.testing.assert_close(centres, cameras.world_from_camera[:, :3, 3], atol=1e-3, rtol=0)


def test_lenses_that_differ_are_written_at_each_frame(tmp_path: Path) -> None:
    cameras = known_cameras()
    cameras.intrinsics[4, 0] *= 2
    names = [f"n{i}" for i in range(10)]
    write_views(tmp_path, names, known_images(), cameras, torch.eye(4))
    again = read_capture(tmp_path, ALL).train.cameras
    torch.testing.assert_close(again.intrinsics, cameras.intrinsics)


def test_nothing_ill_fitting_is_written(tmp_path: Path) -> None:
    cameras, images = known_cameras(3), known_images(3)
    for names, message in (
        (["a", "b"], "2 names, 3 images and 3 cameras"),
        (["a", "b", "a"], "'a' does not name one image"),
        (["a", "b", "../c"], "does not name one image"),
    ):
        with pytest.raises(WysError, match=message):
            write_views(tmp_path, names, images, cameras, torch.eye(4))
    with pytest.raises(WysError, match="16 x 12 pixels, and the images have 16 x 11"):
        write_views(tmp_path, ["a", "b", "c"], images[:, :, 1:], cameras, torch.eye(4))
    assert not (tmp_path / "transforms.json").exists()
