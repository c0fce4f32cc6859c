"""Edits of table-top scenes as data, and the one rule that decides what each leaves open.

An edit names what changes; `apply` gives the edited scenes, which the renderer turns into the exact
truth. What an instruction does not say is fixed here: where an added object stands, what the second
colour of a floor is (see the ray tracer), how dark night is (see `world.LIGHTS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wys.camera import Camera
from wys.tabletop.sampling import FOOTPRINT, in_frame, separate_in_view
from wys.tabletop.shapes import SOLIDS
from wys.tabletop.world import (
    BACKGROUNDS,
    COLOURS,
    FLOOR_PATTERNS,
    FLOORS,
    GAP,
    LIGHT_KINDS,
    MATERIALS,
    MAX_OBJECTS,
    RADII,
    SHAPES,
    SIZES,
    TableScene,
)

Kind = Literal[
    "recolour",
    "material",
    "shape",
    "size",
    "remove",
    "add",
    "floor",
    "background",
    "light",
    "absent",
]
KINDS: tuple[Kind, ...] = get_args(Kind)[:-1]
"""The kinds that change something. "absent" names an object that is not there."""
LOCAL_KINDS: tuple[Kind, ...] = KINDS[:6]
"""The kinds that change one object; the others change the whole image."""

Side = Literal["left", "right", "front", "behind"]
SIDES: tuple[Side, ...] = get_args(Side)
"""Where an added object stands, seen from the camera."""

ADDED_GAP = 0.45
"""Free distance between an added object and the one that it stands beside, in world units."""


@dataclass(frozen=True)
class Recolour:
    """Give an object another colour."""

    slot: int
    colour: str


@dataclass(frozen=True)
class ChangeMaterial:
    """Make an object of another material."""

    slot: int
    material: str


@dataclass(frozen=True)
class ChangeShape:
    """Give an object another shape; all else stays."""

    slot: int
    shape: str


@dataclass(frozen=True)
class Resize:
    """Give an object another size."""

    slot: int
    size: str


@dataclass(frozen=True)
class Remove:
    """Take an object away."""

    slot: int


@dataclass(frozen=True)
class Add:
    """Put a new object beside another, into the first free slot, turned like its neighbour."""

    beside: int
    side: Side
    shape: str
    colour: str
    material: str
    size: str


@dataclass(frozen=True)
class ChangeFloor:
    """Give the floor a colour, a pattern or both; what is None stays."""

    colour: str | None = None
    pattern: str | None = None


@dataclass(frozen=True)
class ChangeBackground:
    """Give the background another colour; it keeps its pattern."""

    colour: str


@dataclass(frozen=True)
class ChangeLight:
    """Replace the light by one of `world.LIGHTS`."""

    light: str


@dataclass(frozen=True)
class Keep:
    """Change nothing: what is wished for concerns an object that is not there."""

    wish: Recolour | ChangeMaterial | ChangeShape | Resize | Remove
    """What the instruction asks for; its slot means nothing."""


Edit = (
    Recolour
    | ChangeMaterial
    | ChangeShape
    | Resize
    | Remove
    | Add
    | ChangeFloor
    | ChangeBackground
    | ChangeLight
    | Keep
)


def target_slot(edit: Edit) -> int | None:
    """The slot of the object that the edit changes, or that it names as a neighbour."""
    match edit:
        case Add():
            return edit.beside
        case ChangeFloor() | ChangeBackground() | ChangeLight() | Keep():
            return None
        case _:
            return edit.slot


def ground_axes(camera: Camera) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 2"]]:
    """Unit directions on the table that lead right and away, seen from the camera."""
    right, away = camera.world_from_camera[:, :2, 0], camera.world_from_camera[:, :2, 2]
    away = away / away.norm(dim=-1, keepdim=True)
    return right / right.norm(dim=-1, keepdim=True), away


def places(scene: TableScene, camera: Camera) -> Float[Tensor, "b slots sides shapes sizes 2"]:
    """Where an object added beside another one stands, by neighbour, side, shape and size.

    ADDED_GAP of free table is between the two; twice as much where the new one stands behind, so
    that it can be seen.
    """
    right, away = ground_axes(camera)
    directions = torch.stack([-right, right, -away, away], dim=1)
    device = scene.yaw.device
    footprints = torch.tensor([s.footprint for s in SOLIDS.values()], device=device)
    new = footprints[:, None] * torch.tensor(RADII, device=device)
    gaps = ADDED_GAP * torch.tensor([1.0, 1.0, 1.0, 2.0], device=device)
    old = footprints[scene.shape] * scene.radius
    reach = old[:, :, None, None, None] + gaps[:, None, None] + new
    offset = directions[:, None, :, None, None] * reach[..., None]
    return scene.position[:, :, None, None, None] + offset


def free_places(
    scene: TableScene, camera: Camera, aspect: float = 1.0
) -> Bool[Tensor, "b slots sides shapes sizes"]:
    """Which of `places` keep the new object in the frame, clear of all others, and all in sight."""
    spots = places(scene, camera)
    b = len(scene)
    shape = spots.shape[:-1]
    flat = spots.reshape(b, -1, 2)
    device = scene.yaw.device
    footprints = torch.tensor([s.footprint for s in SOLIDS.values()], device=device)
    radii = torch.tensor(RADII, device=device)
    new_footprint = (footprints[:, None] * radii).expand(shape).reshape(b, -1, 1)
    new_radius = radii.expand(shape).reshape(b, -1, 1)
    old_footprint = (footprints[scene.shape] * scene.radius)[:, None]
    distance = (flat[:, :, None] - scene.position[:, None]).norm(dim=-1)
    free = distance >= new_footprint + old_footprint + GAP
    free &= separate_in_view(camera, flat, new_radius, scene.position, scene.radius[:, None])
    free |= ~scene.present[:, None]
    result = free.all(dim=-1) & in_frame(camera, flat, new_radius[..., 0], aspect)
    room = (~scene.present).any(dim=1)
    return result.reshape(shape) & (scene.present & room[:, None])[:, :, None, None, None]


def free_to_grow(scene: TableScene, camera: Camera, aspect: float = 1.0) -> Bool[Tensor, "b slots"]:
    """Which objects have room for the largest size: on the table, in the frame and in sight."""
    largest = torch.full_like(scene.radius, max(RADII))
    distance = torch.cdist(scene.position, scene.position)
    free = distance >= FOOTPRINT * (largest[..., None] + scene.radius[:, None]) + GAP
    free &= separate_in_view(
        camera, scene.position, largest[..., None], scene.position, scene.radius[:, None]
    )
    itself = torch.eye(MAX_OBJECTS, dtype=torch.bool, device=free.device)
    free |= itself | ~scene.present[:, None]
    return free.all(dim=-1) & in_frame(camera, scene.position, largest, aspect) & scene.present


def apply(scene: TableScene, edits: Sequence[Edit], camera: Camera) -> TableScene:
    """The scenes after `edits[i]` was made to scene i, seen by camera i.

    Raises:
        ValueError: an object is added where no slot is free, or the numbers do not agree.
    """
    if len(edits) != len(scene):
        raise ValueError(f"There are {len(edits)} edits for {len(scene)} scenes; give one each.")
    after = scene.clone()
    for i, edit in enumerate(edits):
        match edit:
            case Recolour():
                after.colour[i, edit.slot] = COLOURS.index(edit.colour)
            case ChangeMaterial():
                after.material[i, edit.slot] = MATERIALS.index(edit.material)
            case ChangeShape():
                after.shape[i, edit.slot] = SHAPES.index(edit.shape)
            case Resize():
                after.size[i, edit.slot] = SIZES.index(edit.size)
            case Remove():
                after.present[i, edit.slot] = False
            case Add():
                slot = _free_slot(scene, i)
                spots = places(scene[i], camera[i : i + 1])
                after.present[i, slot] = True
                after.shape[i, slot] = SHAPES.index(edit.shape)
                after.colour[i, slot] = COLOURS.index(edit.colour)
                after.material[i, slot] = MATERIALS.index(edit.material)
                after.size[i, slot] = SIZES.index(edit.size)
                after.yaw[i, slot] = scene.yaw[i, edit.beside]
                after.position[i, slot] = spots[
                    0,
                    edit.beside,
                    SIDES.index(edit.side),
                    SHAPES.index(edit.shape),
                    SIZES.index(edit.size),
                ]
            case ChangeFloor():
                if edit.colour is not None:
                    after.floor_colour[i] = FLOORS.index(edit.colour)
                if edit.pattern is not None:
                    after.floor_pattern[i] = FLOOR_PATTERNS.index(edit.pattern)
            case ChangeBackground():
                after.background_colour[i] = BACKGROUNDS.index(edit.colour)
            case ChangeLight():
                after.light_kind[i] = LIGHT_KINDS.index(edit.light)
    return after


def _free_slot(scene: TableScene, i: int) -> int:
    for slot in range(MAX_OBJECTS):
        if not scene.present[i, slot]:
            return slot
    raise ValueError(f"Scene {i} holds {MAX_OBJECTS} objects already; remove one before adding.")
