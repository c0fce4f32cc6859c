"""Where a user stands, and paths from one such place to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from wys.camera import Camera, intrinsics_from_fov
from wys.errors import WysError


@dataclass(frozen=True)
class Viewpoint:
    """A place, a direction and a field of view, for a picture of any size."""

    position: tuple[float, float, float]
    """In the scene frame."""
    wxyz: tuple[float, float, float, float]
    """The unit quaternion of the camera's axes (OpenCV: x right, y down, z forward)."""
    fov: float
    """The vertical field of view in radians."""

    @staticmethod
    def of(camera: Camera) -> Viewpoint:
        """That of one camera; a principal point beside the middle is left out."""
        pose = camera.world_from_camera.double()
        x, y, z = pose[:3, 3].tolist()
        fov = 2 * math.atan(camera.height / 2 / float(camera.intrinsics[1]))
        return Viewpoint((x, y, z), quaternion(pose[:3, :3]), fov)

    def camera(self, height: int, width: int) -> Camera:
        """The camera that takes a picture of a size from here."""
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = rotation(self.wxyz)
        pose[:3, 3] = torch.tensor(self.position, dtype=torch.float64)
        degrees = torch.tensor(math.degrees(self.fov), dtype=torch.float64)
        lens = intrinsics_from_fov(degrees, height, width, aspect=width / height)
        return Camera(lens.float(), pose.float(), width, height)

    def framing(self, aspect: float, window: float) -> Viewpoint:
        """From here, all that a picture of one aspect (width / height) shows, in a window's."""
        if window >= aspect:
            return self
        return replace(self, fov=2 * math.atan(math.tan(self.fov / 2) * aspect / window))

    def stepping_back(self, places: Sequence[Sequence[float]], window: float) -> Viewpoint:
        """From here if a window (width / height) shows one of the places, else from so far back
        that it shows them all."""
        if not places:
            return self
        pose, tall = rotation(self.wxyz), math.tan(self.fov / 2)
        here = torch.tensor(self.position, dtype=torch.float64)
        x, y, z = ((torch.tensor(places, dtype=torch.float64) - here) @ pose).unbind(1)
        missing = torch.maximum(x.abs() / (tall * window), y.abs() / tall) - z
        if float(missing.min()) <= 0:
            return self
        x0, y0, z0 = (here - pose[:, 2] * missing.max()).tolist()
        return replace(self, position=(x0, y0, z0))

    @property
    def target(self) -> tuple[float, float, float]:
        """The point straight ahead that is nearest to the middle of the scene."""
        place = torch.tensor(self.position, dtype=torch.float64)
        ahead = rotation(self.wxyz)[:, 2]
        x, y, z = (place + ahead * max(0.5, float(-(place @ ahead)))).tolist()
        return x, y, z


def rotation(wxyz: Sequence[float]) -> Float[Tensor, "3 3"]:
    """The matrix of a quaternion that need not have length 1."""
    w, x, y, z = torch.nn.functional.normalize(
        torch.tensor(list(wxyz), dtype=torch.float64), dim=0
    ).tolist()
    return torch.tensor(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ],
        dtype=torch.float64,
    )


def quaternion(matrix: Float[Tensor, "3 3"]) -> tuple[float, float, float, float]:
    """The unit quaternion (w at least 0) of a rotation."""
    (a, b, c), (d, e, f), (g, h, i) = matrix.double().tolist()
    # Four times the outer product of the quaternion with itself: its longest row is the surest.
    outer = torch.tensor(
        [
            [1 + a + e + i, h - f, c - g, d - b],
            [h - f, 1 + a - e - i, b + d, c + g],
            [c - g, b + d, 1 - a + e - i, f + h],
            [d - b, c + g, f + h, 1 - a - e + i],
        ],
        dtype=torch.float64,
    )
    row = outer[int(outer.diagonal().argmax())]
    w, x, y, z = (row / row.norm() * (1 if row[0] >= 0 else -1)).tolist()
    return w, x, y, z


def along(stops: Sequence[Viewpoint], count: int) -> list[Viewpoint]:
    """`count` viewpoints on a smooth way through all stops, from the first to the last.

    Catmull-Rom splines through places, directions and fields of view, evenly in time.

    Raises:
        WysError: fewer than two stops, or fewer than two pictures.
    """
    if len(stops) < 2 or count < 2:
        raise WysError("a path needs at least 2 cameras and 2 pictures; add the next camera.")
    rows = torch.tensor([[*s.position, *s.wxyz, s.fov] for s in stops], dtype=torch.float64)
    for i in range(1, len(rows)):
        # q and -q are one rotation: the nearer one is meant.
        if float(rows[i, 3:7] @ rows[i - 1, 3:7]) < 0:
            rows[i, 3:7] *= -1
    # The ways in and out go straight on.
    rows = torch.cat([2 * rows[:1] - rows[1:2], rows, 2 * rows[-1:] - rows[-2:-1]])
    found = []
    for k in range(count):
        place = k * (len(stops) - 1) / (count - 1)
        i = min(int(place), len(stops) - 2)
        x, y, z, *wxyz, fov = _catmull_rom(rows[i : i + 4], place - i).tolist()
        found.append(Viewpoint((x, y, z), quaternion(rotation(wxyz)), fov))
    return found


def _catmull_rom(four: Float[Tensor, "4 n"], t: float) -> Float[Tensor, " n"]:
    """Between the second and the third of four points, t from 0 to 1."""
    a, b, c, d = four
    return b + t / 2 * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
