"""Poses from JSON: nerfstudio's transforms.json, the instant-ngp dialect, and NeRF-synthetic.

All give camera-to-world matrices with OpenGL's axes. Lenses stand once or at each frame, as
fl_x fl_y cx cy w h with OpenCV's k1 k2 k3 p1 p2, or as camera_angle_x alone.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import torch

from wys.datasets.frames import (
    OPENCV_FROM_OPENGL,
    Frame,
    Frames,
    matrix,
    number,
    rigid_pose,
    with_photos,
)
from wys.datasets.lens import Distortion, Optics
from wys.errors import WysError, WysWarning
from wys.store import read_json
from wys.views import Applied

PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
"""What a photograph's name may end with; also tried where a file names it without suffix."""

_FOCAL = ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y")
_LENS_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "perspective")


def read_transforms(path: Path) -> Frames:
    """The frames of a transforms.json, nerfstudio's or instant-ngp's.

    Its lists of file names decide the split, where it has them: photographs of val_filenames and
    test_filenames are held out.

    Raises:
        WysError: the file is missing or no such file, or a pose or lens is malformed.
    """
    content = _content(path)
    frames, held_out = _split(content, with_photos(_frames(content, path), path), path)
    return Frames(frames, held_out, _applied(content, path))


def read_blender(folder: Path) -> Frames:
    """The frames of a NeRF-synthetic folder; those of transforms_test.json are held out.

    Raises:
        WysError: a file is missing or malformed.
    """
    first, test = folder / "transforms_train.json", folder / "transforms_test.json"
    train = with_photos(_frames(_content(first), first), first)
    if not test.is_file():
        return Frames(train)
    held = with_photos(_frames(_content(test), test), test)
    return Frames(train + held, (False,) * len(train) + (True,) * len(held))


def _content(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise WysError(f"{path} has no list of frames; it must be a transforms.json with poses.")
    return content


def _applied(content: dict[str, Any], path: Path) -> Applied | None:
    """What nerfstudio's conversion says it has done to the coordinates; None where it is silent."""
    if content.get("applied_transform") is None and content.get("applied_scale") is None:
        return None
    rows = content.get("applied_transform")
    transform = matrix(torch.eye(4).tolist() if rows is None else rows)
    scale = number(content, "applied_scale", str(path))
    scale = 1.0 if scale is None else scale
    if (
        transform is None
        or transform[3].tolist() != [0, 0, 0, 1]
        or not 0 < float(torch.linalg.det(transform).abs()) < math.inf
        or scale <= 0
    ):
        raise WysError(
            f"{path}: applied_transform must be an invertible matrix of 3 x 4 numbers and "
            "applied_scale above 0; correct them or take them out."
        )
    return Applied(transform, scale)


def _split(
    content: dict[str, Any], frames: tuple[Frame, ...], path: Path
) -> tuple[tuple[Frame, ...], tuple[bool, ...] | None]:
    """The frames that nerfstudio's lists of file names leave, and which of them are held out.

    Without a list of one side the others are that side. What is trained on is never held out, even
    where it stands in both.
    """
    train = _listed(content, ("train_filenames",), path)
    held = _listed(content, ("val_filenames", "test_filenames"), path)
    if train is None and held is None:
        return frames, None
    if train is None:
        return frames, tuple(frame.photo in (held or ()) for frame in frames)
    kept = tuple(f for f in frames if held is None or f.photo in train | held)
    return kept, tuple(frame.photo not in train for frame in kept)


def _listed(content: dict[str, Any], keys: tuple[str, ...], path: Path) -> set[Path] | None:
    """The photographs that some lists of file names have together; None where there is no list."""
    lists = {key: content[key] for key in keys if content.get(key) is not None}
    known = {_photo(path.parent, frame["file_path"]) for frame in content["frames"]}
    found = set()
    for key, names in lists.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise WysError(f"{path}: {key} is no list of file names; correct it or take it out.")
        for name in names:
            if _photo(path.parent, name) not in known:
                raise WysError(f"{path}: {key} has {name}, which no frame has; take it out.")
            found.add(_photo(path.parent, name))
    return found if lists else None


def _frames(content: dict[str, Any], path: Path) -> list[Frame]:
    if any(isinstance(entry, dict) and entry.get("mask_path") for entry in content["frames"]):
        warnings.warn(
            WysWarning(f"{path}: the masks of its frames (mask_path) are not used."), stacklevel=2
        )
    common = {key: value for key, value in content.items() if key != "frames"}
    return [_frame(path, common, entry, i) for i, entry in enumerate(content["frames"])]


def _frame(path: Path, common: dict[str, Any], entry: Any, index: int) -> Frame:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_path"), str):
        raise WysError(f"{path}: frame {index} has no file_path; add it or take the frame out.")
    what = f"{path}: frame {entry['file_path']}"
    if "transform_matrix" not in entry:
        raise WysError(f"{what} has no transform_matrix; add it or take the frame out.")
    pose = rigid_pose(entry["transform_matrix"], what)
    pose = pose * torch.tensor(OPENCV_FROM_OPENGL, dtype=torch.float64)
    if any(entry.get(key) is not None for key in ("fl_x", "fl_y", "camera_angle_x")):
        # Of two ways to say it the frame's own counts, whichever would win within one frame.
        common = {key: value for key, value in common.items() if key not in _FOCAL}
    return Frame(_photo(path.parent, entry["file_path"]), pose, _optics({**common, **entry}, what))


def _photo(folder: Path, name: str) -> Path:
    """The photograph that a frame names; where no such file is, the name with a known suffix."""
    photo = folder / name
    if not photo.is_file() and photo.suffix.lower() not in PHOTO_SUFFIXES:
        for suffix in PHOTO_SUFFIXES:
            candidate = photo.with_name(photo.name + suffix)
            if candidate.is_file():
                return candidate
    return photo


def _optics(values: dict[str, Any], what: str) -> Optics:
    """The lens of a frame, from the file's own keys overridden by the frame's."""
    model = values.get("camera_model", "OPENCV")
    if model not in _LENS_MODELS or values.get("is_fisheye"):
        raise WysError(
            f"{what} has the lens model {model}{', fisheye' if values.get('is_fisheye') else ''}, "
            "which is not read; undistort the photos first."
        )
    numbers = {key: number(values, key, what) for key in (*_FOCAL, "cx", "cy", "w", "h")}
    bends = {key: number(values, key, what) or 0.0 for key in ("k1", "k2", "k3", "k4", "p1", "p2")}
    if bends.pop("k4") != 0:
        raise WysError(
            f"{what} has a distortion k4, which is not read; undistort the photos first."
        )
    for key in (*_FOCAL, "w", "h"):
        value = numbers[key]
        if value is not None and value <= 0:
            raise WysError(f"{what}: {key} is {value:g}, and must be above 0; correct it.")
    for key in ("camera_angle_x", "camera_angle_y"):
        if (numbers[key] or 0) >= math.pi:
            raise WysError(f"{what}: {key} is {numbers[key]:g}, and must be below pi; use radians.")
    fl_x, fl_y = numbers["fl_x"], numbers["fl_y"]
    focal, angles = None, None
    if fl_x is not None or fl_y is not None:
        first = fl_x if fl_x is not None else fl_y
        assert first is not None
        focal = (first, fl_y if fl_y is not None else first)
    elif numbers["camera_angle_x"] is not None:
        angles = (numbers["camera_angle_x"], numbers["camera_angle_y"])
    else:
        raise WysError(f"{what} has neither fl_x nor camera_angle_x; add one of them.")
    w, h, cx, cy = (numbers[key] for key in ("w", "h", "cx", "cy"))
    size = None if w is None or h is None else (math.ceil(h), math.ceil(w))
    return Optics(focal, angles, (cx, cy), size, Distortion(**bends))
