"""Which edit a scene is asked for: one of a kind that the scene, its range and its split allow."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from wys.tabletop.edits import (
    SIDES,
    Add,
    ChangeBackground,
    ChangeFloor,
    ChangeLight,
    ChangeMaterial,
    ChangeShape,
    Edit,
    Keep,
    Kind,
    Recolour,
    Remove,
    Resize,
)
from wys.tabletop.instructions import Description, Thing, describe, describe_absent
from wys.tabletop.world import (
    HELD_OUT,
    LIGHT_KINDS,
    SHAPES,
    SIZES,
    SceneRange,
    Split,
    allowed_colours,
)

_WISHES = (Recolour, ChangeMaterial, ChangeShape, Resize, Remove)
"""What may be wished for an object that is not there."""


@dataclass(frozen=True)
class Stage:
    """A scene as the choice of edits needs it."""

    objects: list[Thing]
    seen: list[int]
    """Slots of objects that are seen well."""
    free: Bool[Tensor, "slots sides shapes sizes"]
    """See `edits.free_places`."""
    may_grow: list[bool]
    """See `edits.free_to_grow`."""
    floor_colour: str
    floor_pattern: str
    background_colour: str
    light: str


def _other(current: str, choices: Sequence[str], draw: random.Random) -> str | None:
    left = [choice for choice in choices if choice != current]
    return draw.choice(left) if left else None


def _favoured(held_out: str | None, chosen: str | None, split: Split, draw: random.Random) -> bool:
    """Whether the test split replaces a choice by one that makes a held-out pair."""
    return split == "test" and held_out not in (None, chosen) and draw.random() < 0.25


def _choose_local(
    kind: Kind, thing: Thing, scene_range: SceneRange, split: Split, draw: random.Random
) -> Edit | None:
    """An edit of one object that changes it within the range and the split; None if none does."""
    match kind:
        case "recolour":
            allowed = allowed_colours(split, thing.shape, scene_range.colours)
            colour = _other(thing.colour, allowed, draw)
            rare = HELD_OUT[thing.shape]
            possible = rare in allowed and rare != thing.colour
            if _favoured(rare if possible else None, colour, split, draw):
                colour = rare
            return None if colour is None else Recolour(thing.slot, colour)
        case "shape":
            shapes = [
                s
                for s in scene_range.shapes
                if thing.colour in allowed_colours(split, s, scene_range.colours)
            ]
            shape = _other(thing.shape, shapes, draw)
            pairs = [s for s in shapes if s != thing.shape and HELD_OUT[s] == thing.colour]
            if _favoured(pairs[0] if pairs else None, shape, split, draw):
                shape = pairs[0]
            return None if shape is None else ChangeShape(thing.slot, shape)
        case "material":
            material = _other(thing.material, scene_range.materials, draw)
            return None if material is None else ChangeMaterial(thing.slot, material)
        case "size":
            size = _other(thing.size, scene_range.sizes, draw)
            return None if size is None else Resize(thing.slot, size)
        case _:
            return Remove(thing.slot)


def _choose_addition(
    stage: Stage, slot: int, scene_range: SceneRange, split: Split, draw: random.Random
) -> Edit | None:
    """A new object beside the one in `slot`; None where there is no room."""
    options = [
        (side, shape, size)
        for side, shape, size in torch.nonzero(stage.free[slot]).tolist()
        if SHAPES[shape] in scene_range.shapes and SIZES[size] in scene_range.sizes
    ]
    if not options:
        return None
    # First the side: where there is room for few sizes, it would be drawn too rarely.
    side = draw.choice(sorted({option[0] for option in options}))
    _, shape, size = draw.choice([option for option in options if option[0] == side])
    colours = allowed_colours(split, SHAPES[shape], scene_range.colours)
    colour, material = draw.choice(colours), draw.choice(scene_range.materials)
    return Add(slot, SIDES[side], SHAPES[shape], colour, material, SIZES[size])


def _choose_global(
    kind: Kind, stage: Stage, scene_range: SceneRange, draw: random.Random
) -> Edit | None:
    match kind:
        case "floor":
            pattern = _other(stage.floor_pattern, scene_range.floor_patterns, draw)
            if pattern is not None and draw.random() < 0.35:
                return ChangeFloor(pattern=pattern)
            colour = _other(stage.floor_colour, scene_range.new_floors, draw)
            return None if colour is None else ChangeFloor(colour=colour)
        case "background":
            colour = _other(stage.background_colour, scene_range.new_backgrounds, draw)
            return None if colour is None else ChangeBackground(colour)
        case _:
            light = _other(stage.light, LIGHT_KINDS[1:], draw)
            return None if light is None else ChangeLight(light)


def choose_edit(
    kind: Kind, stage: Stage, scene_range: SceneRange, split: Split, draw: random.Random
) -> tuple[Edit, Description | None] | None:
    """An edit of a kind and the words for its target; None where the scene offers none."""
    if kind in ("floor", "background", "light"):
        edit = _choose_global(kind, stage, scene_range, draw)
        return None if edit is None else (edit, None)
    if kind == "absent":
        thing = draw.choice(stage.objects)
        wished: list[Kind] = ["recolour", "material", "shape", "remove"]
        kind, shapes, colours = draw.choice(wished), scene_range.shapes, scene_range.colours
        absent = describe_absent(stage.objects, shapes, colours, split, draw)
        if absent is None:
            return None
        # What is wished for is another look, and of the split, for the object that is named.
        named = thing._replace(
            shape=absent.shape or thing.shape, colour=absent.colour or thing.colour
        )
        wish = _choose_local(kind, named, scene_range, split, draw)
        return (Keep(wish), absent) if isinstance(wish, _WISHES) else None
    slots = draw.sample(stage.seen, len(stage.seen))
    for slot in slots:
        thing = next(thing for thing in stage.objects if thing.slot == slot)
        if kind == "add":
            edit = _choose_addition(stage, slot, scene_range, split, draw)
        else:
            edit = _choose_local(kind, thing, scene_range, split, draw)
            if isinstance(edit, Resize) and edit.size == "large" and not stage.may_grow[slot]:
                continue
        if edit is None:
            continue
        description = describe(stage.objects, slot, draw, scene_range.by_place)
        if description is not None:
            return edit, description
    return None
