"""Instructions in words: how objects are named so that one is meant, and how edits are phrased.

A `Description` is data; `refers_to` says which objects it fits, `describe` finds descriptions that
fit one object only, and `instruction` puts an edit into a sentence. Each kind of edit has phrasings
for training, others for validation and others again for the test split.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import torch

from wys.camera import Camera
from wys.tabletop.edits import (
    Add,
    ChangeBackground,
    ChangeFloor,
    ChangeLight,
    ChangeMaterial,
    ChangeShape,
    Edit,
    Keep,
    Recolour,
    Remove,
    Resize,
)
from wys.tabletop.phrasings import (
    ADD,
    AFTER,
    ASIDES,
    BACKGROUND,
    BEFORE,
    FLOOR,
    FLOOR_PATTERN,
    GROW,
    LIGHT,
    MATERIAL,
    RECOLOUR,
    REMOVE,
    SHAPE,
    SHRINK,
    UNHEARD_AFTER,
    UNHEARD_BEFORE,
    Phrasings,
)
from wys.tabletop.world import (
    COLOURS,
    MATERIALS,
    SHAPES,
    SIZES,
    Split,
    TableScene,
    allowed_colours,
)

POSITIONS = ("leftmost", "rightmost", "closest", "farthest")
"""Extremes as the camera sees them: across the image, and in depth."""

_IN_DEPTH = POSITIONS[2:]
_DEPTH_FIRST = 4.0
"""How much rather an object is named by its depth where places are wanted: fewer stand out by it,
and an image shows it less plainly."""
_CLEARLY = 0.12
"""By how much of the frame's half width, or of the depth in tens, an extreme must stand out."""


class Thing(NamedTuple):
    """A present object as words see it."""

    slot: int
    size: str
    colour: str
    material: str
    shape: str
    across: float
    """Horizontal place in the image: -1 is the left edge and 1 the right one, for square images."""
    depth: float
    """Distance along the camera's z axis in world units."""


@dataclass(frozen=True)
class Description:
    """The words that name an object; None is a word left out."""

    size: str | None = None
    colour: str | None = None
    material: str | None = None
    shape: str | None = None
    position: str | None = None
    """One of POSITIONS among the objects that the other words fit."""


def things(scene: TableScene, camera: Camera) -> list[list[Thing]]:
    """The present objects of every scene."""
    height = scene.radius[..., None]
    pixels, depth = camera.project(torch.cat([scene.position, height], dim=-1))
    half = min(camera.height, camera.width) / 2
    across = (pixels[..., 0] - camera.intrinsics[:, None, 2]) / half
    columns = (scene.present, scene.size, scene.colour, scene.material, scene.shape, across, depth)
    result = []
    for rows in zip(*(column.tolist() for column in columns), strict=True):
        result.append(
            [
                Thing(slot, SIZES[s], COLOURS[c], MATERIALS[m], SHAPES[k], x, z)
                for slot, (present, s, c, m, k, x, z) in enumerate(zip(*rows, strict=True))
                if present
            ]
        )
    return result


def matching(objects: Sequence[Thing], description: Description) -> list[int]:
    """Slots of the objects that a description fits.

    An extreme that does not stand out clearly fits no object.
    """
    fitting = [
        thing
        for thing in objects
        if description.size in (None, thing.size)
        and description.colour in (None, thing.colour)
        and description.material in (None, thing.material)
        and description.shape in (None, thing.shape)
    ]
    if description.position is None or not fitting:
        return [thing.slot for thing in fitting]
    sign = 1 if description.position in ("leftmost", "closest") else -1
    if description.position in ("leftmost", "rightmost"):
        ranked = sorted((sign * thing.across, thing.slot) for thing in fitting)
    else:
        ranked = sorted((sign * thing.depth / 10, thing.slot) for thing in fitting)
    if len(ranked) > 1 and ranked[1][0] - ranked[0][0] < _CLEARLY:
        return []
    return [ranked[0][1]]


def refers_to(scene: TableScene, camera: Camera, description: Description) -> list[list[int]]:
    """Slots that a description fits in every scene, as its camera sees it; one slot is a name."""
    return [matching(objects, description) for objects in things(scene, camera)]


_WORDS = ("size", "colour", "material", "shape")


def describe(
    objects: Sequence[Thing], slot: int, draw: random.Random, by_place: float = 0.0
) -> Description | None:
    """A description that fits the object in `slot` only; None where its twins hide it.

    One word is preferred, most often the shape or the colour; sometimes more words than are needed
    are used, and sometimes a position; with probability `by_place` always one, if any fits.
    """
    thing = next(thing for thing in objects if thing.slot == slot)
    unique: list[tuple[float, Description]] = []
    for count in range(1, len(_WORDS) + 1):
        for words in combinations(_WORDS, count):
            description = Description(**{word: getattr(thing, word) for word in words})
            if matching(objects, description) == [slot]:
                unique.append((_weight(words), description))
    if len(objects) > 1:
        for position in POSITIONS:
            for words, weight in (((), 0.4), (("shape",), 0.6), (("colour",), 0.3)):
                same = {word: getattr(thing, word) for word in words}
                if matching(objects, Description(**same)) == [slot]:
                    continue  # The position would say nothing.
                description = Description(**same, position=position)
                if matching(objects, description) == [slot]:
                    unique.append((weight, description))
    if not unique:
        return None
    if by_place > 0 and draw.random() < by_place:
        places = [
            (weight * (_DEPTH_FIRST if named.position in _IN_DEPTH else 1.0), named)
            for weight, named in unique
            if named.position is not None
        ]
        unique = places or unique
    weights = [weight for weight, _ in unique]
    return draw.choices([description for _, description in unique], weights)[0]


def describe_absent(
    objects: Sequence[Thing],
    shapes: Sequence[str],
    colours: Sequence[str],
    split: Split,
    draw: random.Random,
) -> Description | None:
    """A description that fits no object of the scene, by shape, colour or a pair of the split's."""
    allowed = {shape: allowed_colours(split, shape, colours) for shape in shapes}
    pairs = [(c, s) for c in colours for s in shapes if c in allowed[s]]
    several: list[tuple[float, list[Description]]] = [
        (3.0, [Description(shape=s) for s in shapes]),
        (2.0, [Description(colour=c) for c in colours]),
        (4.0, [Description(colour=c, shape=s) for c, s in pairs]),
    ]
    absent = [(w, [d for d in all_ if not matching(objects, d)]) for w, all_ in several]
    absent = [(weight, fitting) for weight, fitting in absent if fitting]
    if not absent:
        return None
    weights = [weight for weight, _ in absent]
    return draw.choice(draw.choices([fitting for _, fitting in absent], weights)[0])


def _weight(words: tuple[str, ...]) -> float:
    """How often a set of words is used to name an object that it singles out."""
    if words == ("shape",):
        return 5.0
    if words == ("colour",):
        return 3.0
    if len(words) == 1:
        return 0.7
    if words == ("colour", "shape"):
        return 4.0
    return 1.0 / len(words) if "shape" in words else 0.2


SHAPE_WORDS = {
    "sphere": ("sphere", "sphere", "ball"),
    "cube": ("cube", "cube", "block", "box"),
    "cylinder": ("cylinder", "cylinder", "cylinder", "tube"),
    "cone": ("cone",),
    "capsule": ("capsule", "capsule", "pill"),
    "torus": ("torus", "ring", "donut"),
}
COLOUR_WORDS = {
    "gray": ("gray", "grey"),
    "purple": ("purple", "purple", "violet"),
    "cyan": ("cyan", "cyan", "turquoise"),
}
MATERIAL_WORDS = {"rubber": ("rubber", "matte"), "metal": ("metal", "metallic", "shiny")}
SIZE_WORDS = {"small": ("small", "small", "tiny", "little"), "large": ("large", "big")}
_BEFORE = {
    "leftmost": ("leftmost",),
    "rightmost": ("rightmost",),
    "closest": ("closest", "nearest"),
    "farthest": ("farthest", "most distant"),
}
_AFTER = {
    "leftmost": ("on the far left", "furthest to the left"),
    "rightmost": ("on the far right", "furthest to the right"),
    "closest": ("closest to the camera", "nearest to the camera", "at the very front"),
    "farthest": ("farthest from the camera", "furthest away", "at the very back"),
}
_BESIDE = {
    "left": ("to the left of", "left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right side of"),
    "front": ("in front of",),
    "behind": ("behind",),
}


def colour_word(colour: str, draw: random.Random) -> str:
    """A word for a colour."""
    return draw.choice(COLOUR_WORDS.get(colour, (colour,)))


def phrase(description: Description, draw: random.Random) -> str:
    """The noun phrase of a description, without an article."""
    words = []
    after = ""
    if description.position is not None:
        if draw.random() < 0.5:
            words.append(draw.choice(_BEFORE[description.position]))
        else:
            after = " " + draw.choice(_AFTER[description.position])
    if description.size is not None:
        words.append(draw.choice(SIZE_WORDS[description.size]))
    if description.colour is not None:
        words.append(colour_word(description.colour, draw))
    if description.material is not None:
        words.append(draw.choice(MATERIAL_WORDS[description.material]))
    if description.shape is None:
        words.append(draw.choice(("object", "object", "thing")))
    else:
        words.append(draw.choice(SHAPE_WORDS[description.shape]))
    return " ".join(words) + after


_FLOOR_WORDS = ("floor", "floor", "ground", "table")
_BACKGROUND_WORDS = ("background", "background", "backdrop")
_STUFF_WORDS = {"rubber": ("rubber", "matte rubber"), "metal": ("metal", "shiny metal")}
_PATTERN_WORDS = {
    "plain": ("plain",),
    "checker": ("checkered", "checkerboard"),
    "gradient": ("gradient",),
}


_PRECEDED, _FOLLOWED = 0.4, 0.35
"""Shares of the sentences that words are put before, and after, but for those of the test split."""


def _phrasings(edit: Edit) -> Phrasings:
    match edit:
        case Keep():
            return _phrasings(edit.wish)
        case Recolour():
            return RECOLOUR
        case ChangeMaterial():
            return MATERIAL
        case ChangeShape():
            return SHAPE
        case Resize():
            return GROW if edit.size == "large" else SHRINK
        case Remove():
            return REMOVE
        case Add():
            return ADD
        case ChangeFloor():
            return FLOOR if edit.pattern is None else FLOOR_PATTERN
        case ChangeBackground():
            return BACKGROUND
        case ChangeLight():
            return LIGHT[edit.light]


def _with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words


def instruction(
    edit: Edit, description: Description | None, split: Split, draw: random.Random
) -> str:
    """The sentence that asks for an edit; `description` names the object that it concerns."""
    if isinstance(edit, Keep):
        edit = edit.wish
    gaps = {"it": phrase(description, draw)} if description is not None else {}
    match edit:
        case Recolour():
            gaps["colour"] = colour_word(edit.colour, draw)
        case ChangeMaterial():
            gaps["material"] = draw.choice(MATERIAL_WORDS[edit.material])
            gaps["stuff"] = draw.choice(_STUFF_WORDS[edit.material])
        case ChangeShape():
            gaps["shape"] = draw.choice(SHAPE_WORDS[edit.shape])
        case Add():
            new = Description(edit.size, edit.colour, edit.material, edit.shape)
            gaps["a_new"] = _with_article(phrase(new, draw))
            gaps["side"] = draw.choice(_BESIDE[edit.side])
        case ChangeFloor():
            gaps["floor"] = draw.choice(_FLOOR_WORDS)
            if edit.colour is not None:
                gaps["colour"] = colour_word(edit.colour, draw)
            if edit.pattern is not None:
                gaps["pattern"] = draw.choice(_PATTERN_WORDS[edit.pattern])
                gaps["a_pattern"] = _with_article(gaps["pattern"])
        case ChangeBackground():
            gaps["background"] = draw.choice(_BACKGROUND_WORDS)
            gaps["colour"] = colour_word(edit.colour, draw)
    if "colour" in gaps:
        gaps["a_colour"] = _with_article(gaps["colour"])
    phrasings = _phrasings(edit)
    sentence = draw.choice(phrasings.of(split))
    words = sentence.format(**gaps)
    if split == "train":
        return surrounded(words, BEFORE if sentence in phrasings.orders else ASIDES, AFTER, draw)
    if split == "validation":
        return surrounded(words, UNHEARD_BEFORE, UNHEARD_AFTER, draw)
    return words


def surrounded(words: str, leads: Sequence[str], tails: Sequence[str], draw: random.Random) -> str:
    """A sentence as people might put it: with or without words around it."""
    before = draw.choice(leads) if draw.random() < _PRECEDED else ""
    after = draw.choice(tails) if draw.random() < _FOLLOWED else ""
    return " ".join(part for part in (before, words, after) if part)


class _First(random.Random):
    """Draws the first of everything, and nothing that is only sometimes there."""

    def choice(self, seq: Any) -> Any:
        return seq[0]

    def random(self) -> float:
        return 1.0


def plainly(edit: Edit, description: Description | None) -> str:
    """The simplest sentence that asks for an edit: of training, without words around it."""
    return instruction(edit, description, "train", _First())
