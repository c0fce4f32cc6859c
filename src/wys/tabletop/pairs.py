"""Before/after pairs with instructions, exact masks and a known target: data without end.

Item i is a function of (seed, split, i) and of what is asked for; it never depends on the batch.
Its scene, edit and words do not depend on the size of the images either.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.camera import Camera
from wys.tabletop.edits import (
    KINDS,
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
    apply,
    free_places,
    free_to_grow,
    target_slot,
)
from wys.tabletop.instructions import (
    Description,
    Thing,
    describe,
    describe_absent,
    instruction,
    plainly,
    things,
)
from wys.tabletop.raytracer import object_ids, render
from wys.tabletop.sampling import cameras_of, item_key, scenes_of
from wys.tabletop.world import (
    BACKGROUNDS,
    FLOOR_PATTERNS,
    FLOORS,
    HELD_OUT,
    LIGHT_KINDS,
    MAX_OBJECTS,
    SHAPES,
    SIZES,
    SceneRange,
    Split,
    TableScene,
    allowed_colours,
    join,
)

CHANGED = 4
"""A pixel is in the mask where a channel changes by more than this, of 255."""

_WISHES = (Recolour, ChangeMaterial, ChangeShape, Resize, Remove)
"""What may be wished for an object that is not there."""
_PROBE = 32  # Rows of the image that decides whether an object is seen well enough.
LEAST_SHARE = 0.006
"""Share of the frame that an edited object must cover."""
ATTEMPTS = 24
"""Scenes drawn for an item until one offers its edits."""


@dataclass(frozen=True)
class Pairs:
    """A batch of edits with their truth."""

    before: Float[Tensor, "b 3 h w"]
    """Images in [0, 1]."""
    after: Float[Tensor, "b 3 h w"]
    """The exact edited images."""
    mask: Bool[Tensor, "b h w"]
    """Where any channel of the 8-bit images changes by more than CHANGED."""
    instructions: list[str]
    """What is asked for."""
    kinds: list[Kind]
    """The kind of each edit."""
    object_ids: Int[Tensor, "b h w"]
    """Object slot + 1 in the before image; 0 is floor or background."""
    after_ids: Int[Tensor, "b h w"]
    """The same in the edited image."""
    target: Int[Tensor, " b"]
    """Slot + 1 of the object that the instruction names; 0 for edits of the whole image."""
    shapes: Int[Tensor, "b 5"]
    """Index in SHAPES of the objects before the edit."""
    colours: Int[Tensor, "b 5"]
    """Index in COLOURS."""
    materials: Int[Tensor, "b 5"]
    """Index in MATERIALS."""
    after_shapes: Int[Tensor, "b 5"]
    """The same of the objects after the edit."""
    after_colours: Int[Tensor, "b 5"]
    after_materials: Int[Tensor, "b 5"]
    scenes: TableScene
    """The scenes before the edits."""
    edited: TableScene
    """The scenes after the edits."""
    cameras: Camera
    """The cameras of both."""
    edits: list[Edit]
    """What was changed."""
    descriptions: list[Description | None]
    """The words that name the target; None for edits of the whole image."""

    def __len__(self) -> int:
        return self.before.shape[0]

    @property
    def plain_instructions(self) -> list[str]:
        """The same asked for as simply as can be, whatever the split's sentences are."""
        return [plainly(*each) for each in zip(self.edits, self.descriptions, strict=True)]


def changed(
    before: Float[Tensor, "b 3 h w"], after: Float[Tensor, "b 3 h w"]
) -> Bool[Tensor, "b h w"]:
    """The mask of an edit: 8-bit values of some channel differ by more than CHANGED."""
    eight_bit = [(image * 255).round() for image in (before, after)]
    return ((eight_bit[0] - eight_bit[1]).abs() > CHANGED).any(dim=1)


def kind_of(seed: int, split: Split, index: int, kinds: Sequence[Kind] = KINDS) -> Kind:
    """The kind of an item: every len(kinds) items hold each kind once, in random order."""
    block = list(kinds)
    random.Random(f"kinds/{seed}/{split}/{index // len(kinds)}").shuffle(block)
    return block[index % len(kinds)]


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


def _stages(
    seed: int, keys: Sequence[str], scene: TableScene, scene_range: SceneRange
) -> list[Stage]:
    probe = cameras_of(seed, keys, scene_range, _PROBE, round(_PROBE * scene_range.aspect))
    ids = object_ids(scene, probe).reshape(len(scene), -1)
    shares = torch.stack([(ids == s + 1).float().mean(dim=1) for s in range(MAX_OBJECTS)], dim=1)
    visible = (shares >= LEAST_SHARE).tolist()
    free = free_places(scene, probe, scene_range.aspect)
    may_grow = free_to_grow(scene, probe, scene_range.aspect).tolist()
    surroundings = zip(
        scene.floor_colour.tolist(),
        scene.floor_pattern.tolist(),
        scene.background_colour.tolist(),
        scene.light_kind.tolist(),
        strict=True,
    )
    return [
        Stage(
            objects,
            [thing.slot for thing in objects if visible[i][thing.slot]],
            free[i],
            may_grow[i],
            FLOORS[floor],
            FLOOR_PATTERNS[pattern],
            BACKGROUNDS[background],
            LIGHT_KINDS[light],
        )
        for i, (objects, (floor, pattern, background, light)) in enumerate(
            zip(things(scene, probe), surroundings, strict=True)
        )
    ]


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
        wish = _choose_local(draw.choice(wished), thing, scene_range, split, draw)
        absent = describe_absent(stage.objects, scene_range.shapes, scene_range.colours, draw)
        if absent is None or not isinstance(wish, _WISHES):
            return None
        return Keep(wish), absent
    slots = draw.sample(stage.seen, len(stage.seen))
    for slot in slots:
        thing = next(thing for thing in stage.objects if thing.slot == slot)
        if kind == "add":
            edit = _choose_addition(stage, slot, scene_range, split, draw)
        else:
            edit = _choose_local(kind, thing, scene_range, split, draw)
            if isinstance(edit, Resize) and edit.size == "large" and not stage.may_grow[slot]:
                continue
        description = None if edit is None else describe(stage.objects, slot, draw)
        if edit is not None and description is not None:
            return edit, description
    return None


_Chosen = tuple[Edit, Description | None, str]


def _draw_scenes(
    seed: int,
    split: Split,
    scene_indices: range,
    kinds: Sequence[Kind],
    scene_range: SceneRange,
    per_scene: int,
) -> tuple[TableScene, list[str], list[list[_Chosen]]]:
    """Scenes that offer all their edits, their keys, and the edits with their instructions.

    A scene that lacks one is drawn again, by its own count of attempts: no other scene matters.
    """
    done: dict[int, tuple[TableScene, str, list[_Chosen]]] = {}
    pending = list(scene_indices)
    for attempt in range(ATTEMPTS):
        keys = [item_key(split, index, attempt) for index in pending]
        drawn = scenes_of(seed, keys, scene_range, split)
        stages = _stages(seed, keys, drawn, scene_range)
        for row, (index, key, stage) in enumerate(zip(pending, keys, stages, strict=True)):
            chosen: list[_Chosen] = []
            for item in range(index * per_scene, (index + 1) * per_scene):
                draw = random.Random(f"edit/{seed}/{split}/{item}/{attempt}")
                kind = kind_of(seed, split, item, kinds)
                choice = choose_edit(kind, stage, scene_range, split, draw)
                if choice is not None:
                    chosen.append((*choice, instruction(*choice, split, draw)))
            if len(chosen) == per_scene:
                done[index] = (drawn[row], key, chosen)
        pending = [index for index in pending if index not in done]
        if not pending:
            break
    else:
        raise ValueError(
            f"No scene of the range offers all of {', '.join(kinds)} (item {pending[0]}); "
            "widen the range or ask for other kinds."
        )
    scenes, final_keys, edits = zip(*(done[index] for index in scene_indices), strict=True)
    return join(scenes), list(final_keys), list(edits)


def make_pairs(
    seed: int,
    split: Split,
    first: int,
    count: int,
    *,
    size: int | tuple[int, int] = 64,
    scene_range: SceneRange,
    kinds: Sequence[Kind] | None = None,
    edits_per_scene: int = 1,
    samples: int = 4,
    device: torch.device | str = "cpu",
) -> Pairs:
    """Items first .. first + count - 1 of the endless data set (seed, split).

    Args:
        size: side, or (height, width), in pixels.
        scene_range: what scenes and edits are drawn from.
        kinds: the kinds of edits, in equal numbers; all by default.
        edits_per_scene: so many consecutive items share one scene, whose image is made once.
        samples: rays per antialiased pixel; 1 turns antialiasing off.
        device: where the images are made and returned.

    Raises:
        ValueError: the range offers no edit of one of the kinds, or count is not positive.
    """
    if count < 1 or edits_per_scene < 1:
        raise ValueError("count and edits_per_scene must be at least 1.")
    kinds = KINDS if kinds is None else tuple(kinds)
    height, width = (size, size) if isinstance(size, int) else size
    indices = range(first // edits_per_scene, (first + count - 1) // edits_per_scene + 1)
    scenes, keys, chosen = _draw_scenes(seed, split, indices, kinds, scene_range, edits_per_scene)
    cameras = cameras_of(seed, keys, scene_range, height, width)
    items = range(first, first + count)
    rows = [item // edits_per_scene - indices.start for item in items]
    picked = [chosen[r][item % edits_per_scene] for r, item in zip(rows, items, strict=True)]
    row = torch.tensor(rows)
    edits = [edit for edit, _, _ in picked]
    before_scenes, item_cameras = scenes[row], cameras[row]
    edited = apply(before_scenes, edits, item_cameras)
    originals = render(scenes.to(device), cameras.to(device), samples=samples)
    results = render(edited.to(device), item_cameras.to(device), samples=samples)
    row_there = row.to(device)
    before, after = originals.rgb[row_there], results.rgb
    slots = [target_slot(edit) for edit in edits]
    return Pairs(
        before=before,
        after=after,
        mask=changed(before, after),
        instructions=[words for _, _, words in picked],
        kinds=[kind_of(seed, split, item, kinds) for item in items],
        object_ids=originals.object_ids[row_there],
        after_ids=results.object_ids,
        target=torch.tensor([0 if slot is None else slot + 1 for slot in slots]),
        shapes=before_scenes.shape,
        colours=before_scenes.colour,
        materials=before_scenes.material,
        after_shapes=edited.shape,
        after_colours=edited.colour,
        after_materials=edited.material,
        scenes=before_scenes,
        edited=edited,
        cameras=item_cameras,
        edits=edits,
        descriptions=[description for _, description, _ in picked],
    )
