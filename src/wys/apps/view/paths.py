"""A recorded path: cameras that a user has put down, the film between them, and its file."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from wys.apps import scene_results
from wys.apps.results import result_folder
from wys.apps.view.viewpoint import Viewpoint, along
from wys.camera import Camera
from wys.datasets.camera_path import CameraPath, write_camera_path


@dataclass(frozen=True)
class PathSettings:
    """How a path is gone."""

    seconds: float = 2.0
    """From each camera to the next."""
    rate: float = 15.0
    """Pictures a second."""

    def count(self, stops: int) -> int:
        """Pictures of a path of so many cameras."""
        return max(2, round(self.seconds * self.rate * (stops - 1)))


def cameras_of(stops: tuple[Viewpoint, ...], count: int, height: int, width: int) -> Camera:
    """A batch of cameras along the way through all stops; raises as `along`."""
    each = [view.camera(height, width) for view in along(stops, count)]
    lenses = torch.stack([camera.intrinsics for camera in each])
    poses = torch.stack([camera.world_from_camera for camera in each])
    return replace(each[0], intrinsics=lenses, world_from_camera=poses)


def free_name(out: Path) -> str:
    """camera_path, or camera_path-2 and so on: a name of which no film lies in a folder."""
    for number in itertools.count(1):
        name = "camera_path" if number == 1 else f"camera_path-{number}"
        if not any((out / f"{name}{suffix}").exists() for suffix in (".mp4", ".json")):
            return name
    raise AssertionError("numbers do not end")


def film(
    stops: tuple[Viewpoint, ...],
    settings: PathSettings,
    size: tuple[int, int],
    scene_from_world: Float[Tensor, "4 4"],
    shoot: Callable[[Camera], Float[Tensor, "3 h w"]],
    out: Path,
    name: str,
) -> Iterator[tuple[int, int]]:
    """Writes NAME.mp4 and its cameras, NAME.json, into a folder: (pictures made, all of them).

    Args:
        size: (height, width) of the pictures.
        shoot: what one camera sees.

    Raises:
        WysError: fewer than two stops, or the files cannot be written.
    """
    count = settings.count(len(stops))
    cameras = cameras_of(stops, count, *size)
    path = CameraPath(cameras, count / settings.rate)
    with result_folder(out) as results:
        write_camera_path(results / f"{name}.json", path, scene_from_world)
        with scene_results.film(results / f"{name}.mp4", settings.rate) as add:
            for i in range(count):
                add(shoot(cameras[i]))
                yield i + 1, count
