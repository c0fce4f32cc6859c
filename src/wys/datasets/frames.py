"""A posed photograph as the readers find it, and what is demanded of its pose."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from wys.datasets.lens import Optics
from wys.errors import WysError, WysWarning
from wys.image import Picture, read_picture
from wys.views import Applied

_RIGID = 0.01  # Largest error of a rotation's products, far above what printed digits lose.
OPENCV_FROM_OPENGL = (1.0, -1.0, -1.0, 1.0)
"""Signs of the camera's axes: OpenGL's y points up and its z backwards."""


@dataclass(frozen=True)
class Frame:
    """One photograph in a file, and the camera that took it."""

    photo: Path
    world_from_camera: Float[Tensor, "4 4"]
    """Rigid, float64, OpenCV axes, in the capture's own coordinates."""
    optics: Optics


@dataclass(frozen=True)
class Frames:
    """What a reader found: all photographs that are there, sorted by file name."""

    frames: tuple[Frame, ...]
    held_out: tuple[bool, ...] | None = None
    """The split where the files decide it; None leaves it to the settings."""
    applied: Applied | None = None
    """What was done to the coordinates before they were saved, where the files say so."""
    upright: bool = False
    """Whether the poses are for photographs turned by their EXIF orientation. Poses of files are
    not: structure from motion and trainers take pixels as they are stored."""


def matrix(rows: object) -> Float[Tensor, "4 4"] | None:
    """4 x 4 or 3 x 4 nested numbers as a float64 matrix; None where they are something else."""
    try:
        values = torch.tensor(rows, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    if tuple(values.shape) == (3, 4):
        values = torch.cat([values, torch.tensor([[0, 0, 0, 1]], dtype=torch.float64)])
    return values if tuple(values.shape) == (4, 4) else None


def rigid_pose(rows: object, what: str) -> Float[Tensor, "4 4"]:
    """A camera-to-world matrix from nested lists of numbers, its rotation made exactly orthogonal.

    Args:
        rows: 4 x 4 or 3 x 4 numbers.
        what: names the pose in messages, such as "transforms.json: frame images/0001.jpg".

    Raises:
        WysError: it is no matrix, not finite, scaled, sheared or mirrored.
    """
    cure = "write the poses again, or take the frame out"
    found = matrix(rows)
    if found is None:
        raise WysError(f"{what} has no camera-to-world matrix of 4 x 4 numbers; {cure}.")
    if not bool(torch.isfinite(found).all()):
        raise WysError(f"{what} has a pose that holds NaN or infinity; {cure}.")
    last = torch.tensor([0, 0, 0, 1], dtype=torch.float64)
    if float((found[3] - last).abs().max()) > 1e-6:
        raise WysError(f"{what} has a pose whose last row is not 0 0 0 1; {cure}.")
    rotation = found[:3, :3]
    error = float((rotation.T @ rotation - torch.eye(3, dtype=torch.float64)).abs().max())
    if error > _RIGID:
        raise WysError(f"{what} has a pose that scales or shears (it is not a rotation); {cure}.")
    u, _, vh = torch.linalg.svd(rotation)
    if float(torch.linalg.det(rotation)) < 0:
        raise WysError(f"{what} has a pose that mirrors the world; {cure}.")
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3] = u @ vh
    pose[:3, 3] = found[:3, 3]
    return pose


def number(values: dict[str, object], key: str, what: str) -> float | None:
    """A finite number of a JSON object, None where the key is absent.

    Raises:
        WysError: there is something else.
    """
    value = values.get(key)
    if value is None:
        return None
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    except OverflowError as error:
        raise WysError(f"{what}: {key} is an integer beyond all measure; correct it.") from error
    raise WysError(f"{what}: {key} is {value!r}, and must be a finite number; correct it.")


def with_photos(frames: Sequence[Frame], source: Path) -> tuple[Frame, ...]:
    """The frames whose photograph exists, sorted by file name; the others are reported once."""
    there = sorted((f for f in frames if f.photo.is_file()), key=lambda f: natural(str(f.photo)))
    missing = [frame.photo for frame in frames if not frame.photo.is_file()]
    if missing:
        warnings.warn(
            WysWarning(
                f"{source}: {len(missing)} of {len(frames)} frames have no photo and are skipped, "
                f"the first one {missing[0]}."
            ),
            stacklevel=2,
        )
    return tuple(there)


def read_photo(path: Path, first: Path, size: tuple[int, int] | None, upright: bool) -> Picture:
    """A photograph of the same size as the first one.

    Args:
        first: the first photograph, named in messages.
        size: its (height, width); None while nothing was read.
        upright: apply EXIF orientation.

    Raises:
        WysError: it cannot be read, or has another size.
    """
    try:
        picture = read_picture(path, upright=upright)
    except WysError as error:
        raise WysError(
            f"{str(error).rstrip('.')}; replace the photo, or take it out of the set."
        ) from error
    if size is not None and picture.size != size:
        (h, w), (height, width) = picture.size, size
        raise WysError(
            f"{path} has {w} x {h} pixels and {first.name} has {width} x {height}; use photos of "
            "one size."
        )
    return picture


def natural(name: str) -> list[tuple[int, str]]:
    """A sorting key by which image 2 comes before image 10."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", name)
        if part
    ]
