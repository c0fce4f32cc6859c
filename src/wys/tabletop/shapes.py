"""The solids of the tabletop world: where a ray meets them, and their normals.

Every solid has unit size, stands on the plane z = 0 and is centred on the z axis; an object scales
it by its radius, turns it about z and moves it over the table. Vectors have their components in
front, `[3, n]`, which keeps each component contiguous. An intersection takes unit directions and
returns the smallest ray parameter above `t_min`, or infinity. All but the torus are closed forms;
the torus is sphere traced (Hart 1996).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Vectors = Float[Tensor, "3 n"]
Scalars = Float[Tensor, " n"]

CUBE_HALF = 0.76
CYLINDER_RADIUS, CYLINDER_HEIGHT = 0.82, 1.5
CONE_RADIUS, CONE_HEIGHT = 1.0, 2.0
CAPSULE_RADIUS, CAPSULE_HEIGHT = 0.48, 2.3
TORUS_RADIUS, TORUS_TUBE = 0.74, 0.3
TORUS_ROUNDS, TORUS_STEPS, TORUS_TOLERANCE = 12, 5, 2e-4


@dataclass(frozen=True)
class Solid:
    """A solid of unit size."""

    intersect: Callable[[Vectors, Vectors, Scalars], Scalars]
    """(origin, unit direction, t_min) to the nearest parameter above t_min; infinity is a miss."""
    normal: Callable[[Vectors], Vectors]
    """Outward unit normal at points of the surface."""
    centre_height: float
    """Height of the bounding sphere's centre above the table."""
    bound: float
    """Radius of the bounding sphere."""
    footprint: float
    """Radius of the upright cylinder about the z axis that contains the solid."""


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product over the leading axis of length 3."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _roots(a: Scalars, half_b: Scalars, c: Scalars) -> tuple[Scalars, Scalars]:
    """Ascending real roots of a t^2 + 2 half_b t + c for a > 0; (inf, inf) where there are none."""
    discriminant = half_b * half_b - a * c
    root = discriminant.clamp(min=0).sqrt()
    miss = torch.where(discriminant < 0, torch.inf, 0.0)
    return (-half_b - root) / a + miss, (-half_b + root) / a + miss


def _nearest(candidates: list[tuple[Scalars, Tensor]], t_min: Scalars) -> Scalars:
    """Smallest candidate parameter that is valid and above `t_min`."""
    nearest = torch.full_like(t_min, torch.inf)
    for t, valid in candidates:
        nearest = torch.minimum(nearest, torch.where(valid & (t > t_min), t, torch.inf))
    return nearest


def _nonzero(x: Scalars) -> Scalars:
    """x kept away from zero, so that dividing by it stays finite."""
    return torch.where(x.abs() < 1e-9, 1e-9, x)


def _intersect_sphere(o: Vectors, d: Vectors, t_min: Scalars) -> Scalars:
    z = o[2] - 1
    half_b = o[0] * d[0] + o[1] * d[1] + z * d[2]
    c = o[0] * o[0] + o[1] * o[1] + z * z - 1
    near, far = _roots(torch.ones_like(c), half_b, c)
    hit = near < torch.inf
    return _nearest([(near, hit), (far, hit)], t_min)


def _sphere_normal(p: Vectors) -> Vectors:
    return torch.stack([p[0], p[1], p[2] - 1])


def _intersect_cube(o: Vectors, d: Vectors, t_min: Scalars) -> Scalars:
    near, far = torch.full_like(t_min, -torch.inf), torch.full_like(t_min, torch.inf)
    for axis, middle in enumerate((0.0, 0.0, CUBE_HALF)):
        inverse = 1 / _nonzero(d[axis])
        a = (middle - CUBE_HALF - o[axis]) * inverse
        b = (middle + CUBE_HALF - o[axis]) * inverse
        near = torch.maximum(near, torch.minimum(a, b))
        far = torch.minimum(far, torch.maximum(a, b))
    hit = near <= far
    return _nearest([(near, hit), (far, hit)], t_min)


def _cube_normal(p: Vectors) -> Vectors:
    q = torch.stack([p[0], p[1], p[2] - CUBE_HALF])
    magnitude = q.abs()
    x = (magnitude[0] >= magnitude[1]) & (magnitude[0] >= magnitude[2])
    y = ~x & (magnitude[1] >= magnitude[2])
    return torch.stack([x, y, ~x & ~y]) * q.sign()


def _intersect_disc(o: Vectors, d: Vectors, height: float, radius: float) -> tuple[Scalars, Tensor]:
    t = (height - o[2]) / _nonzero(d[2])
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    return t, x * x + y * y <= radius * radius


def _intersect_side(
    o: Vectors, d: Vectors, radius: float, low: float, high: float
) -> list[tuple[Scalars, Tensor]]:
    """Both meetings with the side of an upright cylinder between two heights."""
    a = (d[0] * d[0] + d[1] * d[1]).clamp(min=1e-12)
    c = o[0] * o[0] + o[1] * o[1] - radius * radius
    candidates = []
    for t in _roots(a, o[0] * d[0] + o[1] * d[1], c):
        z = o[2] + t * d[2]
        candidates.append((t, (z >= low) & (z <= high)))
    return candidates


def _intersect_cylinder(o: Vectors, d: Vectors, t_min: Scalars) -> Scalars:
    side = _intersect_side(o, d, CYLINDER_RADIUS, 0.0, CYLINDER_HEIGHT)
    top = _intersect_disc(o, d, CYLINDER_HEIGHT, CYLINDER_RADIUS)
    base = _intersect_disc(o, d, 0.0, CYLINDER_RADIUS)
    return _nearest([*side, top, base], t_min)


def _cylinder_normal(p: Vectors) -> Vectors:
    # The nearer of the three surfaces decides.
    radius = (p[0] * p[0] + p[1] * p[1]).sqrt().clamp(min=1e-9)
    from_side = (radius - CYLINDER_RADIUS).abs()
    top = ((p[2] - CYLINDER_HEIGHT).abs() < from_side).to(p.dtype)
    base = (p[2].abs() < from_side).to(p.dtype)
    side = (1 - top) * (1 - base) / radius
    return torch.stack([p[0] * side, p[1] * side, top - base])


def _intersect_cone(o: Vectors, d: Vectors, t_min: Scalars) -> Scalars:
    slope = (CONE_RADIUS / CONE_HEIGHT) ** 2
    below = CONE_HEIGHT - o[2]
    a = d[0] * d[0] + d[1] * d[1] - slope * d[2] * d[2]
    half_b = o[0] * d[0] + o[1] * d[1] + slope * below * d[2]
    c = o[0] * o[0] + o[1] * o[1] - slope * below * below
    discriminant = half_b * half_b - a * c
    # Citardauq and quadratic forms together stay accurate where a vanishes.
    q = -(half_b + torch.where(half_b < 0, -1.0, 1.0) * discriminant.clamp(min=0).sqrt())
    candidates = []
    for t in (q / _nonzero(a), c / _nonzero(q)):
        z = o[2] + t * d[2]
        candidates.append((t, (discriminant >= 0) & (z >= 0) & (z <= CONE_HEIGHT)))
    return _nearest([*candidates, _intersect_disc(o, d, 0.0, CONE_RADIUS)], t_min)


def _cone_normal(p: Vectors) -> Vectors:
    radius = (p[0] * p[0] + p[1] * p[1]).sqrt().clamp(min=1e-9)
    length = (CONE_RADIUS**2 + CONE_HEIGHT**2) ** 0.5
    horizontal, vertical = CONE_HEIGHT / length, CONE_RADIUS / length
    side = (p[2] > 1e-3).to(p.dtype)
    scale = side * horizontal / radius
    return torch.stack([p[0] * scale, p[1] * scale, side * vertical - (1 - side)])


def _intersect_capsule(o: Vectors, d: Vectors, t_min: Scalars) -> Scalars:
    low, high = CAPSULE_RADIUS, CAPSULE_HEIGHT - CAPSULE_RADIUS
    candidates = _intersect_side(o, d, CAPSULE_RADIUS, low, high)
    horizontal = o[0] * o[0] + o[1] * o[1] - CAPSULE_RADIUS**2
    for centre, sign in ((low, -1.0), (high, 1.0)):
        z = o[2] - centre
        half_b = o[0] * d[0] + o[1] * d[1] + z * d[2]
        for t in _roots(torch.ones_like(z), half_b, horizontal + z * z):
            candidates.append((t, (t < torch.inf) & ((z + t * d[2]) * sign >= 0)))
    return _nearest(candidates, t_min)


def _capsule_normal(p: Vectors) -> Vectors:
    axis = p[2].clamp(CAPSULE_RADIUS, CAPSULE_HEIGHT - CAPSULE_RADIUS)
    return torch.stack([p[0], p[1], p[2] - axis]) / CAPSULE_RADIUS


def _intersect_torus(o: Vectors, d: Vectors, t_min: Scalars) -> Scalars:
    # Only the part of the ray inside the enclosing upright cylinder is searched.
    inverse = 1 / _nonzero(d[2])
    a, b = -o[2] * inverse, (2 * TORUS_TUBE - o[2]) * inverse
    square = (d[0] * d[0] + d[1] * d[1]).clamp(min=1e-12)
    twice = 2 * (o[0] * d[0] + o[1] * d[1])
    centre = o[0] * o[0] + o[1] * o[1]
    enter, leave = _roots(square, twice / 2, centre - (TORUS_RADIUS + TORUS_TUBE) ** 2)
    start = torch.maximum(torch.maximum(torch.minimum(a, b), enter), t_min)
    end = torch.minimum(torch.maximum(a, b), leave)
    result = torch.full_like(t_min, torch.inf)
    active = torch.nonzero((start < end) & (enter < torch.inf))[:, 0]
    # Along the ray the squared distance to the axis is square t^2 + twice t + centre.
    lines = torch.stack([start, end, square, twice, centre, o[2] - TORUS_TUBE, d[2]])
    lines = lines.index_select(1, active)
    for _ in range(TORUS_ROUNDS):
        if active.numel() == 0:
            break
        t, end, square, twice, centre, height, rise = lines
        # A ray that has arrived or left stays where it is, or out; sorting them out less often
        # than at every step is cheaper.
        for _ in range(TORUS_STEPS):
            ring = torch.addcmul(centre, torch.addcmul(twice, square, t), t).clamp(min=0).sqrt()
            ring = ring - TORUS_RADIUS
            z = torch.addcmul(height, rise, t)
            distance = (torch.addcmul(ring * ring, z, z).sqrt() - TORUS_TUBE).abs()
            t = t + distance
        inside = t < end
        touches = distance < TORUS_TOLERANCE
        arrived = torch.nonzero(touches & inside)[:, 0]
        result[active[arrived]] = t[arrived]
        going = torch.nonzero(~touches & inside)[:, 0]
        active = active[going]
        lines = torch.cat([t[None], lines[1:]]).index_select(1, going)
    return result


def _torus_normal(p: Vectors) -> Vectors:
    radius = (p[0] * p[0] + p[1] * p[1]).sqrt().clamp(min=1e-9)
    scale = 1 - TORUS_RADIUS / radius
    n = torch.stack([p[0] * scale, p[1] * scale, p[2] - TORUS_TUBE])
    return n / dot(n, n).sqrt().clamp(min=1e-9)


_CONE_CENTRE = (CONE_HEIGHT**2 - CONE_RADIUS**2) / (2 * CONE_HEIGHT)

SOLIDS: dict[str, Solid] = {
    "sphere": Solid(_intersect_sphere, _sphere_normal, 1.0, 1.0, 1.0),
    "cube": Solid(_intersect_cube, _cube_normal, CUBE_HALF, CUBE_HALF * 3**0.5, CUBE_HALF * 2**0.5),
    "cylinder": Solid(
        _intersect_cylinder,
        _cylinder_normal,
        CYLINDER_HEIGHT / 2,
        (CYLINDER_RADIUS**2 + CYLINDER_HEIGHT**2 / 4) ** 0.5,
        CYLINDER_RADIUS,
    ),
    "cone": Solid(
        _intersect_cone, _cone_normal, _CONE_CENTRE, CONE_HEIGHT - _CONE_CENTRE, CONE_RADIUS
    ),
    "capsule": Solid(
        _intersect_capsule, _capsule_normal, CAPSULE_HEIGHT / 2, CAPSULE_HEIGHT / 2, CAPSULE_RADIUS
    ),
    "torus": Solid(
        _intersect_torus,
        _torus_normal,
        TORUS_TUBE,
        TORUS_RADIUS + TORUS_TUBE,
        TORUS_RADIUS + TORUS_TUBE,
    ),
}
"""The solids by name, in the order of `tabletop.world.SHAPES`."""
