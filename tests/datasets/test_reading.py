"""Readers: what is written from known cameras is read back, and what is malformed is named."""

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wys.camera import Camera
from wys.datasets.frames import Frame, Frames
from wys.datasets.lens import Distortion, Optics
from wys.datasets.reading import (
    ReadSettings,
    _names,
    _Straightener,
    _thinned,
    detect_format,
    read_capture,
)
from wys.datasets.transforms import read_transforms
from wys.errors import WysError, WysWarning
from wys.evaluation.metrics import ssim
from wys.image import Picture, from_uint8, write_picture
from wys.tabletop.posed import posed_edit
from wys.views import Capture, ViewSet, moved

FOX = Path(__file__).parents[3] / "shared" / "data" / "fox"
ALL = ReadSettings(holdout=0)
OPENGL = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
HEIGHT, WIDTH = 12, 16


def known_cameras(count: int = 10) -> Camera:
    """A tabletop ring in world coordinates."""
    return posed_edit(0, 0, "recolour").cameras(count, (HEIGHT, WIDTH))


def known_images(count: int = 10) -> torch.Tensor:
    draw = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=draw)


def write_transforms(folder: Path, **changes: Any) -> dict[str, Any]:
    """A transforms.json of the known cameras with photos; `changes` replace its keys."""
    cameras, images = known_cameras(), known_images()
    frames = []
    for i, pose in enumerate(cameras.world_from_camera.double()):
        write_picture(folder / "images" / f"{i:03d}.png", Picture(images[i]))
        frames.append(
            {
                "file_path": f"./images/{i:03d}.png",
                "transform_matrix": (pose * OPENGL).tolist(),
                "sharpness": 20.0,
            }
        )
    fx, fy, cx, cy = cameras.intrinsics[0].tolist()
    content = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": WIDTH, "h": HEIGHT}
    content |= {"aabb_scale": 4, "frames": frames} | changes
    content = {key: value for key, value in content.items() if value is not None}
    (folder / "transforms.json").write_text(json.dumps(content))
    return content


def world_cameras(capture: Capture, views: ViewSet) -> Camera:
    return moved(views.cameras, torch.linalg.inv(capture.scene_from_world.double()))


def assert_known(capture: Capture, tolerance: float = 1e-4) -> None:
    """The capture holds the known cameras and photos, all of them for training."""
    cameras = world_cameras(capture, capture.train)
    expected = known_cameras()
    torch.testing.assert_close(
        cameras.world_from_camera, expected.world_from_camera, atol=tolerance, rtol=0
    )
    torch.testing.assert_close(
        cameras.intrinsics, expected.intrinsics, atol=tolerance, rtol=tolerance
    )
    assert torch.equal(capture.train.originals, known_images())


def test_transforms_give_back_what_was_written(tmp_path: Path) -> None:
    write_transforms(tmp_path)
    for path in (tmp_path, tmp_path / "transforms.json"):
        capture = read_capture(path, ALL)
        assert_known(capture)
        assert len(capture.held_out) == 0
    assert capture.unbounded and capture.background == "scene"
    assert capture.train.names[0] == "000"


def test_a_point_is_seen_at_the_same_pixel_in_world_and_scene(tmp_path: Path) -> None:
    write_transforms(tmp_path)
    capture = read_capture(tmp_path, ALL)
    points = torch.tensor([[0.3, -0.4, 0.7], [1.5, 0.2, 0.1]]).expand(10, 2, 3)
    s = capture.scene_from_world
    pixels, _ = known_cameras().project(points)
    points = points.double()
    there, _ = capture.train.cameras.project(points @ s[:3, :3].T + s[:3, 3])
    torch.testing.assert_close(there.float(), pixels, atol=1e-3, rtol=0)
    # The table's middle, which all cameras look at, comes near the origin, with up along z.
    assert capture.train.cameras.centre.mean(dim=0)[:2].norm() < 0.5
    assert (capture.train.cameras.centre[:, 2] > 0).all()


def test_lenses_may_stand_at_each_frame(tmp_path: Path) -> None:
    content = write_transforms(tmp_path)
    lens = {key: content.pop(key) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
    content["frames"] = [frame | lens for frame in content["frames"]]
    content["frames"][3]["fl_x"] *= 1.5
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    cameras = read_capture(tmp_path, ALL).train.cameras
    ratio = cameras.intrinsics[:, 0] / known_cameras().intrinsics[:, 0]
    assert ratio[3] == pytest.approx(1.5)
    assert ratio[[0, 1, 2, 4]].tolist() == pytest.approx([1.0] * 4)


def test_the_angle_of_view_is_enough(tmp_path: Path) -> None:
    fx = known_cameras().intrinsics[0, 0].item()
    nothing = dict.fromkeys(("fl_x", "fl_y", "cx", "cy", "w", "h"))
    write_transforms(tmp_path, camera_angle_x=2 * math.atan(WIDTH / 2 / fx), **nothing)
    assert_known(read_capture(tmp_path, ALL))


def test_what_was_applied_to_the_coordinates_is_kept_and_moves_nothing(tmp_path: Path) -> None:
    rows = [[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]]
    write_transforms(tmp_path, applied_transform=rows, applied_scale=2)
    for settings in (ALL, ReadSettings(holdout=0, max_views=4)):
        applied = read_capture(tmp_path, settings).applied
        assert applied is not None and applied.scale == 2
        assert applied.transform.tolist() == [*rows, [0, 0, 0, 1]]
    assert_known(read_capture(tmp_path, ALL))
    write_transforms(tmp_path)
    assert read_capture(tmp_path, ALL).applied is None


@pytest.mark.parametrize(("given", "missing"), [("cx", "cy"), ("cy", "cx")])
def test_one_coordinate_of_the_centre_may_stand_alone(
    tmp_path: Path, given: str, missing: str
) -> None:
    write_transforms(tmp_path, **{given: 5.0, missing: None})
    cx, cy = read_capture(tmp_path, ALL).train.cameras.intrinsics[0, 2:].tolist()
    centre = {"cx": cx, "cy": cy}
    assert centre[given] == 5 and centre[missing] == {"cx": WIDTH, "cy": HEIGHT}[missing] / 2


@pytest.mark.parametrize(
    ("common", "own"),
    [
        ({"fl_x": 30.0, "fl_y": 31.0}, {"camera_angle_x": 2 * math.atan(WIDTH / 2 / 20)}),
        ({"camera_angle_x": 0.3, "camera_angle_y": 0.2}, {"fl_x": 20.0}),
        ({"fl_x": 30.0, "fl_y": 31.0}, {"fl_x": 20.0}),
    ],
)
def test_a_frames_own_focal_length_wins(
    tmp_path: Path, common: dict[str, float], own: dict[str, float]
) -> None:
    content = write_transforms(tmp_path, **({"fl_x": None, "fl_y": None} | common))
    content["frames"][3] |= own
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    focal = read_capture(tmp_path, ALL).train.cameras.intrinsics[:, :2]
    assert focal[3].tolist() == pytest.approx([20, 20])
    assert focal[2, 0] > 29


def test_every_nth_photo_is_held_out_beginning_with_the_first(tmp_path: Path) -> None:
    write_transforms(tmp_path)
    capture = read_capture(tmp_path, ReadSettings(holdout=4))
    assert capture.held_out.names == ("000", "004", "008")
    assert len(capture.train) == 7
    few = read_capture(tmp_path, ReadSettings(holdout=0, max_views=4))
    assert few.train.names == ("000", "003", "006", "009")


@pytest.mark.parametrize(
    ("lists", "train", "held_out"),
    [
        ({"train": "0123", "val": "45", "test": "678"}, "0123", "45678"),
        ({"train": "012345", "val": "456", "test": "9"}, "012345", "69"),
        ({"train": "0123456789", "val": "0123456789", "test": "0123456789"}, "0123456789", ""),
        ({"train": "0123456"}, "0123456", "789"),
        ({"val": "01", "test": "19"}, "2345678", "019"),
        ({"train": "2468", "test": ""}, "2468", ""),
    ],
)
def test_lists_of_file_names_are_the_split(
    tmp_path: Path, lists: dict[str, str], train: str, held_out: str
) -> None:
    files = {f"{key}_filenames": [f"images/00{i}.png" for i in rows] for key, rows in lists.items()}
    write_transforms(tmp_path, **files)
    capture = read_capture(tmp_path)
    assert capture.train.names == tuple(f"00{i}" for i in train)
    assert capture.held_out.names == tuple(f"00{i}" for i in held_out)


def test_masks_are_said_not_to_be_used_once(tmp_path: Path) -> None:
    content = write_transforms(tmp_path)
    for frame in content["frames"]:
        frame["mask_path"] = "masks/0.png"
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.warns(WysWarning, match=r"transforms\.json: the masks .* are not used") as caught:
        assert_known(read_capture(tmp_path, ALL))
    assert len(caught) == 1


def test_missing_photos_are_reported_once_and_skipped(tmp_path: Path) -> None:
    write_transforms(tmp_path)
    for i in (2, 5):
        (tmp_path / "images" / f"00{i}.png").unlink()
    with pytest.warns(WysWarning, match=r"2 of 10 frames have no photo .*002\.png") as caught:
        capture = read_capture(tmp_path, ALL)
    assert len(caught) == 1 and len(capture.train) == 8


def test_photos_may_be_named_without_their_suffix(tmp_path: Path) -> None:
    content = write_transforms(tmp_path)
    for frame in content["frames"]:
        frame["file_path"] = frame["file_path"].removesuffix(".png")
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    assert_known(read_capture(tmp_path, ALL))


def test_downscaling_keeps_the_field_of_view(tmp_path: Path) -> None:
    write_transforms(tmp_path)
    capture = read_capture(tmp_path, ReadSettings(holdout=0, downscale=1.5))
    assert capture.train.size == (8, 11)
    expected = known_cameras().resized(8, 11).intrinsics
    torch.testing.assert_close(capture.train.cameras.intrinsics, expected)


def test_photos_of_another_scale_than_the_numbers_fit(tmp_path: Path) -> None:
    fx, fy, cx, cy = (2 * known_cameras().intrinsics[0]).tolist()
    double = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": 2 * WIDTH, "h": 2 * HEIGHT}
    write_transforms(tmp_path, **double)
    assert_known(read_capture(tmp_path, ALL))


def test_distorted_photos_are_straightened(tmp_path: Path) -> None:
    bends = {"k1": -0.12, "k2": 0.03, "p1": 0.002, "p2": -0.001}
    content = write_transforms(tmp_path, **bends)
    lens = {key: content[key] for key in ("fl_x", "fl_y", "cx", "cy")}
    # Photos whose colours say where on the distorted sensor they were taken.
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    photo = torch.stack([x * 15, y * 20, x * 0]).round().to(torch.uint8)
    for i in range(10):
        write_picture(tmp_path / "images" / f"{i:03d}.png", Picture(photo))
    capture = read_capture(tmp_path, ALL)
    camera = capture.train.cameras[0]
    world = world_cameras(capture, capture.train)[0]
    torch.testing.assert_close(
        world.world_from_camera, known_cameras()[0].world_from_camera, atol=1e-4, rtol=0
    )
    # A point of the world is bent onto the sensor by hand; the straightened photo shows, where its
    # camera projects the point, the colour of that place.
    for plane in ((0.05, -0.03), (-0.12, 0.08), (0.1, 0.1)):
        local = torch.tensor([*plane, 1.0])
        pose = camera.world_from_camera
        point = pose[:3, :3] @ local + pose[:3, 3]
        at = camera.project(point[None])[0][0]
        bent = Distortion(bends["k1"], bends["k2"], 0.0, bends["p1"], bends["p2"]).apply(local[:2])
        sensor = bent * torch.tensor([lens["fl_x"], lens["fl_y"]])
        sensor = sensor + torch.tensor([lens["cx"], lens["cy"]])
        image = capture.train.originals[0].float()
        grid = (2 * at / torch.tensor([WIDTH, HEIGHT]) - 1)[None, None, None]
        seen = torch.nn.functional.grid_sample(image[None], grid, align_corners=False)[0, :, 0, 0]
        expected = torch.tensor([sensor[0] * 15, sensor[1] * 20])
        torch.testing.assert_close(seen[:2], expected, atol=1.5, rtol=0)


def test_a_blender_folder_is_bounded_and_white_behind_alpha(tmp_path: Path) -> None:
    cameras, images = known_cameras(), known_images()
    fx = cameras.intrinsics[0, 0].item()
    alpha = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.uint8)
    alpha[:, 4:, :] = 255
    poses = cameras.world_from_camera.double() * OPENGL
    for split, rows in (("train", range(7)), ("test", range(7, 10))):
        frames = []
        for i in rows:
            write_picture(tmp_path / split / f"r_{i}.png", Picture(images[i], alpha))
            frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": poses[i].tolist()})
        content = {"camera_angle_x": 2 * math.atan(WIDTH / 2 / fx), "frames": frames}
        (tmp_path / f"transforms_{split}.json").write_text(json.dumps(content))
    capture = read_capture(tmp_path)
    assert not capture.unbounded and capture.background == "white"
    assert capture.train.names == tuple(f"r_{i}" for i in range(7))
    assert capture.held_out.names == ("r_7", "r_8", "r_9")
    assert (capture.train.originals[:, :, :4] == 255).all()
    assert torch.equal(capture.train.originals[:, :, 4:], images[:7, :, 4:])
    world = world_cameras(capture, capture.held_out)
    torch.testing.assert_close(
        world.world_from_camera, cameras.world_from_camera[7:], atol=1e-4, rtol=0
    )
    fewer = read_capture(tmp_path, ReadSettings(max_views=5))
    assert (len(fewer.train), len(fewer.held_out)) == (3, 2)


def test_one_photograph_with_two_poses_has_two_names_and_no_folders_in_them() -> None:
    photo = Path("/somewhere/else/1.png")
    assert _names([photo, Path("/somewhere/else/2.png")]) == ("1", "2")
    names = _names([photo, photo])
    assert len(set(names)) == 2 and not any("/" in name for name in names)


def test_names_of_several_folders_stay_apart(tmp_path: Path) -> None:
    content = write_transforms(tmp_path)
    for i, frame in enumerate(content["frames"]):
        new = f"cam{i % 2}/{i // 2}.png"
        (tmp_path / new).parent.mkdir(exist_ok=True)
        (tmp_path / frame["file_path"]).rename(tmp_path / new)
        frame["file_path"] = new
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    names = read_capture(tmp_path, ALL).train.names
    assert len(set(names)) == 10 and names[0] == "cam0_0"


def change_frame(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["frames"][1].update(changes)

    return change


def change_pose(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], None]:
    def change(content: dict[str, Any]) -> None:
        matrix = torch.tensor(content["frames"][1]["transform_matrix"])
        content["frames"][1]["transform_matrix"] = function(matrix).tolist()

    return change


def scaled(matrix: torch.Tensor) -> torch.Tensor:
    return matrix * torch.tensor([1.3, 1.3, 1.3, 1.0])


def mirrored(matrix: torch.Tensor) -> torch.Tensor:
    return matrix * torch.tensor([-1.0, 1.0, 1.0, 1.0])


def not_a_number(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.index_fill(0, torch.tensor([2]), float("nan"))


def last_row(matrix: torch.Tensor) -> torch.Tensor:
    return matrix + torch.eye(4) * torch.tensor([0.0, 0.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_pose(scaled), r"001\.png has a pose that scales or shears"),
        (change_pose(mirrored), r"001\.png has a pose that mirrors the world"),
        (change_pose(not_a_number), r"001\.png has a pose that holds NaN"),
        (change_pose(last_row), r"001\.png has a pose whose last row"),
        (change_frame(transform_matrix=[[1, 2], [3, 4]]), "no camera-to-world matrix of 4 x 4"),
        (change_frame(transform_matrix="none"), "no camera-to-world matrix of 4 x 4"),
        (change_frame(transform_matrix=[[1, "x", 0, 0]] * 4), "no camera-to-world matrix"),
        (lambda c: c["frames"][1].pop("transform_matrix"), r"001\.png has no transform_matrix"),
        (lambda c: c["frames"][1].pop("file_path"), "frame 1 has no file_path"),
        (change_frame(fl_x="wide"), "fl_x is 'wide', and must be a finite number"),
        (change_frame(fl_x=-3), "fl_x is -3, and must be above 0"),
        (change_frame(w=WIDTH * 2), "use the photographs that the poses are for"),
        (change_frame(fl_x=None, camera_angle_y=50), "must be below pi; use radians"),
        (change_frame(k4=0.1), "distortion k4"),
        (change_frame(k1=-90.0), "folds the image over"),
        (change_frame(camera_model="OPENCV_FISHEYE"), "OPENCV_FISHEYE, which is not read"),
        (lambda c: [c.pop("fl_x"), c.pop("fl_y")], "neither fl_x nor camera_angle_x"),
        (lambda c: c.update(frames=c["frames"][:2]), "2 usable photos with poses, and 3 are"),
        (lambda c: c.update(applied_transform=[[1, 2], [3, 4]]), "an invertible matrix of 3 x 4"),
        (lambda c: c.update(applied_transform=[[0.0] * 4] * 3), "an invertible matrix of 3 x 4"),
        (lambda c: c.update(val_filenames="images/001.png"), "val_filenames is no list of file"),
        (lambda c: c.update(train_filenames=["a.png"]), r"train_filenames has a\.png, which no"),
        (lambda c: c.update(applied_scale=0), "applied_scale above 0"),
        (lambda c: c.update(frames={}), "has no list of frames"),
        (lambda c: c.update(frames=[]), "0 usable photos"),
    ],
)
def test_malformed_files_are_named_in_one_sentence(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    content = write_transforms(tmp_path)
    change(content)
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(WysError, match=message) as caught:
        read_capture(tmp_path, ALL)
    text = str(caught.value)
    assert str(tmp_path) in text and text.endswith(".") and "\n" not in text


def test_photos_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    write_transforms(tmp_path)
    photo = tmp_path / "images" / "004.png"
    good = photo.read_bytes()
    photo.write_bytes(good[:60])
    with pytest.raises(WysError, match=r"004\.png.*; replace the photo"):
        read_capture(tmp_path, ALL)
    Image.new("RGB", (WIDTH * 2, HEIGHT * 2)).save(photo)
    with pytest.raises(WysError, match=r"004\.png has 32 x 24 pixels and 000\.png has 16 x 12"):
        read_capture(tmp_path, ALL)
    photo.write_text("no picture")
    with pytest.raises(WysError, match=r"004\.png is not an image file"):
        read_capture(tmp_path, ALL)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_posed_photos_are_taken_as_they_are_stored(tmp_path: Path, orientation: int) -> None:
    """Poses are for the pixels of the files, whatever their EXIF orientation says."""
    write_transforms(tmp_path)
    image = Image.fromarray(known_images()[3].permute(1, 2, 0).numpy())
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "images" / "003.png", exif=exif)
    assert_known(read_capture(tmp_path, ALL))


def test_photos_that_only_their_orientation_makes_fit_are_named(tmp_path: Path) -> None:
    write_transforms(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # Stored lying on its side: to be turned by 90 degrees clockwise.
    for i, photo in enumerate(known_images()):
        image = Image.fromarray(photo.permute(1, 2, 0).numpy())
        lying = image.transpose(Image.Transpose.ROTATE_90)
        lying.save(tmp_path / "images" / f"{i:03d}.png", exif=exif)
    with pytest.raises(WysError, match=r"000\.png has 12 x 16 pixels .* EXIF orientation away"):
        read_capture(tmp_path, ALL)


def test_photos_whose_poses_are_found_are_upright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_transforms(tmp_path)
    known = read_transforms(tmp_path / "transforms.json").frames
    (tmp_path / "transforms.json").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(known_images()[3].permute(1, 2, 0).numpy())
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "images" / "003.png", exif=exif)
    found = Frames(known, upright=True)
    monkeypatch.setattr("wys.datasets.reading.recover_poses", lambda *_: found)
    assert_known(read_capture(tmp_path, ALL))


def test_photos_too_large_for_memory_are_refused_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_transforms(tmp_path)
    monkeypatch.setattr("wys.datasets.reading._LARGEST", 3000)
    with pytest.raises(WysError, match="--downscale 2 or --max-views"):
        read_capture(tmp_path, ALL)
    assert read_capture(tmp_path, ReadSettings(holdout=0, downscale=2)).train.size == (6, 8)


def test_the_smallest_photos_that_are_read_can_be_measured(tmp_path: Path) -> None:
    write_transforms(tmp_path)
    smallest = read_capture(tmp_path, ReadSettings(holdout=0, downscale=2)).train
    assert min(smallest.size) == 6
    truth = from_uint8(smallest.originals)
    torch.testing.assert_close(ssim(truth, truth), torch.ones(10).double())
    with pytest.raises(WysError, match=r"16 x 12 pixels are too small for --downscale 2\.4"):
        read_capture(tmp_path, ReadSettings(holdout=0, downscale=2.4))
    for i in range(10):
        write_picture(tmp_path / f"images/00{i}.png", Picture(known_images()[i, :, :5, :7]))
    with pytest.raises(WysError, match="7 x 5 pixels are too small; 6 along each side"):
        read_capture(tmp_path, ALL)


def test_settings_and_paths_that_make_no_sense(tmp_path: Path) -> None:
    for settings, message in (
        ({"downscale": 0.5}, "--downscale is a number from 1 on"),
        ({"downscale": float("nan")}, "--downscale"),
        ({"holdout": 1}, "--holdout"),
        ({"holdout": -2}, "--holdout"),
        ({"max_views": 2}, "--max-views is at least 3"),
    ):
        with pytest.raises(WysError, match=message):
            ReadSettings(**settings)  # type: ignore[arg-type]
    with pytest.raises(WysError, match="does not exist"):
        read_capture(tmp_path / "absent")
    with pytest.raises(WysError, match="holds no transforms"):
        read_capture(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(WysError, match="nor a video"):
        read_capture(tmp_path / "notes.txt")
    (tmp_path / "transforms.json").write_text("{")
    with pytest.raises(WysError, match="not valid JSON"):
        read_capture(tmp_path)
    write_transforms(tmp_path)
    with pytest.raises(WysError, match="too small for --downscale"):
        read_capture(tmp_path, ReadSettings(downscale=6))
    with pytest.raises(WysError, match="leaves 2 photos to fit"):
        read_capture(tmp_path, ReadSettings(max_views=4, holdout=2))


@given(st.integers(3, 60), st.integers(0, 60), st.integers(3, 20))
def test_as_many_views_as_asked_for_and_enough_to_fit(train: int, held: int, most: int) -> None:
    frames = tuple(Frame(Path(f"{i}.png"), torch.eye(4), Optics()) for i in range(train + held))
    found = Frames(frames, tuple(i >= train for i in range(train + held)))
    kept = _thinned(found, ReadSettings(max_views=most))
    assert kept.held_out is not None and kept.held_out.count(False) >= 3
    count = min(most, train + held)
    assert len({frame.photo for frame in kept.frames}) == len(kept.frames) == count
    out = count * held / (train + held)
    assert abs(kept.held_out.count(True) - out) <= 0.5 or kept.held_out.count(False) == 3


def test_what_one_lens_needs_is_not_kept_for_all_of_them() -> None:
    """As many lenses as photographs, each of which needs more memory than a photograph."""
    straighten = _Straightener(1.0)
    picture = Picture(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8))
    for i in range(1, 5):
        optics = Optics((40.0, 40.0), distortion=Distortion(k1=0.01 * i))
        straighten(picture, Frame(Path("photo.png"), torch.eye(4, dtype=torch.float64), optics))
        assert len(straighten._prepared) == 1


def test_formats_are_told_apart(tmp_path: Path) -> None:
    for name, kind in (
        ("a/transforms.json", "transforms"),
        ("b/transforms_train.json", "blender"),
        ("c/sparse/0/cameras.bin", "colmap"),
        ("d/sparse/cameras.txt", "colmap"),
        ("e/one.JPG", "photos"),
        ("f/images/one.png", "photos"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
        assert detect_format(tmp_path / name.split("/")[0]) == kind
    (tmp_path / "clip.MP4").write_text("")
    assert detect_format(tmp_path / "clip.MP4") == "video"


@pytest.mark.skipif(not FOX.is_dir(), reason="the fox capture is not on this machine")
def test_a_real_capture_is_read() -> None:
    with pytest.warns(WysWarning, match="17 of 67 frames have no photo"):
        capture = read_capture(FOX, ReadSettings(downscale=3))
    assert (len(capture.train), len(capture.held_out)) == (43, 7)
    assert capture.train.size == (160, 90)
    assert capture.held_out.names[:2] == ("0001", "0012")
    # The cameras look at the middle from in front of it, heads up.
    poses = capture.train.cameras.world_from_camera
    ahead = -(poses[:, :3, 2] * poses[:, :3, 3]).sum(dim=1)
    assert (ahead > 0).all()
    assert -poses[:, 2, 1].mean() > 0.8
    distance = capture.train.cameras.centre.norm(dim=1).median()
    assert 1 < distance < 3


def test_reading_warns_of_nothing_where_all_is_well(tmp_path: Path) -> None:
    write_transforms(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_capture(tmp_path)
