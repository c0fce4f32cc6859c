"""COLMAP: sparse models as poses, and poses for plain photographs. Needs pycolmap.

Recovering poses is SIFT, exhaustive matching and incremental mapping on the CPU with one lens for
all photographs.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from wys.datasets.frames import Frame, Frames, read_photo, rigid_pose, with_photos
from wys.datasets.lens import Distortion, Optics
from wys.errors import WysError, WysWarning
from wys.image import resize, write_image

_MODEL_FOLDERS = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", ".")
_MODEL_FILES = ("cameras.bin", "cameras.txt")
_SIFT_SIZE = 1600  # Longer side in pixels at which features are looked for.
_SHARED_LENS = "OPENCV"


def model_folder(folder: Path) -> Path | None:
    """Where below a folder its sparse model lies; None where there is none."""
    for name in _MODEL_FOLDERS:
        if any((folder / name / file).is_file() for file in _MODEL_FILES):
            return folder / name
    return None


def read_colmap(folder: Path) -> Frames:
    """The frames of a sparse model, binary or text, with its photographs in images/.

    Args:
        folder: holds `sparse/0`, `sparse`, `colmap/sparse/0` or the model itself.

    Raises:
        WysError: pycolmap is missing, the model is damaged, or its lens is of a kind not read.
    """
    model = model_folder(folder)
    if model is None:
        raise WysError(
            f"{folder} has no COLMAP model; put cameras, images and points into sparse/0."
        )
    pycolmap = _pycolmap()
    photos = _photo_folder(folder, model)
    try:
        with _quiet(pycolmap), _without_points(model) as poses:
            frames = _frames(pycolmap.Reconstruction(str(poses)), photos, model)
    except WysError:
        raise
    except Exception as error:  # The library raises several kinds for a damaged file.
        raise WysError(
            f"{model} is not a COLMAP model that can be read ({_first_line(error)}); "
            "export it again."
        ) from error
    return Frames(with_photos(frames, model))


@contextmanager
def _without_points(model: Path) -> Iterator[Path]:
    """The model in a temporary folder, with no points: none are used, and of a damaged file of them
    the library reads without end."""
    with tempfile.TemporaryDirectory(prefix="wys-colmap-") as work:
        place = Path(work)
        for file in model.iterdir():
            if file.suffix in (".bin", ".txt") and file.is_file() and file.stem != "points3D":
                (place / file.name).symlink_to(file.resolve())
        binary = (place / "cameras.bin").exists()
        (place / ("points3D.bin" if binary else "points3D.txt")).write_bytes(bytes(8 * binary))
        yield place


def recover_poses(photos: Sequence[Path], source: Path, threads: int = 1) -> Frames:
    """Poses of upright photographs that were taken with one lens, by structure from motion.

    Args:
        photos: photographs of one size.
        source: named in messages.
        threads: with more than one the order of the work, and so the result, differs each time.

    Raises:
        WysError: pycolmap is missing, a photograph cannot be read or is of another size than the
            first, or too few photographs could be placed.
    """
    pycolmap = _pycolmap()
    with tempfile.TemporaryDirectory(prefix="wys-colmap-") as work, _quiet(pycolmap):
        folder, database = Path(work) / "photos", Path(work) / "database.db"
        # Copies are upright and small, whatever the library makes of the originals.
        copies = _copy(photos, folder)
        extraction = pycolmap.FeatureExtractionOptions()
        extraction.use_gpu = False
        matching = pycolmap.FeatureMatchingOptions()
        matching.use_gpu = False
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = _SHARED_LENS
        mapping = pycolmap.IncrementalPipelineOptions()
        mapping.random_seed = 0
        mapping.min_model_size = 3
        mapping.extract_colors = False
        extraction.num_threads = matching.num_threads = mapping.num_threads = threads
        pycolmap.set_random_seed(0)
        pycolmap.extract_features(
            database,
            folder,
            image_names=list(copies),
            camera_mode=pycolmap.CameraMode.SINGLE,
            reader_options=reader,
            extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )
        pycolmap.match_exhaustive(database, matching_options=matching, device=pycolmap.Device.cpu)
        models = pycolmap.incremental_mapping(database, folder, work, options=mapping)
        if not models:
            raise WysError(
                f"{source}: no poses could be found for its {len(photos)} photos; take more of "
                "them from different places, sharp, with much overlap and of a scene with texture."
            )
        best = max(models.values(), key=lambda model: model.num_reg_images())
        found = {frame.photo.name: frame for frame in _frames(best, folder, source)}
    frames = [replace(found[name], photo=photo) for name, photo in copies.items() if name in found]
    lost = [photo for name, photo in copies.items() if name not in found]
    if lost:
        warnings.warn(
            WysWarning(
                f"{source}: {len(lost)} of {len(photos)} photos could not be placed and are "
                f"skipped, the first one {lost[0].name}."
            ),
            stacklevel=2,
        )
    return Frames(tuple(frames), upright=True)


def _copy(photos: Sequence[Path], folder: Path) -> dict[str, Path]:
    """Writes copies for the feature detector: upright, at most _SIFT_SIZE on the longer side."""
    names: dict[str, Path] = {}
    size: tuple[int, int] | None = None
    for i, photo in enumerate(photos):
        image = read_photo(photo, photos[0], size, upright=True).over_white()
        size = (image.shape[-2], image.shape[-1])
        scale = min(1.0, _SIFT_SIZE / max(size))
        small = resize(image, (round(size[0] * scale), round(size[1] * scale)))
        name = f"{i:06d}.png"
        write_image(folder / name, small)
        names[name] = photo
    return names


def _frames(reconstruction: Any, photos: Path, source: Path) -> list[Frame]:
    frames = []
    for image in reconstruction.images.values():
        if not image.has_pose:
            continue
        camera_from_world = torch.eye(4, dtype=torch.float64)
        camera_from_world[:3] = torch.from_numpy(image.cam_from_world().matrix())
        pose = rigid_pose(torch.linalg.inv(camera_from_world).tolist(), f"{source}: {image.name}")
        camera = reconstruction.cameras[image.camera_id]
        frames.append(Frame(photos / image.name, pose, _optics(camera, source)))
    return frames


def _optics(camera: Any, source: Path) -> Optics:
    """A COLMAP camera; its pixel centres lie at +0.5 as ours do."""
    values = [float(value) for value in camera.params]
    size = (int(camera.height), int(camera.width))
    if min(size) < 1:
        raise WysError(f"{source} has a camera of {size[1]} x {size[0]} pixels; export it again.")
    match camera.model_name:
        case "SIMPLE_PINHOLE" | "SIMPLE_RADIAL" | "RADIAL":
            f, cx, cy = values[:3]
            bends = Distortion(*values[3:])
            return Optics((f, f), None, (cx, cy), size, bends)
        case "PINHOLE" | "OPENCV":
            fx, fy, cx, cy = values[:4]
            k1, k2, p1, p2 = values[4:] or [0.0] * 4
            return Optics((fx, fy), None, (cx, cy), size, Distortion(k1, k2, 0.0, p1, p2))
        case name:
            raise WysError(
                f"{source} has the lens model {name}, which is not read; run COLMAP's "
                "image_undistorter first, or map with OPENCV."
            )


def _photo_folder(folder: Path, model: Path) -> Path:
    """images/ in the folder, beside the model or beside its parent; else the folder itself."""
    model = model.resolve()  # "." has itself for a parent.
    for place in (folder, model, model.parent, model.parent.parent):
        if (place / "images").is_dir():
            return place / "images"
    return folder


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _pycolmap() -> ModuleType:
    try:
        import pycolmap
    except ImportError as error:
        raise WysError(
            "COLMAP models and photos without poses need pycolmap; install it with "
            "pip install 'wys[scenes]'."
        ) from error
    return pycolmap


@contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """Keeps the library's log off the screen for a while; faults are raised, not logged."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before
