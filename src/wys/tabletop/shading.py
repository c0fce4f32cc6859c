"""The light of table-top scenes: what colour a ray brings back.

Lambert and Blinn-Phong under a sun with hard shadows and a hemispherical ambient light; metal also
mirrors the scene once. Colours are linear. There is no noise, and no ray knows of another: what an
edit does not touch keeps its colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wys.tabletop.intersection import Indices, Scalars, Vectors, World, closest, normals_at, take
from wys.tabletop.shapes import dot
from wys.tabletop.world import FLOOR_PATTERNS, MAX_OBJECTS

_OFFSET = 1e-3  # Secondary rays start this far above the surface, in world units.
_TILE = 0.9  # Side of a floor tile in world units.


@dataclass(frozen=True)
class _Meeting:
    """What a list of rays meets first."""

    d: Vectors
    scene_of: Indices
    distance: Scalars  # to an object; infinite elsewhere
    column: Indices  # the object's column in the world, where the distance is finite
    on_floor: Int[Tensor, " f"]  # rays that meet the floor
    floor_point: Float[Tensor, "3 f"]
    floor_distance: Float[Tensor, " f"]
    opaque: Float[Tensor, " f"]  # the floor's share, against the background
    on_object: Int[Tensor, " m"]  # rays that meet an object
    point: Float[Tensor, "3 m"]  # lifted off the surface
    normal: Float[Tensor, "3 m"]


def _meet(world: World, o: Vectors, d: Vectors, scene_of: Indices) -> _Meeting:
    distance, column = closest(world, o, d, scene_of)
    hit = distance < torch.inf
    floor = torch.nonzero(~hit & (d[2] < -1e-6) & (o[2] > 0))[:, 0]
    start, direction, scenes = take(o, floor), take(d, floor), scene_of[floor]
    reach = -start[2] / direction[2]
    p = start + reach * direction
    edge = (p[0] * p[0] + p[1] * p[1]).sqrt() - world.floor_radius[scenes]
    edge = (edge / world.floor_fade[scenes]).clamp(0, 1)
    opaque = 1 - edge * edge * (3 - 2 * edge)
    kept = torch.nonzero(opaque > 0)[:, 0]
    objects = torch.nonzero(hit)[:, 0]
    q = take(o, objects) + distance[objects] * take(d, objects)
    normal = normals_at(world, q, column[objects])
    return _Meeting(
        d=d,
        scene_of=scene_of,
        distance=distance,
        column=column,
        on_floor=floor[kept],
        floor_point=take(p, kept),
        floor_distance=reach[kept],
        opaque=opaque[kept],
        on_object=objects,
        point=q + _OFFSET * normal,
        normal=normal,
    )


def _mirror_rays(world: World, meeting: _Meeting) -> tuple[Indices, Vectors, Vectors, Indices]:
    """Which of the met objects' points are metal, and the rays that they mirror."""
    objects = meeting.on_object
    metal = torch.nonzero(world.metal[meeting.column[objects]])[:, 0]
    rays = objects[metal]
    d, normal = take(meeting.d, rays), take(meeting.normal, metal)
    mirrored = d - 2 * dot(normal, d) * normal
    return metal, take(meeting.point, metal), mirrored, meeting.scene_of[rays]


def _sunlit(
    world: World, meetings: list[_Meeting]
) -> list[tuple[Float[Tensor, " _"], Float[Tensor, " _"]]]:
    """Per meeting the cosine under which the sun reaches floor and objects; 0 in shadow."""
    points, scenes, cosines, counts = [], [], [], []
    for meeting in meetings:
        of_floor = meeting.scene_of[meeting.on_floor]
        of_objects = meeting.scene_of[meeting.on_object]
        points += [meeting.floor_point, meeting.point]
        scenes += [of_floor, of_objects]
        cosines.append(world.sun_direction[2][of_floor])
        cosines.append(dot(meeting.normal, take(world.sun_direction, of_objects)).clamp(min=0))
        counts += [len(of_floor), len(of_objects)]
    cosine, scene_of = torch.cat(cosines), torch.cat(scenes)
    facing = torch.nonzero(cosine > 0)[:, 0]
    start, scene_of = take(torch.cat(points, dim=1), facing), scene_of[facing]
    distance, _ = closest(world, start, take(world.sun_direction, scene_of), scene_of)
    lit = torch.zeros_like(cosine)
    lit[facing] = torch.where(torch.isinf(distance), cosine[facing], 0.0)
    parts = lit.split(counts)
    return list(zip(parts[::2], parts[1::2], strict=True))


def _backdrop(world: World, d: Vectors, scene_of: Indices) -> Vectors:
    """The background behind the table, by the height that the ray looks to."""
    height = ((d[2] + 0.42) / 0.32).clamp(0, 1)
    low, high = take(world.background[0], scene_of), take(world.background[1], scene_of)
    return low + height * (high - low)


def _surroundings(world: World, d: Vectors, scene_of: Indices) -> Vectors:
    """What a mirror sees where no object and no floor is: backdrop, dim sky and two soft boxes."""
    sun, direction = take(world.sun, scene_of), take(world.sun_direction, scene_of)
    sky = _backdrop(world, d, scene_of) * (0.9 - 0.75 * d[2].clamp(0, 1))
    # Four boxes stand around the table, half way up, one of them under the sun: cos 4a > 0.
    lengths = (d[0] * d[0] + d[1] * d[1]) * (direction[0] ** 2 + direction[1] ** 2)
    cosine2 = (d[0] * direction[0] + d[1] * direction[1]).square() / lengths.clamp(min=1e-9)
    around = 8 * cosine2 * (cosine2 - 1) + 1
    upwards = 1 - (d[2] - 0.55).abs() / 0.3
    box = (4 * around + 1).clamp(0, 1) * (5 * upwards).clamp(0, 1)
    return sky + 1.5 * box * sun


def _floor_tone(world: World, x: Tensor, y: Tensor, scene_of: Indices) -> Vectors:
    first = take(world.floor[0], scene_of)
    if not world.patterned:
        return first
    second = take(world.floor[1], scene_of)
    pattern = world.floor_pattern[scene_of]
    odd = (torch.floor(x / _TILE) + torch.floor(y / _TILE)) % 2
    distance = ((x * x + y * y).sqrt() / world.floor_radius[scene_of]).clamp(0, 1)
    checker, gradient = FLOOR_PATTERNS.index("checker"), FLOOR_PATTERNS.index("gradient")
    share = torch.where(pattern == checker, odd, 0.0)
    share = torch.where(pattern == gradient, distance, share)
    return first + share * (second - first)


def _object_colour(
    world: World,
    meeting: _Meeting,
    lit: Float[Tensor, " m"],
    mirrors: tuple[Int[Tensor, " k"], Float[Tensor, "3 k"]],
) -> Float[Tensor, "3 m"]:
    """Colour of the met objects; `mirrors` says which points are metal and what they mirror."""
    d = take(meeting.d, meeting.on_object)
    scene_of, column = meeting.scene_of[meeting.on_object], meeting.column[meeting.on_object]
    normal = meeting.normal
    to_sun, sun = take(world.sun_direction, scene_of), take(world.sun, scene_of)
    half = to_sun - d
    shine = (dot(normal, half) / dot(half, half).sqrt().clamp(min=1e-6)).clamp(min=0)
    shine = torch.where(lit > 0, shine.square().square().square(), 0.0)
    albedo = take(world.albedo, column)
    ambient = take(world.ambient, scene_of) * (0.6 + 0.4 * normal[2])
    diffuse = albedo * (ambient + sun * lit)
    colour = diffuse + sun * (0.05 * shine)
    metal, seen = mirrors
    cosine = -dot(take(normal, metal), take(d, metal)).clamp(-1, 0)
    grazing = (1 - cosine).square().square() * (1 - cosine)
    tint = 0.06 + 0.94 * take(albedo, metal)
    fresnel = tint + (1 - tint) * (0.35 * grazing)
    glint = shine[metal].square().square().square().square()
    highlight = 2.5 * take(sun, metal) * glint
    colour[:, metal] = 0.3 * take(diffuse, metal) + fresnel * seen + highlight
    return colour


def _colour(
    world: World,
    meeting: _Meeting,
    behind: Vectors,
    lit: tuple[Float[Tensor, " f"], Float[Tensor, " m"]],
    mirrors: tuple[Int[Tensor, " k"], Float[Tensor, "3 k"]],
) -> Vectors:
    """Colour along rays in front of what is `behind` floor and objects."""
    colour = behind.clone()
    scenes, p = meeting.scene_of[meeting.on_floor], meeting.floor_point
    light = take(world.ambient, scenes) + take(world.sun, scenes) * lit[0]
    floor = _floor_tone(world, p[0], p[1], scenes) * light
    back = take(behind, meeting.on_floor)
    colour[:, meeting.on_floor] = back + meeting.opaque * (floor - back)
    colour[:, meeting.on_object] = _object_colour(world, meeting, lit[1], mirrors)
    return colour


def radiance(
    world: World, o: Vectors, d: Vectors, scene_of: Indices
) -> tuple[Vectors, Scalars, Indices]:
    """Linear colour along rays from above the table, distance to what they meet, and object ids.

    Ids are slot + 1, or 0; the distance is infinite where most of the light is the background's.
    Metal seen in metal mirrors only the surroundings.
    """
    first = _meet(world, o, d, scene_of)
    metal, *mirrored = _mirror_rays(world, first)
    second = _meet(world, *mirrored)
    again, _, twice_mirrored, scenes = _mirror_rays(world, second)
    sunlit = _sunlit(world, [first, second])
    far = _surroundings(world, twice_mirrored, scenes)
    behind = _surroundings(world, second.d, second.scene_of)
    seen = _colour(world, second, behind, sunlit[1], (again, far))
    colour = _colour(world, first, _backdrop(world, d, scene_of), sunlit[0], (metal, seen))
    distance = first.distance.clone()
    solid = torch.where(first.opaque > 0.5, first.floor_distance, torch.inf)
    distance[first.on_floor] = solid
    ids = torch.where(first.distance < torch.inf, first.column % MAX_OBJECTS + 1, 0)
    return colour, distance, ids
