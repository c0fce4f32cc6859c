"""How scenes and cameras are drawn at random.

Everything is a function of (seed, split, item): a scene is the same in every batch. All scenes of a
batch are drawn at once, from one row of even numbers each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.camera import Camera, intrinsics_from_fov, look_at
from wys.seeds import generator
from wys.tabletop.shapes import SOLIDS
from wys.tabletop.world import (
    BACKGROUND_PATTERNS,
    BACKGROUNDS,
    COLOURS,
    FLOOR_PATTERNS,
    FLOORS,
    GAP,
    HELD_OUT,
    MATERIALS,
    MAX_OBJECTS,
    RADII,
    SHAPES,
    SIZES,
    SceneRange,
    Split,
    TableScene,
    allowed_colours,
)

FOOTPRINT = max(solid.footprint for solid in SOLIDS.values())
"""Of the widest shape of unit size."""
_CANDIDATES = 40
_NUMBERS = 128 + 2 * MAX_OBJECTS * _CANDIDATES


class _Uniforms:
    """Columns of numbers in [0, 1), taken in a fixed order by the scenes and by the cameras."""

    def __init__(self, seed: int, items: Sequence[str], purpose: str, columns: int) -> None:
        rows = [torch.rand(columns, generator=generator(seed, i, purpose)) for i in items]
        self.rows = torch.stack(rows) if rows else torch.empty(0, columns)
        self.used = 0

    def take(self, count: int) -> Float[Tensor, "b count"]:
        self.used += count
        return self.rows[:, self.used - count : self.used]

    def between(self, ends: tuple[float, float]) -> Float[Tensor, " b"]:
        return ends[0] + (ends[1] - ends[0]) * self.take(1)[:, 0]

    def choose(
        self, names: Sequence[str], universe: Sequence[str], count: int
    ) -> Int[Tensor, "b count"]:
        """Indices in `universe` of evenly drawn names."""
        indices = torch.tensor([universe.index(name) for name in names])
        return indices[(self.take(count) * len(names)).long()]


def item_key(split: Split, index: int, attempt: int = 0) -> str:
    """The identity that an item's random numbers are derived from."""
    return f"{split}/{index}/{attempt}"


def _keys(split: Split, first: int, count: int) -> list[str]:
    return [item_key(split, index) for index in range(first, first + count)]


def _draw_cameras(seed: int, keys: Sequence[str], scene_range: SceneRange) -> dict[str, Tensor]:
    u = _Uniforms(seed, keys, "tabletop camera", 8)
    return {
        "distance": u.between(scene_range.camera_distance),
        "elevation": u.between(scene_range.camera_elevation) * (math.pi / 180),
        "azimuth": u.between(scene_range.camera_azimuth) * (math.pi / 180),
        "view_height": u.between(scene_range.view_height),
    }


_LOOK_AT_HEIGHT = 0.45


def cameras_of(
    seed: int, keys: Sequence[str], scene_range: SceneRange, height: int, width: int
) -> Camera:
    """The cameras of the items with the given keys (see `item_key`)."""
    drawn = _draw_cameras(seed, keys, scene_range)
    distance, elevation, azimuth = drawn["distance"], drawn["elevation"], drawn["azimuth"]
    unit = torch.stack(
        [elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], dim=-1
    )
    target = torch.tensor([0.0, 0.0, _LOOK_AT_HEIGHT]).expand_as(unit)
    pose = look_at(target + distance[:, None] * unit, target, torch.tensor([0.0, 0.0, 1.0]))
    fov = 2 * torch.atan(drawn["view_height"] / 2 / distance) * (180 / math.pi)
    return Camera(intrinsics_from_fov(fov, height, width, scene_range.aspect), pose, width, height)


def sample_cameras(
    seed: int,
    first: int,
    count: int,
    scene_range: SceneRange,
    *,
    size: int | tuple[int, int] = 64,
    split: Split = "train",
) -> Camera:
    """The cameras of items first .. first + count - 1; `sample_scenes` frames objects for them.

    Args:
        size: side, or (height, width), of the images in pixels; the view does not depend on it.
    """
    height, width = (size, size) if isinstance(size, int) else size
    return cameras_of(seed, _keys(split, first, count), scene_range, height, width)


def _draw_followers(
    seed: int, keys: Sequence[str], share: float
) -> tuple[Bool[Tensor, "b 5"], Bool[Tensor, "b 5"]]:
    """Which objects take the shape, and which the colour, of the first one (SceneRange.alike).

    A colour is drawn by its place among those that the split allows for a shape, so that a follower
    of another shape may have the neighbouring one.
    """
    u = _Uniforms(seed, keys, "tabletop alike", 1 + 2 * MAX_OBJECTS)
    chosen = u.take(1) < share
    return chosen & (u.take(MAX_OBJECTS) < 0.5), chosen & (u.take(MAX_OBJECTS) < 0.5)


def _draw_colours(
    u: _Uniforms,
    shape: Int[Tensor, "b 5"],
    followers: Bool[Tensor, "b 5"],
    scene_range: SceneRange,
    split: Split,
) -> Int[Tensor, "b 5"]:
    """Colours that the split allows for the shapes; the test split favours the held-out pairs."""
    numbers, favoured, favour = u.take(MAX_OBJECTS), u.take(1), u.take(MAX_OBJECTS)
    numbers = torch.where(followers, numbers[:, :1], numbers)
    colour = torch.zeros_like(shape)
    for name in scene_range.shapes:
        allowed = allowed_colours(split, name, scene_range.colours)
        indices = torch.tensor([COLOURS.index(c) for c in allowed])
        chosen = indices[(numbers * len(allowed)).long()]
        if split == "test" and HELD_OUT[name] in scene_range.colours:
            held_out = torch.tensor(COLOURS.index(HELD_OUT[name]))
            chosen = torch.where((favoured < 0.3) & (favour < 0.5), held_out, chosen)
        colour = torch.where(shape == SHAPES.index(name), chosen, colour)
    return colour


def _place(
    u: _Uniforms,
    wanted: Int[Tensor, " b"],
    radius: Float[Tensor, "b 5"],
    camera: Camera,
    scene_range: SceneRange,
) -> tuple[Float[Tensor, "b 5 2"], Bool[Tensor, "b 5"]]:
    """Positions in the frame that keep objects apart whatever their shapes, and which were found.

    Each object takes the first of a fixed number of candidates that fits, so the time is bounded;
    an object without one is left out. The first object falls back to the middle of the table.
    """
    b = wanted.shape[0]
    half = scene_range.view_height[1] / 2
    forward = camera.world_from_camera[:, :2, 2]
    forward = forward / forward.norm(dim=-1, keepdim=True)
    right = camera.world_from_camera[:, :2, 0]
    positions, placed = torch.zeros(b, MAX_OBJECTS, 2), torch.zeros(b, MAX_OBJECTS).bool()
    for slot in range(MAX_OBJECTS):
        offsets = u.take(2 * _CANDIDATES).reshape(b, _CANDIDATES, 2) * 2 - 1
        across = offsets[..., :1] * half * scene_range.aspect
        along = offsets[..., 1:] * half * 1.15
        candidates = across * right[:, None] + along * forward[:, None]
        own = radius[:, slot, None, None]
        fits = in_frame(camera, candidates, own[..., 0], scene_range.aspect)
        distance = (candidates[:, :, None] - positions[:, None]).norm(dim=-1)
        apart = distance >= FOOTPRINT * (own + radius[:, None]) + GAP
        apart &= separate_in_view(camera, candidates, own, positions, radius[:, None])
        fits &= (apart | ~placed[:, None]).all(dim=-1)
        if slot == 0:
            candidates[:, -1] = torch.where(fits.any(dim=1)[:, None], candidates[:, -1], 0.0)
            fits[:, -1] |= ~fits.any(dim=1)
        best = fits.int().argmax(dim=1)
        rows = torch.arange(b)
        positions[:, slot] = candidates[rows, best]
        placed[:, slot] = fits[rows, best] & (slot < wanted)
    return positions, placed


def in_frame(
    camera: Camera,
    positions: Float[Tensor, "b n 2"],
    radii: Float[Tensor, " b #n"],
    aspect: float = 1.0,
) -> Bool[Tensor, "b n"]:
    """Whether objects at the places lie inside the camera's central frame, nearly whole."""
    radii = radii.expand(positions.shape[:2])
    pixels, depth = camera.project(torch.cat([positions, radii[..., None]], dim=-1))
    half = min(camera.height, camera.width / aspect) / 2
    principal = camera.intrinsics[:, None, 2:]
    offset = (pixels - principal).abs() / half
    extent = camera.intrinsics[:, :1] * radii / depth / half
    limit = torch.tensor([aspect, 1.0], device=positions.device)
    return (offset + 1.05 * extent[..., None] <= limit).all(dim=-1)


def separate_in_view(
    camera: Camera,
    positions: Float[Tensor, "b n 2"],
    radii: Float[Tensor, " b #n 1"],
    others: Float[Tensor, "b 5 2"],
    other_radii: Float[Tensor, "b 1 #5"],
) -> Bool[Tensor, "b n 5"]:
    """Whether objects at two places would leave each other in sight, by their middles' distance."""
    images, extents = [], []
    for place, radius in ((positions, radii[..., 0]), (others, other_radii[:, 0])):
        radius = radius.expand(place.shape[:2])
        pixels, depth = camera.project(torch.cat([place, radius[..., None]], dim=-1))
        images.append(pixels)
        extents.append(camera.intrinsics[:, :1] * radius / depth)
    distance = (images[0][:, :, None] - images[1][:, None]).norm(dim=-1)
    a, b = extents[0][:, :, None], extents[1][:, None]
    return distance >= 0.8 * torch.maximum(a, b) + 0.3 * torch.minimum(a, b)


def scenes_of(
    seed: int, keys: Sequence[str], scene_range: SceneRange, split: Split = "train"
) -> TableScene:
    """The scenes of the items with the given keys (see `item_key`)."""
    u = _Uniforms(seed, keys, "tabletop scene", _NUMBERS)
    camera = cameras_of(seed, keys, scene_range, 64, 64)
    azimuth = _draw_cameras(seed, keys, scene_range)["azimuth"]
    fewest, most = scene_range.objects
    wanted = (u.between((fewest, most + 1))).long()
    shape = u.choose(scene_range.shapes, SHAPES, MAX_OBJECTS)
    same_shape, same_colour = _draw_followers(seed, keys, scene_range.alike)
    shape = torch.where(same_shape, shape[:, :1], shape)
    colour = _draw_colours(u, shape, same_colour, scene_range, split)
    sun_azimuth = azimuth + u.between(scene_range.light_azimuth) * (math.pi / 180)
    sun_elevation = u.between(scene_range.light_elevation) * (math.pi / 180)
    sun = torch.stack(
        [
            sun_elevation.cos() * sun_azimuth.cos(),
            sun_elevation.cos() * sun_azimuth.sin(),
            sun_elevation.sin(),
        ],
        dim=-1,
    )
    tint = scene_range.light_tint * (2 * u.take(2) - 1)
    white = torch.stack([1 + tint[:, 0], torch.ones(len(keys)), 1 + tint[:, 1]], dim=-1)
    attributes = {
        "material": u.choose(scene_range.materials, MATERIALS, MAX_OBJECTS),
        "size": u.choose(scene_range.sizes, SIZES, MAX_OBJECTS),
        "yaw": u.take(MAX_OBJECTS) * (2 * math.pi),
        "floor_pattern": u.choose(scene_range.floor_patterns, FLOOR_PATTERNS, 1)[:, 0],
        "floor_colour": u.choose(scene_range.floors, FLOORS, 1)[:, 0],
        "floor_radius": u.between(scene_range.floor_radius),
        "floor_fade": u.between(scene_range.floor_fade),
        "background_pattern": u.choose(scene_range.background_patterns, BACKGROUND_PATTERNS, 1)[
            :, 0
        ],
        "background_colour": u.choose(scene_range.backgrounds, BACKGROUNDS, 1)[:, 0],
        "light_kind": torch.zeros(len(keys), dtype=torch.long),
        "light_direction": sun,
        "light_strength": u.between(scene_range.light_strength)[:, None] * white,
        "ambient": u.between(scene_range.ambient)[:, None] * white,
    }
    radius = torch.tensor(RADII)[attributes["size"]]
    position, placed = _place(u, wanted, radius, camera, scene_range)
    return TableScene(present=placed, shape=shape, colour=colour, position=position, **attributes)


def sample_scenes(
    seed: int, first: int, count: int, scene_range: SceneRange, *, split: Split = "train"
) -> TableScene:
    """Scenes of items first .. first + count - 1: objects apart from each other and in the frame.

    Item i depends only on (seed, split, i). Held-out pairs of shape and colour occur only in the
    test split, where three scenes in ten favour them.
    """
    return scenes_of(seed, _keys(split, first, count), scene_range, split)
