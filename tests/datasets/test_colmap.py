"""COLMAP: models written through its own library, and poses recovered from photographs."""

import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wys.camera import Camera
from wys.datasets.colmap import _copy, recover_poses
from wys.datasets.reading import ReadSettings, read_capture
from wys.errors import WysError, WysWarning
from wys.image import Picture, read_picture, write_picture
from wys.tabletop.posed import posed_edit
from wys.views import moved

pycolmap = pytest.importorskip("pycolmap")

FOX = Path(__file__).parents[3] / "shared" / "data" / "fox"
HEIGHT, WIDTH, COUNT = 18, 24, 6
ALL = ReadSettings(holdout=0)

LENSES = {
    "SIMPLE_PINHOLE": [30.0, 12.5, 8.5],
    "PINHOLE": [30.0, 31.0, 12.5, 8.5],
    "SIMPLE_RADIAL": [30.0, 12.5, 8.5, 0.1],
    "RADIAL": [30.0, 12.5, 8.5, 0.1, -0.02],
    "OPENCV": [30.0, 31.0, 12.5, 8.5, 0.05, -0.02, 0.001, -0.002],
}


def known_cameras() -> Camera:
    return posed_edit(0, 0, "recolour").cameras(COUNT, (HEIGHT, WIDTH))


def write_model(folder: Path, lens: str, text: bool) -> None:
    """A model of the known poses, and photos that tell where on the sensor a pixel is."""
    model = pycolmap.Reconstruction()
    params = LENSES.get(lens, [30.0, 31.0, 12.5, 8.5, 0.0, 0.0, 0.0, 0.0])
    camera = pycolmap.Camera(model=lens, width=WIDTH, height=HEIGHT, params=params, camera_id=1)
    model.add_camera_with_trivial_rig(camera)
    poses = torch.linalg.inv(known_cameras().world_from_camera.double()).numpy()
    y, x = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    photo = torch.stack([x * 10, y * 13, x * 0]).round().to(torch.uint8)
    for i, pose in enumerate(poses):
        image = pycolmap.Image(name=f"p{i}.png", camera_id=1, image_id=i + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose[:3]))
        write_picture(folder / "images" / f"p{i}.png", Picture(photo))
    (folder / "sparse" / "0").mkdir(parents=True)
    (model.write_text if text else model.write_binary)(str(folder / "sparse" / "0"))


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("lens", sorted(LENSES))
def test_models_give_back_poses_and_lens(tmp_path: Path, lens: str, text: bool) -> None:
    write_model(tmp_path, lens, text)
    capture = read_capture(tmp_path, ALL)
    world = moved(capture.train.cameras, torch.linalg.inv(capture.scene_from_world.double()))
    torch.testing.assert_close(
        world.world_from_camera, known_cameras().world_from_camera, atol=1e-4, rtol=0
    )
    assert capture.train.names == tuple(f"p{i}" for i in range(COUNT))
    # The library says where on the sensor a direction falls; the straightened photo shows the
    # colour of that place where our camera projects the same direction.
    camera = pycolmap.Camera(model=lens, width=WIDTH, height=HEIGHT, params=LENSES[lens])
    fx, fy, cx, cy = capture.train.cameras.intrinsics[0].tolist()
    image = capture.train.originals[0].float()
    for x, y in ((0.1, -0.05), (-0.2, 0.12), (0.0, 0.0)):
        sensor = camera.img_from_cam([x, y, 1.0])
        at = torch.tensor([fx * x + cx, fy * y + cy])
        grid = (2 * at / torch.tensor([WIDTH, HEIGHT]) - 1)[None, None, None]
        seen = torch.nn.functional.grid_sample(image[None], grid, align_corners=False)[0, :, 0, 0]
        expected = torch.tensor([sensor[0] * 10, sensor[1] * 13], dtype=torch.float32)
        torch.testing.assert_close(seen[:2], expected, atol=1.5, rtol=0)


def test_a_model_without_rigs_as_older_versions_write_it(tmp_path: Path) -> None:
    write_model(tmp_path, "PINHOLE", text=True)
    for name in ("rigs.txt", "frames.txt"):
        (tmp_path / "sparse" / "0" / name).unlink()
    (tmp_path / "images" / "p2.png").unlink()
    with pytest.warns(WysWarning, match="1 of 6 frames have no photo"):
        capture = read_capture(tmp_path, ALL)
    assert capture.train.names == ("p0", "p1", "p3", "p4", "p5")


def test_a_model_is_read_from_within_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path, "PINHOLE", text=False)
    monkeypatch.chdir(tmp_path / "sparse" / "0")
    assert len(read_capture(Path("."), ALL).train) == COUNT


def test_models_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    write_model(tmp_path, "OPENCV_FISHEYE", text=False)
    with pytest.raises(WysError, match="lens model OPENCV_FISHEYE, which is not read"):
        read_capture(tmp_path)
    file = tmp_path / "sparse" / "0" / "images.bin"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(WysError, match="is not a COLMAP model that can be read"):
        read_capture(tmp_path)
    with pytest.raises(WysError, match="has no COLMAP model"):
        read_capture(tmp_path / "images", ReadSettings(format="colmap"))


@pytest.mark.parametrize("text", [False, True])
def test_points_are_not_read(tmp_path: Path, text: bool) -> None:
    """Of a damaged file of points the library would read without end."""
    write_model(tmp_path, "PINHOLE", text=text)
    whole = read_capture(tmp_path, ALL)
    file = tmp_path / "sparse" / "0" / ("points3D.txt" if text else "points3D.bin")
    file.write_bytes(b"\xff" * 100)
    assert torch.equal(read_capture(tmp_path, ALL).train.images, whole.train.images)


def test_a_missing_library_is_named_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path, "PINHOLE", text=False)
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(
        WysError, match=r"need pycolmap; install it with pip install 'wys\[scenes\]'"
    ):
        read_capture(tmp_path)


def test_photos_of_nothing_have_no_poses(tmp_path: Path) -> None:
    for i in range(3):
        grey = torch.full((3, 40, 50), 100 + i, dtype=torch.uint8)
        write_picture(tmp_path / f"{i}.png", Picture(grey))
    with pytest.raises(WysError, match="no poses could be found for its 3 photos"):
        read_capture(tmp_path)
    write_picture(tmp_path / "1.png", Picture(torch.zeros(3, 40, 51, dtype=torch.uint8)))
    with pytest.raises(WysError, match=r"1\.png has 51 x 40 pixels and 0\.png has 50 x 40"):
        read_capture(tmp_path)
    (tmp_path / "2.png").unlink()
    with pytest.raises(WysError, match="has 2 photos, and 3 are the least"):
        read_capture(tmp_path)


def test_poses_are_looked_for_in_upright_copies(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    upright = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8, generator=draw)
    image = Image.fromarray(upright.permute(1, 2, 0).numpy())
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png")
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    for name in _copy([tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "copies"):
        assert torch.equal(read_picture(tmp_path / "copies" / name).rgb, upright)


def similarity_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest distance of centres after the best similarity (Umeyama), as a share of the spread."""
    middle_found, middle = found.mean(axis=0), expected.mean(axis=0)
    a, b = found - middle_found, expected - middle
    u, sizes, vh = np.linalg.svd(b.T @ a)
    signs = np.diag([1, 1, np.sign(np.linalg.det(u @ vh))])
    scale = np.trace(np.diag(sizes) @ signs) / (a**2).sum()
    error = np.linalg.norm(scale * a @ (u @ signs @ vh).T - b, axis=1).max()
    return float(error / np.linalg.norm(b, axis=1).mean())


@pytest.mark.slow
@pytest.mark.skipif(not FOX.is_dir(), reason="the fox capture is not on this machine")
def test_poses_of_real_photos_are_recovered(tmp_path: Path) -> None:
    known = read_capture(FOX, ReadSettings(holdout=0, max_views=50)).train
    rows = list(range(0, 28, 2))
    for i in rows:
        shutil.copy(FOX / "images" / f"{known.names[i]}.jpg", tmp_path)
    capture = read_capture(tmp_path, ALL)
    views = capture.train
    assert len(views) >= 12
    matching = [known.names.index(name) for name in views.names]
    error = similarity_error(views.cameras.centre.numpy(), known.cameras.centre[matching].numpy())
    assert error < 0.03
    focal = views.cameras.intrinsics[0, 1] / known.cameras.intrinsics[0, 1]
    assert math.isclose(float(focal), 1, abs_tol=0.05)
    photo = read_picture(tmp_path / f"{views.names[0]}.jpg")
    assert views.size == photo.size


@pytest.mark.slow
@pytest.mark.skipif(not FOX.is_dir(), reason="the fox capture is not on this machine")
def test_photos_that_cannot_be_placed_are_reported(tmp_path: Path) -> None:
    for name in sorted(p.name for p in (FOX / "images").iterdir())[:24:3]:
        shutil.copy(FOX / "images" / name, tmp_path)
    noise = torch.randint(0, 256, (3, 480, 270), dtype=torch.uint8)
    write_picture(tmp_path / "zzz.png", Picture(noise))
    photos = sorted(tmp_path.iterdir())
    with pytest.warns(WysWarning, match=r"of 9 photos could not be placed .*zzz\.png"):
        frames = recover_poses(photos, tmp_path)
    assert frames.upright
    assert tmp_path / "zzz.png" not in {frame.photo for frame in frames.frames}
