"""Cameras to render from: recorded paths, and a loop around what the photographs show."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from wys.camera import Camera, intrinsics_from_fov, look_at
from wys.datasets.frames import OPENCV_FROM_OPENGL, matrix, number, rigid_pose
from wys.errors import WysError
from wys.store import read_json, write_json
from wys.views import Applied, Capture, moved

_FULL_CIRCLE = math.radians(100)  # The largest gap between neighbours that still makes a ring.
_WITHIN = 0.8  # Share of what the cameras cover that a loop in front of a scene uses.
_LEAST_SWAY = math.radians(5)  # To either side; cameras on one line through the middle cover 0.
_STEEPEST = 1.4  # Radians of elevation: straight above, up is not defined.


@dataclass(frozen=True)
class CameraPath:
    """Cameras in the order in which they are to be shown."""

    cameras: Camera
    """A batch, in the scene frame."""
    seconds: float
    """How long the whole path takes."""


def read_camera_path(
    path: Path, scene_from_world: Float[Tensor, "4 4"], applied: Applied | None = None
) -> CameraPath:
    """A camera_path.json as nerfstudio's viewer records it.

    The viewer counts in the frame that nerfstudio trains in. Where a `dataparser_transforms.json`
    of that training lies in the same folder, the path is brought back to the capture's own
    coordinates by it; without one it is taken to be in them.

    Args:
        scene_from_world: of the capture that the path is for.
        applied: of that capture, too.

    Raises:
        WysError: the file is missing or malformed, or its cameras are no perspective ones.
    """
    path = Path(path)
    content = read_json(path)
    entries = content.get("camera_path") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise WysError(
            f"{path} has no camera_path; record one in nerfstudio's viewer, or name another file."
        )
    if content.get("camera_type", "perspective") not in ("perspective", "pinhole"):
        raise WysError(
            f"{path} is for a {content['camera_type']} camera; record a perspective path."
        )
    height, width = (_size(content, key, path) for key in ("render_height", "render_width"))
    poses, fovs = [], []
    for i, entry in enumerate(entries):
        what = f"{path}: camera {i}"
        if not isinstance(entry, dict):
            raise WysError(f"{what} is not an object; record the path again.")
        flat = entry.get("camera_to_world")
        if not isinstance(flat, list) or len(flat) != 16:
            raise WysError(f"{what} has no camera_to_world of 16 numbers; record the path again.")
        poses.append(rigid_pose([flat[row : row + 4] for row in (0, 4, 8, 12)], what))
        fov = number(entry, "fov", what)
        if fov is None or not 0 < fov < 180:
            raise WysError(f"{what} has no fov between 0 and 180 degrees; record the path again.")
        fovs.append(fov)
    signs = torch.tensor(OPENCV_FROM_OPENGL, dtype=torch.float64)
    fov_deg = torch.tensor(fovs, dtype=torch.float64)
    # The field of view is vertical whatever the aspect.
    intrinsics = intrinsics_from_fov(fov_deg, height, width, aspect=width / height)
    cameras = Camera(intrinsics, torch.stack(poses) * signs, width, height)
    trained = _world_from_trained(path.parent / "dataparser_transforms.json", applied)
    return CameraPath(
        _single(moved(cameras, scene_from_world.double() @ trained)), _seconds(content, path)
    )


def write_camera_path(
    path: Path, cameras: CameraPath, scene_from_world: Float[Tensor, "4 4"]
) -> None:
    """Writes a path as nerfstudio's viewer does, in the capture's own coordinates.

    Args:
        cameras: with their principal point in the middle of the picture.
        scene_from_world: of the capture that the path is for.
    """
    shown = cameras.cameras.exact()
    world = moved(shown, torch.linalg.inv(scene_from_world.double()))
    poses = world.world_from_camera * torch.tensor(OPENCV_FROM_OPENGL, dtype=torch.float64)
    fovs = 2 * torch.atan(shown.height / 2 / shown.intrinsics[:, 1]).rad2deg()
    aspect = shown.width / shown.height
    entries = [
        {"camera_to_world": pose.flatten().tolist(), "fov": fov, "aspect": aspect}
        for pose, fov in zip(poses, fovs.tolist(), strict=True)
    ]
    write_json(
        path,
        {
            "camera_type": "perspective",
            "render_height": shown.height,
            "render_width": shown.width,
            "fps": len(entries) / cameras.seconds,
            "seconds": cameras.seconds,
            "camera_path": entries,
        },
    )


def orbit(
    capture: Capture, count: int, height: int | None = None, width: int | None = None
) -> Camera:
    """A smooth closed loop of `count` cameras around what the training cameras look at.

    Where they stand all around, the loop is a circle at their height and distance; otherwise it
    sways inside the part that they cover, but by 5 degrees to either side at least. The field of
    view is theirs.

    Args:
        height: rows; with neither given, the photographs' size, with one, their aspect.
        width: columns.

    Returns:
        Cameras in the scene frame; the last one stands just before the first.
    """
    height, width = _fitting_size(capture.train.size, height, width)
    places = capture.train.cameras.centre.double()
    distance = places.norm(dim=1)
    azimuth = torch.atan2(places[:, 1], places[:, 0])
    elevation = torch.asin((places[:, 2] / distance.clamp(min=1e-9)).clamp(-1, 1))
    turn = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    middle, half = _covered(azimuth)
    low, mid, high = torch.quantile(
        elevation, torch.tensor([0.15, 0.5, 0.85], dtype=torch.float64)
    ).tolist()
    if half >= math.pi:
        around, above = middle + turn, torch.full_like(turn, mid)
    else:
        # Seen from the middle, an azimuth is less of a way the higher it is.
        least = _LEAST_SWAY / math.cos(min(abs(mid), _STEEPEST))
        around = middle + max(_WITHIN * half, least) * turn.sin()
        above = (low + high) / 2 + (high - low) / 2 * turn.cos()
    above = above.clamp(-_STEEPEST, _STEEPEST)
    reach = float(distance.median())
    eye = reach * torch.stack(
        [above.cos() * around.cos(), above.cos() * around.sin(), above.sin()], dim=1
    )
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    pose = look_at(eye, torch.zeros_like(eye), up)
    lens = capture.train.cameras.intrinsics.double().median(dim=0).values
    photo_height, photo_width = capture.train.size
    # Square pixels, and the whole of what a photograph shows in both directions.
    slope = torch.minimum(lens[0] / photo_width * width, lens[1] / photo_height * height)
    intrinsics = torch.stack(
        [slope, slope, torch.tensor(width / 2), torch.tensor(height / 2)]
    ).expand(count, 4)
    return _single(Camera(intrinsics, pose, width, height))


def _covered(azimuth: Float[Tensor, " n"]) -> tuple[float, float]:
    """Middle and half width of the azimuths that cameras cover; the half width is pi all around."""
    ordered = azimuth.sort().values
    gaps = torch.cat([ordered[1:], ordered[:1] + 2 * math.pi]) - ordered
    widest = int(gaps.argmax())
    gap = float(gaps[widest])
    if gap < _FULL_CIRCLE:
        return float(ordered[0]), math.pi
    half = (2 * math.pi - gap) / 2
    return float(ordered[widest]) + gap + half, half


def _fitting_size(photo: tuple[int, int], height: int | None, width: int | None) -> tuple[int, int]:
    if height is None and width is None:
        return photo
    if height is None:
        assert width is not None
        return max(1, round(width * photo[0] / photo[1])), width
    return height, width or max(1, round(height * photo[1] / photo[0]))


def _world_from_trained(path: Path, applied: Applied | None) -> Float[Tensor, "4 4"]:
    """From nerfstudio's training frame, x' = scale (R x + t), back to the world; or unchanged.

    The file holds that step with everything done before it: the transform is [R t] after the
    applied one, and the scale the product with the applied one.
    """
    whole = torch.eye(4, dtype=torch.float64)
    if not path.is_file():
        return whole
    content = read_json(path)
    scale = number(content, "scale", str(path)) if isinstance(content, dict) else None
    if scale is None or scale <= 0 or "transform" not in content:
        raise WysError(f"{path} has no transform and scale; take it away or copy it again.")
    rows = content["transform"]
    transform = matrix(rows)
    if applied is not None and transform is not None:
        rows = (transform @ torch.linalg.inv(applied.transform)).tolist()
        scale /= applied.scale
    trained_from_world = rigid_pose(rows, str(path))
    trained_from_world[:3] *= scale
    return torch.linalg.inv(trained_from_world)


def _size(content: dict[str, object], key: str, path: Path) -> int:
    value = number(content, key, str(path))
    if value is None or value < 1 or value != round(value):
        raise WysError(f"{path} has no {key} in whole pixels; record the path again.")
    return int(value)


def _seconds(content: dict[str, object], path: Path) -> float:
    """How long the path takes: its own word, or its frames at its rate, or at 24 a second."""
    seconds, rate = (number(content, key, str(path)) for key in ("seconds", "fps"))
    if rate is not None and rate <= 0:
        raise WysError(f"{path}: fps is {rate:g}, and must be above 0; correct it.")
    if seconds is None or seconds <= 0:
        entries = content["camera_path"]
        assert isinstance(entries, list)
        seconds = len(entries) / (rate or 24.0)
    return seconds


def _single(cameras: Camera) -> Camera:
    return replace(
        cameras,
        intrinsics=cameras.intrinsics.float(),
        world_from_camera=cameras.world_from_camera.float(),
    )
