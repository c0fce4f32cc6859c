"""Where rays meet the objects of table-top scenes, batched over scenes.

Rays of all scenes stand in flat lists; vectors have their components in front, `[3, n]`. A bounding
sphere test for every (ray, object) leaves a few per cent of the pairs, grouped by shape; only these
meet the exact intersections of `shapes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.tabletop.shapes import SOLIDS, Solid
from wys.tabletop.world import (
    BACKGROUND_ALBEDO,
    BACKGROUND_PATTERNS,
    FLOOR_ALBEDO,
    LIGHTS,
    MATERIALS,
    MAX_OBJECTS,
    TableScene,
    table,
)

Vectors = Float[Tensor, "3 n"]
Scalars = Float[Tensor, " n"]
Indices = Int[Tensor, " n"]


@dataclass(frozen=True)
class World:
    """Constants of the objects of a batch, one column per (scene, slot), and of its scenes."""

    position: Float[Tensor, "3 o"]
    radius: Float[Tensor, " o"]
    cosine: Float[Tensor, " o"]
    sine: Float[Tensor, " o"]
    shape: Int[Tensor, " o"]
    albedo: Float[Tensor, "3 o"]
    metal: Bool[Tensor, " o"]
    bounds: Float[Tensor, "5 4 b"]  # centre and squared radius per slot; negative where absent
    solids: list[tuple[int, Solid]]  # the shapes that occur
    slots: list[int]  # the slots in use
    sun_direction: Float[Tensor, "3 b"]
    sun: Float[Tensor, "3 b"]
    ambient: Float[Tensor, "3 b"]
    floor: Float[Tensor, "2 3 b"]  # both tones, linear
    floor_pattern: Int[Tensor, " b"]
    floor_radius: Float[Tensor, " b"]
    floor_fade: Float[Tensor, " b"]
    background: Float[Tensor, "2 3 b"]  # at the bottom and at the top, linear
    patterned: bool


def take(columns: Float[Tensor, "c n"], index: Int[Tensor, " m"]) -> Float[Tensor, "c m"]:
    """columns[:, index]; index_select is much faster on the CPU than indexing."""
    return columns.index_select(1, index)


def second_tone(albedo: Tensor) -> Tensor:
    """The other colour of a checker or gradient: darker, or lighter if the first is very dark."""
    dark = albedo.mean(dim=-1, keepdim=True) < 0.08
    return torch.where(dark, albedo + 0.25, 0.3 * albedo)


def prepare(scene: TableScene) -> World:
    radius, present = scene.radius, scene.present
    lights = list(LIGHTS.values())
    heights = table([s.centre_height for s in SOLIDS.values()], present)[scene.shape] * radius
    bounds = table([s.bound for s in SOLIDS.values()], present)[scene.shape] * radius * 1.005
    squared = torch.where(present, bounds * bounds, -1.0)
    centre = torch.stack([scene.position[..., 0], scene.position[..., 1], heights, squared], dim=0)
    position = torch.cat([scene.position, torch.zeros_like(radius)[..., None]], dim=-1)
    floor = table(list(FLOOR_ALBEDO.values()), present)[scene.floor_colour]
    backdrop = table(list(BACKGROUND_ALBEDO.values()), present)[scene.background_colour]
    gradient = scene.background_pattern == BACKGROUND_PATTERNS.index("gradient")
    top = torch.where(gradient[:, None], second_tone(backdrop), backdrop)
    light = scene.light_kind
    shown = table([k.background for k in lights], present)[light]
    metal = (scene.material == MATERIALS.index("metal")) & present
    used = present.any(dim=0).tolist()
    occurring = set(scene.shape[present].tolist())
    return World(
        position=position.reshape(-1, 3).T.contiguous(),
        radius=radius.reshape(-1),
        cosine=scene.yaw.cos().reshape(-1),
        sine=scene.yaw.sin().reshape(-1),
        shape=scene.shape.reshape(-1),
        albedo=scene.albedo.reshape(-1, 3).T.contiguous(),
        metal=metal.reshape(-1),
        bounds=centre.permute(2, 0, 1).contiguous(),
        solids=[(k, s) for k, s in enumerate(SOLIDS.values()) if k in occurring],
        slots=[slot for slot in range(MAX_OBJECTS) if used[slot]],
        sun_direction=scene.light_direction.T.contiguous(),
        sun=(scene.light_strength * table([k.sun for k in lights], present)[light]).T.contiguous(),
        ambient=(scene.ambient * table([k.ambient for k in lights], present)[light]).T.contiguous(),
        floor=torch.stack([floor.T, second_tone(floor).T]),
        floor_pattern=scene.floor_pattern,
        floor_radius=scene.floor_radius,
        floor_fade=scene.floor_fade,
        background=torch.stack([(backdrop * shown).T, (top * shown).T]),
        patterned=bool(scene.floor_pattern.any()),
    )


def _pairs(
    world: World, o: Vectors, d: Vectors, scene_of: Indices
) -> Iterator[tuple[int, Int[Tensor, " m"], Float[Tensor, " m"]]]:
    """Per slot the rays that meet the object's bounding sphere, and where they are closest."""
    for slot in world.slots:
        x, y, z, squared = world.bounds[slot].index_select(1, scene_of)
        x, y, z = x - o[0], y - o[1], z - o[2]
        along = x * d[0] + y * d[1] + z * d[2]
        away = x * x + y * y + z * z - along * along
        # Behind the start only a sphere that contains the start can still be met.
        near = (away <= squared) & ((along > 0) | (along * along <= squared - away))
        rays = torch.nonzero(near)[:, 0]
        yield slot, rays, along[rays]


def closest(
    world: World, o: Vectors, d: Vectors, scene_of: Indices
) -> tuple[Float[Tensor, " n"], Indices]:
    """Distance to the nearest object along each ray (infinite: none) and its column in `world`."""
    n = scene_of.shape[0]
    nearest = torch.full((n,), torch.inf, device=o.device)
    item = torch.zeros(n, dtype=torch.long, device=o.device)
    found = list(_pairs(world, o, d, scene_of))
    if not found:
        return nearest, item
    ray = torch.cat([rays for _, rays, _ in found])
    along = torch.cat([a for _, _, a in found])
    column = torch.cat([scene_of[rays] * MAX_OBJECTS + slot for slot, rays, _ in found])
    shape = world.shape[column]
    hits: list[tuple[Tensor, Tensor, Tensor]] = []
    for kind, solid in world.solids:
        chosen = torch.nonzero(shape == kind)[:, 0]
        if chosen.numel() == 0:
            continue
        rays, columns, start = ray[chosen], column[chosen], along[chosen]
        direction = take(d, rays)
        # Starting at the point closest to the object keeps the closed forms accurate.
        origin = take(o, rays) + start * direction
        scale = world.radius[columns]
        t = solid.intersect(
            _to_local(world, origin - take(world.position, columns), columns) / scale,
            _to_local(world, direction, columns),
            -start / scale,
        )
        hit = torch.nonzero(t < torch.inf)[:, 0]
        hits.append((rays[hit], columns[hit], start[hit] + t[hit] * scale[hit]))
    if hits:
        ray, column, distance = (torch.cat(parts) for parts in zip(*hits, strict=True))
        nearest.scatter_reduce_(0, ray, distance, "amin")
        first = torch.nonzero(distance == nearest[ray])[:, 0]
        item[ray[first]] = column[first]
    return nearest, item


def _to_local(world: World, v: Vectors, columns: Indices) -> Vectors:
    cosine, sine = world.cosine[columns], world.sine[columns]
    return torch.stack([v[0] * cosine + v[1] * sine, v[1] * cosine - v[0] * sine, v[2]])


def normals_at(world: World, p: Vectors, columns: Indices) -> Vectors:
    """Outward unit normals of the objects at points of their surfaces."""
    local = _to_local(world, p - take(world.position, columns), columns) / world.radius[columns]
    normals = torch.zeros_like(p)
    shape = world.shape[columns]
    for kind, solid in world.solids:
        chosen = torch.nonzero(shape == kind)[:, 0]
        if chosen.numel():
            normals[:, chosen] = solid.normal(take(local, chosen))
    cosine, sine = world.cosine[columns], world.sine[columns]
    x, y, z = normals
    return torch.stack([x * cosine - y * sine, x * sine + y * cosine, z])
