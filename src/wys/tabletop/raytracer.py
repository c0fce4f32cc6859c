"""A deterministic batched ray tracer for table-top scenes, in plain PyTorch on any device.

One ray per pixel; then pixels that differ from a neighbour are supersampled by a fixed pattern. An
image depends on its scene and camera only, never on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.camera import Camera
from wys.tabletop.intersection import Indices, Vectors, World, closest, prepare
from wys.tabletop.shading import radiance
from wys.tabletop.world import MAX_OBJECTS, TableScene

CHUNK = 131072
"""Rays traced at once: many enough to hide the cost of each call, few enough for the caches."""
_CONTRAST = 0.06  # Neighbours that differ by more than this are supersampled.


@dataclass(frozen=True)
class Rendering:
    """Images of a batch of scenes."""

    rgb: Float[Tensor, "b 3 h w"]
    """Display colours in [0, 1]."""
    object_ids: Int[Tensor, "b h w"]
    """Object slot + 1 at the pixel's centre; 0 is floor or background."""
    depth: Float[Tensor, "b h w"]
    """Distance along the camera's z axis at the pixel's centre; infinite on the background."""


@dataclass(frozen=True)
class _Lens:
    """Cameras of a batch with components in front."""

    intrinsics: Float[Tensor, "4 b"]
    pose: Float[Tensor, "3 4 b"]

    def rays(self, x: Tensor, y: Tensor, scene_of: Indices) -> tuple[Vectors, Vectors, Tensor]:
        """Origins, unit directions, and the depth per unit of length, through image points."""
        fx, fy, cx, cy = self.intrinsics.index_select(1, scene_of)
        a, b = (x - cx) / fx, (y - cy) / fy
        shorten = 1 / (a * a + b * b + 1).sqrt()
        pose = self.pose.index_select(2, scene_of)
        direction = (pose[:, 0] * a + pose[:, 1] * b + pose[:, 2]) * shorten
        return pose[:, 3], direction, shorten


def _trace(
    world: World,
    lens: _Lens,
    pixel: Int[Tensor, " pixels"],
    width: int,
    area: int,
    at: list[tuple[float, float]],
) -> tuple[Vectors, Tensor, Indices]:
    """Linear colours clipped to [0, 1], depths and object ids of flat pixel indices.

    All pixels come once per sample point in `at`, sample after sample.
    """
    scene_of = pixel // area
    row, column = (pixel % area) // width, pixel % area % width
    x = torch.cat([column + dx for dx, _ in at])
    y = torch.cat([row + dy for _, dy in at])
    scene_of = scene_of.repeat(len(at))
    o, d, shorten = lens.rays(x, y, scene_of)
    colour, distance, ids = radiance(world, o, d, scene_of)
    return colour.clamp(0, 1), distance * shorten, ids


def _offsets(samples: int) -> list[tuple[float, float]]:
    """Sample points of a pixel: the Hammersley set moved off the corner; (0.5, 0.5) for one."""
    points = []
    for k in range(samples):
        inverse, base, i = 0.0, 0.5, k
        while i:
            inverse, base, i = inverse + base * (i & 1), base / 2, i >> 1
        points.append(((k + 0.5) / samples, inverse + 0.5 / samples))
    return points


def _uneven(rgb: Float[Tensor, "3 b h w"], ids: Int[Tensor, "b h w"]) -> Bool[Tensor, "b h w"]:
    """Pixels that differ from one of their four neighbours."""
    uneven = torch.zeros_like(ids, dtype=torch.bool)
    for dim in (1, 2):
        n = ids.shape[dim] - 1
        step = (rgb.narrow(dim + 1, 1, n) - rgb.narrow(dim + 1, 0, n)).abs().amax(0) > _CONTRAST
        step |= ids.narrow(dim, 1, n) != ids.narrow(dim, 0, n)
        uneven.narrow(dim, 1, n).logical_or_(step)
        uneven.narrow(dim, 0, n).logical_or_(step)
    return uneven


@torch.no_grad()
def render(
    scene: TableScene, camera: Camera, *, samples: int = 4, adaptive: bool = True
) -> Rendering:
    """Images of `scene[i]` seen by `camera[i]`.

    Args:
        samples: rays per antialiased pixel; 1 turns antialiasing off.
        adaptive: antialias only pixels that differ from a neighbour.
    """
    b, height, width = len(scene), camera.height, camera.width
    area = height * width
    world = prepare(scene)
    lens = _Lens(camera.intrinsics.T.contiguous(), camera.world_from_camera[:, :3].permute(1, 2, 0))
    device = scene.present.device
    linear = torch.empty(3, b * area, device=device)
    depth = torch.empty(b * area, device=device)
    ids = torch.empty(b * area, dtype=torch.long, device=device)
    everything = torch.arange(b * area, device=device)
    for pixels in everything.split(CHUNK):
        part = slice(int(pixels[0]), int(pixels[-1]) + 1)
        linear[:, part], depth[part], ids[part] = _trace(
            world, lens, pixels, width, area, _offsets(1)
        )
    if samples > 1:
        chosen = everything
        if adaptive:
            shown = linear.sqrt().reshape(3, b, height, width)
            chosen = torch.nonzero(_uneven(shown, ids.reshape(b, height, width)).reshape(-1))[:, 0]
        for pixels in chosen.split(max(1, CHUNK // samples)):
            colours = _trace(world, lens, pixels, width, area, _offsets(samples))[0]
            # Added one by one: the order of a reduction could depend on the number of pixels.
            total = torch.zeros(3, len(pixels), device=device)
            for sample in colours.split(len(pixels), dim=1):
                total += sample
            linear[:, pixels] = total / samples
    rgb = linear.sqrt().reshape(3, b, height, width).transpose(0, 1).contiguous()
    return Rendering(rgb, ids.reshape(b, height, width), depth.reshape(b, height, width))


@torch.no_grad()
def object_ids(scene: TableScene, camera: Camera) -> Int[Tensor, "b h w"]:
    """Object slot + 1 at every pixel's centre, 0 elsewhere, without shading."""
    area = camera.height * camera.width
    world = prepare(scene)
    lens = _Lens(camera.intrinsics.T.contiguous(), camera.world_from_camera[:, :3].permute(1, 2, 0))
    parts = []
    for pixel in torch.arange(len(scene) * area, device=scene.present.device).split(CHUNK):
        scene_of = pixel // area
        x = pixel % area % camera.width + 0.5
        y = (pixel % area) // camera.width + 0.5
        o, d, _ = lens.rays(x, y, scene_of)
        distance, column = closest(world, o, d, scene_of)
        parts.append(torch.where(distance < torch.inf, column % MAX_OBJECTS + 1, 0))
    return torch.cat(parts).reshape(len(scene), camera.height, camera.width)
