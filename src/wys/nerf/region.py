"""The part of space that an edit may change, decided before the edit and then held.

A relevance field is learnt on surfaces alone: it says nothing about the space that a new shape
needs, and goes with a surface that is taken away. A region fills space instead. Each voxel asks
every view that sees it how relevant its pixel is; the mean is the voxel's vote. Where all views
agree this is the visual hull (Laurentini 1994); where some point at the wrong thing the others
outvote them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.camera import Camera, Rays
from wys.errors import WysError
from wys.nerf.rendering import render_rays
from wys.nerf.scene import Scene

ROOM = 2
"""Voxels by which the room of an edit exceeds its region."""


@dataclass(frozen=True)
class RegionSettings:
    """How views vote on the region of an edit."""

    resolution: int = 96
    """Voxels along each side of the box that is voted on."""
    extent: float = 1.25
    """Half the side of that box, in scene units: cameras look at about the unit ball."""
    agreement: float = 0.85
    """A voxel belongs to the region where its vote is at least this share of the highest votes."""
    least: float = 0.15
    """And at least this: where all votes are lower no view knows what is meant."""
    quorum: float = 0.2
    """A voxel is voted on only where it lies in the frames of at least this share of the views, and
    of three: a single view would agree with itself on all that stands between it and its mask."""
    rival: float | None = None
    """A part of the region that stands apart from the strongest belongs to it where its mean
    relevance, in the views that take it for meant, is at least this share of that part's; 0 keeps
    every part. None takes the editor's own."""

    def __post_init__(self) -> None:
        if self.resolution < 2 or self.extent <= 0:
            raise WysError("a region needs a resolution of 2 voxels and an extent above 0.")
        if not 0 < self.agreement <= 1 or not 0 <= self.least <= 1:
            raise WysError("the agreement of a region is above 0, up to 1; its least vote 0 to 1.")
        if not 0 <= self.quorum <= 1:
            raise WysError(f"the quorum of a region is from 0 to 1, not {self.quorum}.")
        if self.rival is not None and not 0 <= self.rival <= 1:
            raise WysError(f"the rival share of a region is from 0 to 1, not {self.rival}.")


@dataclass(frozen=True)
class Region:
    """Voxels of an axis-aligned cube around the origin of the scene frame."""

    inside: Bool[Tensor, "r r r"]
    """Which voxels may change; axes are x, y, z."""
    extent: float
    """Half the side of the cube in scene units."""

    @staticmethod
    def empty(settings: RegionSettings) -> Region:
        """The region of views that find nothing."""
        return Region(torch.zeros((settings.resolution,) * 3, dtype=torch.bool), settings.extent)

    @property
    def is_empty(self) -> bool:
        return not bool(self.inside.any())

    @property
    def room(self) -> Region:
        """Where an edited field takes the place of the one before: the region and a little more.

        A field's surfaces do not end exactly where the masks of photographs do. Without this the
        rim of what was edited would show what it was before.
        """
        return self.grown(ROOM)

    def grown(self, voxels: int) -> Region:
        """The region with so many voxels more in every direction."""
        inside = self.inside
        for _ in range(voxels):
            inside = F.max_pool3d(inside[None].float(), 3, stride=1, padding=1)[0] > 0
        return Region(inside, self.extent)

    def contains(self, points: Float[Tensor, "*b 3"]) -> Bool[Tensor, "*b"]:
        """Whether points of the scene frame lie in the region; outside the cube none does."""
        r = len(self.inside)
        index = ((points / self.extent + 1) * (r / 2)).floor().long()
        known = ((index >= 0) & (index < r)).all(dim=-1)
        x, y, z = index.clamp(0, r - 1).unbind(-1)
        return self.inside[x, y, z] & known

    @property
    def bounds(self) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """Lowest and highest corner of the smallest box around the region, in scene units."""
        corners = self.inside.nonzero()
        if len(corners) == 0:
            return torch.zeros(3), torch.zeros(3)
        scale = 2 * self.extent / len(self.inside)
        low, high = corners.amin(dim=0), corners.amax(dim=0) + 1
        return low * scale - self.extent, high * scale - self.extent

    def first_hit(self, rays: Rays) -> Float[Tensor, "*b"]:
        """Distance along each ray at which it enters the region; infinite where it never does.

        Rays are followed in steps of half a voxel, so corners thinner than that may be missed.
        """
        low, high = self.bounds
        near, far = _through_box(rays, low, high)
        shape, hit = near.shape, torch.full_like(near, torch.inf).reshape(-1)
        met = (far > near).reshape(-1).nonzero()[:, 0]
        origins, directions = rays.origins.reshape(-1, 3)[met], rays.directions.reshape(-1, 3)[met]
        near, far = near.reshape(-1)[met], far.reshape(-1)[met]
        step = self.extent / len(self.inside)
        first = torch.full_like(near, torch.inf)
        # From far to near, so that the last write is the first hit.
        for k in reversed(range(int((high - low).norm() / step) + 1)):
            distance = near + (k + 0.5) * step
            inside = self.contains(origins + distance[:, None] * directions) & (distance < far)
            first = torch.where(inside, distance, first)
        hit[met] = first
        return hit.reshape(shape)

    def seen_by(
        self, camera: Camera, depth: Float[Tensor, "1 h w"] | None = None, margin: float = 0.03
    ) -> Bool[Tensor, "1 h w"]:
        """The pixels of one camera that look at the region.

        Args:
            depth: distance along the ray of what stands there now (infinite: nothing); a region
                behind it is hidden.
            margin: scene units by which the region may lie behind that and still be seen.
        """
        hit = self.first_hit(camera.rays())
        if depth is None:
            return (hit < torch.inf)[None]
        return ((hit < torch.inf) & (hit <= depth[0].to(hit) + margin))[None]


@torch.no_grad()
def region_mask(
    scene: Scene, region: Region, camera: Camera, *, chunk: int = 4096
) -> Bool[Tensor, "1 h w"]:
    """The pixels of one camera that look at the region, past what stands in front of it now.

    Only rays that meet the region are rendered.

    Args:
        chunk: rays at once.
    """
    free = region.seen_by(camera)[0]
    rays = camera.rays()
    depth = torch.full(free.shape, torch.inf)
    if bool(free.any()):
        origins, directions = rays.origins[free].split(chunk), rays.directions[free].split(chunk)
        depth[free] = torch.cat(
            [
                render_rays(scene, Rays(o.to(scene.device), d.to(scene.device))).surface.cpu()
                for o, d in zip(origins, directions, strict=True)
            ]
        )
    return region.seen_by(camera, depth[None])


def votes(
    maps: Float[Tensor, "n 1 hm wm"], cameras: Camera, settings: RegionSettings
) -> Float[Tensor, "r r r"]:
    """The mean relevance of each voxel over the views in whose frame it lies; 0 without a quorum.

    Args:
        maps: relevance in [0, 1] of n views, or their masks, at any resolution.
        cameras: the n cameras, in the scene frame.
    """
    r = settings.resolution
    axis = ((torch.arange(r) + 0.5) / r * 2 - 1) * settings.extent
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    total, seen = torch.zeros(len(points)), torch.zeros(len(points))
    for i in range(len(maps)):
        pixels, depth = cameras[i].project(points)
        place = pixels / pixels.new_tensor([cameras.width, cameras.height]) * 2 - 1
        framed = (depth > 0) & (place.abs() <= 1).all(dim=-1)
        value = F.grid_sample(
            maps[i][None], place[None, None], padding_mode="border", align_corners=False
        )[0, 0, 0]
        total += torch.where(framed, value, 0.0)
        seen += framed
    least = max(min(3, len(maps)), math.ceil(settings.quorum * len(maps)))
    return torch.where(seen >= least, total / seen.clamp(min=1), 0.0).reshape(r, r, r)


def vote_region(
    masks: Float[Tensor, "n 1 hm wm"],
    cameras: Camera,
    settings: RegionSettings | None = None,
    maps: Float[Tensor, "n 1 hv wv"] | None = None,
) -> Region:
    """The region that n views agree on; empty where none of them finds anything relevant.

    Args:
        masks: what each view takes for meant, in [0, 1].
        maps: the relevance itself, which tells parts apart that all masks show; None: the masks.
    """
    settings = settings or RegionSettings()
    volume = votes(masks, cameras, settings)
    # A few voxels in which wrong views happen to meet must not set the standard.
    highest = float(volume.flatten().topk(_few(volume)).values[-1])
    level = max(settings.agreement * highest, settings.least)
    inside = volume >= level
    if settings.rival and bool(inside.any()):
        maps = masks if maps is None else F.interpolate(maps, masks.shape[-2:], mode="bilinear")
        # Where something stands in front a view says nothing: its silence is no evidence.
        evidence = votes(maps * masks, cameras, settings) / volume.clamp(min=1e-6)
        inside = strongest_parts(inside, evidence, settings.rival)
    return Region(inside, settings.extent)


def strongest_parts(
    inside: Bool[Tensor, "r r r"], evidence: Float[Tensor, "r r r"], share: float
) -> Bool[Tensor, "r r r"]:
    """The connected parts whose mean evidence is at least a share of the strongest part's.

    An editor that is unsure which object is meant marks several; over many views the right one
    gains. Parts of a few voxels neither count nor stay, and none sets the standard that is small
    beside the largest: where wrong views happen to meet, few of them agree on much.
    """
    labels = connected_parts(inside)
    names, counts = labels[inside].unique(return_counts=True)
    large = counts >= _few(inside)
    names, counts = names[large], counts[large]
    if len(names) == 0:
        return inside
    means = torch.stack([evidence[labels == name].mean() for name in names])
    kept = names[means >= share * means[10 * counts >= counts.max()].max()]
    return torch.isin(labels, kept)


def connected_parts(inside: Bool[Tensor, "r r r"]) -> Int[Tensor, "r r r"]:
    """A number from 1 on for each connected part (26 neighbours), 0 outside.

    Every voxel starts with a number of its own; the highest spreads over its part.
    """
    labels = torch.zeros(inside.shape, dtype=torch.float64)
    labels[inside] = torch.arange(1, int(inside.sum()) + 1, dtype=torch.float64)
    while True:
        spread = F.max_pool3d(labels[None], 3, stride=1, padding=1)[0] * inside
        if torch.equal(spread, labels):
            return labels.long()
        labels = spread


def _few(volume: Tensor) -> int:
    """So many voxels are too few to mean anything."""
    return max(8, volume.numel() // 20_000)


def _through_box(
    rays: Rays, low: Float[Tensor, " 3"], high: Float[Tensor, " 3"]
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Where rays enter and leave a box (the slab method); a ray that misses it leaves first."""
    tiny = rays.directions.abs() < 1e-9
    inverse = 1 / rays.directions.masked_fill(tiny, 1e-9)
    one, other = (low - rays.origins) * inverse, (high - rays.origins) * inverse
    near = torch.minimum(one, other).amax(dim=-1).clamp(min=0)
    far = torch.maximum(one, other).amin(dim=-1)
    return near, far
