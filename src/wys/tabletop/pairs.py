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
from wys.tabletop.choices import Stage, choose_edit
from wys.tabletop.edits import (
    KINDS,
    Edit,
    Kind,
    apply,
    free_places,
    free_to_grow,
    target_slot,
)
from wys.tabletop.instructions import (
    Description,
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
    LIGHT_KINDS,
    MAX_OBJECTS,
    SceneRange,
    Split,
    TableScene,
    join,
)

CHANGED = 4
"""A pixel is in the mask where a channel changes by more than this, of 255."""

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
