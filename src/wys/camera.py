"""Pinhole cameras and their rays.

Axes are OpenCV's: x right, y down, z forward. Poses are camera-to-world (`world_from_camera`).
The centre of the pixel in column i and row j lies at (i + 0.5, j + 0.5). All is batched: `*b` may
be empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Rays:
    """Half-lines in world coordinates."""

    origins: Float[Tensor, "*b 3"]
    """Where the rays start."""
    directions: Float[Tensor, "*b 3"]
    """Unit vectors."""


@dataclass(frozen=True)
class Camera:
    """Pinhole cameras without distortion that share one image size."""

    intrinsics: Float[Tensor, "*b 4"]
    """fx, fy, cx, cy in pixels."""
    world_from_camera: Float[Tensor, "*b 4 4"]
    """Rigid camera-to-world transforms (OpenCV axes)."""
    width: int
    """Columns of the image."""
    height: int
    """Rows of the image."""

    def __getitem__(self, index: Any) -> Camera:
        """The cameras at `index` of the batch."""
        return replace(
            self,
            intrinsics=self.intrinsics[index],
            world_from_camera=self.world_from_camera[index],
        )

    def to(self, device: torch.device | str) -> Camera:
        """The same cameras on another device."""
        return replace(
            self,
            intrinsics=self.intrinsics.to(device),
            world_from_camera=self.world_from_camera.to(device),
        )

    def exact(self) -> Camera:
        """The same cameras on the CPU in double precision, for coordinates far from 0."""
        return replace(
            self,
            intrinsics=self.intrinsics.cpu().double(),
            world_from_camera=self.world_from_camera.cpu().double(),
        )

    def resized(self, height: int, width: int) -> Camera:
        """The same views sampled by another number of pixels (the field of view is kept)."""
        scale = self.intrinsics.new_tensor([width / self.width, height / self.height] * 2)
        return replace(self, intrinsics=self.intrinsics * scale, width=width, height=height)

    @property
    def centre(self) -> Float[Tensor, "*b 3"]:
        """Optical centres in world coordinates."""
        return self.world_from_camera[..., :3, 3]

    def pixel_directions(self, pixels: Float[Tensor, "*b n 2"]) -> Float[Tensor, "*b n 3"]:
        """World directions through image points, scaled to advance 1 along the camera's z axis."""
        focal, centre = self.intrinsics[..., None, :2], self.intrinsics[..., None, 2:]
        plane = (pixels - centre) / focal
        local = torch.cat([plane, torch.ones_like(plane[..., :1])], dim=-1)
        rotation = self.world_from_camera[..., None, :3, :3]
        return (rotation * local[..., None, :]).sum(-1)

    def pixel_centres(self) -> Float[Tensor, "h w 2"]:
        """Image coordinates (column, row) of all pixel centres."""
        device = self.intrinsics.device
        rows = torch.arange(self.height, device=device) + 0.5
        columns = torch.arange(self.width, device=device) + 0.5
        grid = torch.meshgrid(rows, columns, indexing="ij")
        return torch.stack([grid[1], grid[0]], dim=-1)

    def rays(self) -> Rays:
        """One ray through every pixel centre: tensors `[*b, h, w, 3]`."""
        batch = self.intrinsics.shape[:-1]
        pixels = self.pixel_centres().reshape(-1, 2).expand(*batch, -1, 2)
        directions = torch.nn.functional.normalize(self.pixel_directions(pixels), dim=-1)
        directions = directions.reshape(*batch, self.height, self.width, 3)
        return Rays(self.centre[..., None, None, :].expand_as(directions), directions)

    def project(
        self, points: Float[Tensor, "*b n 3"]
    ) -> tuple[Float[Tensor, "*b n 2"], Float[Tensor, "*b n"]]:
        """Image points (column, row) and depths along the camera's z axis of world points.

        Points behind the camera have a negative depth and a meaningless image point.
        """
        offset = points - self.centre[..., None, :]
        rotation = self.world_from_camera[..., None, :3, :3]
        local = (rotation * offset[..., :, None]).sum(-2)
        depth = local[..., 2]
        focal, centre = self.intrinsics[..., None, :2], self.intrinsics[..., None, 2:]
        return focal * local[..., :2] / depth[..., None] + centre, depth

    def unproject(
        self, pixels: Float[Tensor, "*b n 2"], depth: Float[Tensor, "*b n"]
    ) -> Float[Tensor, "*b n 3"]:
        """World points at the given depths along z behind image points; inverts `project`."""
        return self.centre[..., None, :] + self.pixel_directions(pixels) * depth[..., None]


def look_at(
    eye: Float[Tensor, "*b 3"],
    target: Float[Tensor, "*#b 3"],
    up: Float[Tensor, "*#b 3"],
) -> Float[Tensor, "*b 4 4"]:
    """Camera-to-world transforms of cameras at `eye` that look at `target`.

    `up` is a world direction that appears upwards in the image, not parallel to the view.
    """
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up.expand_as(eye)), dim=-1)
    down = torch.linalg.cross(forward, right)
    pose = torch.zeros(*eye.shape[:-1], 4, 4, dtype=eye.dtype, device=eye.device)
    pose[..., :3, 0], pose[..., :3, 1], pose[..., :3, 2] = right, down, forward
    pose[..., :3, 3] = eye
    pose[..., 3, 3] = 1
    return pose


def intrinsics_from_fov(
    fov_deg: Float[Tensor, "*b"], height: int, width: int, aspect: float = 1.0
) -> Float[Tensor, "*b 4"]:
    """Square-pixel intrinsics, principal point in the middle of the image.

    The largest centred frame of the given `aspect` (width / height) that fits into the image spans
    `fov_deg` degrees vertically.
    """
    focal = min(height, width / aspect) / 2 / torch.tan(fov_deg * (math.pi / 360))
    middle = torch.ones_like(focal)
    return torch.stack([focal, focal, middle * width / 2, middle * height / 2], dim=-1)
