"""Reading, taught by words alone: what a sentence asks for, and of which object.

An image costs a hundred times what a sentence does. Through images a text encoder meets too few
sentences to tell what an order says from how it happens to be put; here it reads sentences that no
image is made for, and names what they ask for. The exported editor does not have this output.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from wys.tabletop.edits import (
    SIDES,
    Add,
    ChangeBackground,
    ChangeFloor,
    ChangeLight,
    ChangeMaterial,
    ChangeShape,
    Edit,
    Recolour,
    Remove,
    Resize,
)
from wys.tabletop.instructions import POSITIONS, Description, instruction
from wys.tabletop.world import (
    BACKGROUNDS,
    COLOURS,
    FLOOR_PATTERNS,
    FLOORS,
    LIGHT_KINDS,
    MATERIALS,
    SHAPES,
    SIZES,
    Split,
)

ASKED = (
    *("recolour", "material", "shape", "grow", "shrink", "remove", "add", "floor", "pattern"),
    *("background", *LIGHT_KINDS[1:]),
)
"""What can be asked for."""
FIELDS: dict[str, tuple[str, ...]] = {
    "asked": ASKED,
    "size": SIZES,
    "colour": COLOURS,
    "material": MATERIALS,
    "shape": SHAPES,
    "position": POSITIONS,
    "new_size": SIZES,
    "new_colour": COLOURS,
    "new_material": MATERIALS,
    "new_shape": SHAPES,
    "side": SIDES,
    "pattern": FLOOR_PATTERNS,
}
"""What a sentence says, by name: of the edit, of the object that it names, of what is new."""
_SAID = {"size": 0.2, "colour": 0.5, "material": 0.2, "shape": 0.65, "position": 0.2}
"""How often each word names an object."""


@dataclass(frozen=True)
class ReadingSettings:
    """How much is read beside the images."""

    sentences: int = 96
    """Sentences of a step, over all processes; 0 for none."""
    weight: float = 1.0
    """Weight of naming what they say."""


@dataclass(frozen=True)
class Sentence:
    """A sentence and what it says."""

    words: str
    said: dict[str, str]
    """Of FIELDS; what is not said is left out."""

    @property
    def labels(self) -> list[int]:
        """A class of each of FIELDS; the first is that it is not said."""
        return [
            1 + values.index(self.said[name]) if name in self.said else 0
            for name, values in FIELDS.items()
        ]


def draw_sentence(split: Split, draw: random.Random) -> Sentence:
    """A sentence in a split's phrasings, about any object: there is no scene that it has to fit."""
    asked = draw.choice(ASKED)
    named = {k: draw.choice(FIELDS[k]) for k, often in _SAID.items() if draw.random() < often}
    edit, new = _draw_edit(asked, draw)
    about = None
    if isinstance(edit, Recolour | ChangeMaterial | ChangeShape | Resize | Remove | Add):
        about = Description(**named)
    said = {"asked": asked, **(named if about is not None else {}), **new}
    return Sentence(instruction(edit, about, split, draw), said)


def _draw_edit(asked: str, draw: random.Random) -> tuple[Edit, dict[str, str]]:
    """An edit of a kind, and the new properties that its sentence names."""
    colour, material, shape = (draw.choice(of) for of in (COLOURS, MATERIALS, SHAPES))
    match asked:
        case "recolour":
            return Recolour(0, colour), {"new_colour": colour}
        case "material":
            return ChangeMaterial(0, material), {"new_material": material}
        case "shape":
            return ChangeShape(0, shape), {"new_shape": shape}
        case "grow" | "shrink":
            return Resize(0, "large" if asked == "grow" else "small"), {}
        case "remove":
            return Remove(0), {}
        case "add":
            side, size = draw.choice(SIDES), draw.choice(SIZES)
            look = {"new_size": size, "new_colour": colour, "new_material": material}
            return (
                Add(0, side, shape, colour, material, size),
                {"side": side, **look, "new_shape": shape},
            )
        case "floor":
            floor = draw.choice(FLOORS)
            return ChangeFloor(colour=floor), {"new_colour": floor}
        case "pattern":
            pattern = draw.choice(FLOOR_PATTERNS)
            return ChangeFloor(pattern=pattern), {"pattern": pattern}
        case "background":
            background = draw.choice(BACKGROUNDS)
            return ChangeBackground(background), {"new_colour": background}
        case _:
            return ChangeLight(asked), {}


class Reader(nn.Module):
    """Names what sentences say, from the text encoder's states.

    It looks at the end mark and at what fills a sentence up, which have all words before them: most
    of what the UNet attends to, too.

    Args:
        width: of the text encoder.
        end: the token that ends and fills up a sentence.
    """

    def __init__(self, width: int, end: int) -> None:
        super().__init__()
        self.end = end
        self.heads = nn.Linear(width, sum(1 + len(values) for values in FIELDS.values()))

    def forward(
        self, states: Float[Tensor, "b length width"], tokens: Int[Tensor, "b length"]
    ) -> Float[Tensor, "b k"]:
        ends = (tokens == self.end)[..., None].to(states.dtype)
        return self.heads((states * ends).sum(1) / ends.sum(1).clamp(min=1))


def split_fields(logits: Float[Tensor, "b k"]) -> dict[str, Float[Tensor, "b classes"]]:
    """The logits of each of FIELDS."""
    parts = logits.split([1 + len(values) for values in FIELDS.values()], dim=1)
    return dict(zip(FIELDS, parts, strict=True))


def reading_loss(logits: Float[Tensor, "b k"], labels: Int[Tensor, "b fields"]) -> Tensor:
    """Cross entropy, the mean over FIELDS."""
    parts = split_fields(logits.float()).values()
    each = [F.cross_entropy(part, labels[:, i]) for i, part in enumerate(parts)]
    return torch.stack(each).mean()


def label_rows(sentences: Sequence[Sentence]) -> Int[Tensor, "b fields"]:
    """The labels of sentences, one row each."""
    return torch.tensor([sentence.labels for sentence in sentences])


def read_rightly(logits: Float[Tensor, "b k"], labels: Int[Tensor, "b fields"]) -> dict[str, float]:
    """Shares of sentences: asked (what is asked for is read rightly), all (so is all they say)."""
    parts: list[Any] = [part.argmax(1) for part in split_fields(logits).values()]
    right = torch.stack(parts, dim=1) == labels
    return {"asked": float(right[:, 0].float().mean()), "all": float(right.all(1).float().mean())}
