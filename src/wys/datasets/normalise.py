"""One frame for all captures: what the cameras look at in the unit ball, up along +z."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wys.errors import WysError

_ROUNDS = 20  # Of reweighting: outliers lose their say within a few.
_PARALLEL = 0.003  # Axes within about 3 degrees of one another do not fix a distance.
_AGREEMENT = 0.3  # Length of the cameras' mean upward vector below which they disagree.

_TURNED = 0.02  # Mean square by which x axes leave a line, below which they span no plane.


@dataclass(frozen=True)
class Poses:
    """What the normalisation needs to know of n cameras, in world coordinates, float64."""

    world_from_camera: Float[Tensor, "n 4 4"]
    half_view: Float[Tensor, " n"]
    """Tangent of half the field of view along the longer side."""

    @property
    def centres(self) -> Float[Tensor, "n 3"]:
        """Where the cameras stand."""
        return self.world_from_camera[:, :3, 3]

    @property
    def axes(self) -> Float[Tensor, "n 3"]:
        """Where the cameras look."""
        return self.world_from_camera[:, :3, 2]


def scene_similarity(poses: Poses, margin: float = 1.0) -> Float[Tensor, "4 4"]:
    """The similarity from the world to the scene frame, float64.

    The point that the optical axes pass nearest to becomes the origin; the ball about it that the
    median camera shows across the longer side of its image becomes the unit ball; the direction
    that the cameras agree to be up becomes +z.

    Args:
        margin: the unit ball is so many times larger.

    Raises:
        WysError: all cameras stand at one point.
    """
    middle = poses.centres.median(dim=0).values
    spread = float((poses.centres - middle).norm(dim=1).max())
    if spread < 1e-9 * (1 + float(poses.centres.abs().max())):
        raise WysError(
            "all cameras stand at one point, which shows no depth; photograph from several places."
        )
    focus = focus_point(poses)
    radius = float(((poses.centres - focus).norm(dim=1) * poses.half_view).median())
    # Cameras that stand close to their focus look outwards: they bound what is near.
    radius = margin * max(radius, 0.05 * spread)
    rotation = _upright(poses)
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[:3, :3] = rotation / radius
    similarity[:3, 3] = -(rotation @ focus) / radius
    return similarity


def focus_point(poses: Poses) -> Float[Tensor, " 3"]:
    """The point nearest to the optical axes: least squares, reweighted to least distances.

    Nearly parallel axes meet nowhere: then a point before the cameras, as far away as they are
    spread twice over. Cameras that look outwards: the middle of the cameras.
    """
    centres, axes = poses.centres, poses.axes
    middle = centres.median(dim=0).values
    spread = (centres - middle).norm(dim=1).median()
    across = torch.eye(3, dtype=torch.float64) - axes[:, :, None] * axes[:, None, :]
    if float(torch.linalg.eigvalsh(across.mean(dim=0))[0]) < _PARALLEL:
        return middle + 4 * spread * torch.nn.functional.normalize(axes.mean(dim=0), dim=0)
    weights = torch.ones(len(centres), dtype=torch.float64)
    focus = middle
    for _ in range(_ROUNDS):
        weighted = weights[:, None, None] * across
        right = (weighted @ centres[:, :, None]).sum(dim=0)
        focus = torch.linalg.solve(weighted.sum(dim=0), right)[:, 0]
        offset = (across @ (focus - centres)[:, :, None])[:, :, 0]
        distance = offset.norm(dim=1)
        # Weights 1/distance minimise the sum of distances; the floor keeps them finite.
        weights = 1 / distance.clamp(min=1e-3 * float(spread) + 1e-12)
        weights = weights / weights.max()
    ahead = ((focus - centres) * axes).sum(dim=1) > 0
    return focus if float(ahead.double().mean()) >= 0.5 else middle


def _upright(poses: Poses) -> Float[Tensor, "3 3"]:
    """The smallest rotation that brings the cameras' common upward direction to +z."""
    mean_up = -poses.world_from_camera[:, :3, 1].mean(dim=0)
    if float(mean_up.norm()) < _AGREEMENT:
        return torch.eye(3, dtype=torch.float64)
    up = mean_up / mean_up.norm()
    # Held level, cameras that pitch differently still have all their x axes in the ground plane.
    x_axes = poses.world_from_camera[:, :3, 0]
    values, vectors = torch.linalg.eigh(x_axes.T @ x_axes / len(x_axes))
    normal = vectors[:, 0] * torch.sign(vectors[:, 0] @ up)
    level = float(values[0]) < 0.1 * float(values[1]) and float(values[1]) > _TURNED
    if level and float(normal @ up) > 0.7:
        up = normal
    z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    cross, cosine = torch.linalg.cross(up, z), float(up @ z)
    if cosine < -1 + 1e-12:
        return torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    skew = torch.zeros(3, 3, dtype=torch.float64)
    skew[0, 1], skew[0, 2], skew[1, 2] = -cross[2], cross[1], -cross[0]
    skew = skew - skew.T
    return torch.eye(3, dtype=torch.float64) + skew + skew @ skew / (1 + cosine)
