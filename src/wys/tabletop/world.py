"""Table-top scenes as data, and the ranges that they are drawn from.

The table is the plane z = 0, z points up, lengths are in world units (a large sphere has radius
0.72). Objects stand on the table and are turned about z only. Colours called albedo are linear; the
renderer shows their square root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.tabletop.shapes import SOLIDS

Split = Literal["train", "validation", "test"]
"""Training, choices made while developing, and published figures."""

MAX_OBJECTS = 5
SHAPES = tuple(SOLIDS)
MATERIALS = ("rubber", "metal")
SIZES = ("small", "large")
RADII = (0.43, 0.72)
"""World radius of each size."""

RGB = tuple[float, float, float]


def _albedo(red: int, green: int, blue: int) -> RGB:
    return (red / 255, green / 255, blue / 255)


COLOUR_ALBEDO: dict[str, RGB] = {
    "gray": _albedo(87, 87, 87),
    "red": _albedo(173, 35, 35),
    "blue": _albedo(42, 75, 215),
    "green": _albedo(29, 105, 20),
    "brown": _albedo(129, 74, 25),
    "purple": _albedo(129, 38, 192),
    "cyan": _albedo(41, 208, 208),
    "yellow": _albedo(255, 238, 51),
    "orange": _albedo(245, 110, 8),
    "pink": _albedo(250, 120, 165),
    "white": _albedo(235, 235, 235),
    "black": _albedo(10, 10, 10),
}
"""Object colours. The first eight are those of CLEVR (Johnson et al. 2017)."""
COLOURS = tuple(COLOUR_ALBEDO)

FLOOR_ALBEDO: dict[str, RGB] = {
    "gray": (0.46, 0.46, 0.46),
    "white": (0.85, 0.85, 0.85),
    "black": (0.03, 0.03, 0.03),
    "red": (0.55, 0.09, 0.09),
    "green": (0.13, 0.42, 0.13),
    "blue": (0.10, 0.22, 0.62),
    "yellow": (0.80, 0.66, 0.14),
    "brown": (0.33, 0.17, 0.08),
    "purple": (0.34, 0.13, 0.50),
    "pink": (0.85, 0.42, 0.55),
}
FLOORS = tuple(FLOOR_ALBEDO)
FLOOR_PATTERNS = ("plain", "checker", "gradient")

BACKGROUND_ALBEDO: dict[str, RGB] = {
    "gray": (0.40, 0.40, 0.40),
    "white": (0.92, 0.92, 0.92),
    "black": (0.012, 0.012, 0.012),
    "red": (0.55, 0.07, 0.07),
    "green": (0.12, 0.40, 0.14),
    "blue": (0.16, 0.35, 0.80),
    "yellow": (0.85, 0.72, 0.18),
    "orange": (0.85, 0.36, 0.08),
    "purple": (0.32, 0.12, 0.50),
    "pink": (0.88, 0.45, 0.58),
}
BACKGROUNDS = tuple(BACKGROUND_ALBEDO)
BACKGROUND_PATTERNS = ("plain", "gradient")


@dataclass(frozen=True)
class Light:
    """A kind of light: what multiplies the sun, the ambient light and the background."""

    sun: RGB
    ambient: RGB
    background: RGB


LIGHTS: dict[str, Light] = {
    "neutral": Light((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    "night": Light((0.10, 0.13, 0.24), (0.14, 0.17, 0.30), (0.05, 0.065, 0.14)),
    "day": Light((1.75, 1.75, 1.70), (1.7, 1.7, 1.75), (1.7, 1.7, 1.7)),
    "sunset": Light((1.25, 0.60, 0.22), (0.95, 0.62, 0.42), (1.1, 0.62, 0.33)),
    "cool": Light((0.50, 0.75, 1.25), (0.55, 0.80, 1.25), (0.55, 0.78, 1.2)),
}
"""What a light edit sets. Scenes are drawn under the neutral light."""
LIGHT_KINDS = tuple(LIGHTS)

HELD_OUT: dict[str, str] = {
    "sphere": "cyan",
    "cube": "purple",
    "cylinder": "yellow",
    "cone": "red",
    "capsule": "green",
    "torus": "blue",
}
"""Shape to colour: pairs that occur in the test split only, before and after an edit."""

GAP = 0.1
"""Least free distance between two objects, whatever their shapes become."""


def table(values: Sequence[Any], like: Tensor) -> Tensor:
    """A constant table as float32 on the device of `like`."""
    return torch.tensor(values, dtype=torch.float32, device=like.device)


@dataclass(frozen=True)
class TableScene:
    """A batch of scenes. Names are stored as indices into the tuples of this module.

    Rows of absent objects hold arbitrary valid values.
    """

    present: Bool[Tensor, "b 5"]
    """Which of the object slots hold an object."""
    shape: Int[Tensor, "b 5"]
    """Index in SHAPES."""
    colour: Int[Tensor, "b 5"]
    """Index in COLOURS."""
    material: Int[Tensor, "b 5"]
    """Index in MATERIALS."""
    size: Int[Tensor, "b 5"]
    """Index in SIZES."""
    position: Float[Tensor, "b 5 2"]
    """Where the object's axis meets the table."""
    yaw: Float[Tensor, "b 5"]
    """Turn about z in radians."""
    floor_pattern: Int[Tensor, " b"]
    """Index in FLOOR_PATTERNS."""
    floor_colour: Int[Tensor, " b"]
    """Index in FLOORS."""
    floor_radius: Float[Tensor, " b"]
    """Distance from the origin up to which the floor is opaque."""
    floor_fade: Float[Tensor, " b"]
    """Width of the ring over which it fades into the background."""
    background_pattern: Int[Tensor, " b"]
    """Index in BACKGROUND_PATTERNS."""
    background_colour: Int[Tensor, " b"]
    """Index in BACKGROUNDS."""
    light_kind: Int[Tensor, " b"]
    """Index in LIGHT_KINDS."""
    light_direction: Float[Tensor, "b 3"]
    """Unit vector towards the sun."""
    light_strength: Float[Tensor, "b 3"]
    """RGB irradiance of the neutral sun."""
    ambient: Float[Tensor, "b 3"]
    """RGB of the neutral ambient light."""

    def __len__(self) -> int:
        return self.present.shape[0]

    def __getitem__(self, index: Any) -> TableScene:
        """The scenes at `index` (slice, list or tensor) of the batch."""
        if isinstance(index, int):
            index = [index]
        return self._map(lambda x: x[index])

    def to(self, device: torch.device | str) -> TableScene:
        """The same scenes on another device."""
        return self._map(lambda x: x.to(device))

    def clone(self) -> TableScene:
        """A copy that shares no memory."""
        return self._map(torch.clone)

    def _map(self, function: Any) -> TableScene:
        return replace(self, **{f.name: function(getattr(self, f.name)) for f in fields(self)})

    @property
    def radius(self) -> Float[Tensor, "b 5"]:
        """World radius of each object's size."""
        return table(RADII, self.present)[self.size]

    @property
    def albedo(self) -> Float[Tensor, "b 5 3"]:
        """Linear colour of each object."""
        return table(list(COLOUR_ALBEDO.values()), self.present)[self.colour]


def join(scenes: Sequence[TableScene]) -> TableScene:
    """One batch of several."""
    names = [f.name for f in fields(TableScene)]
    return TableScene(**{n: torch.cat([getattr(s, n) for s in scenes]) for n in names})


@dataclass(frozen=True)
class SceneRange:
    """What scenes and cameras are drawn from; pairs of numbers are the ends of an even spread."""

    objects: tuple[int, int] = (1, 5)
    """Fewest and most objects; fewer are placed where there is no room."""
    shapes: tuple[str, ...] = SHAPES
    """Shapes, from SHAPES."""
    colours: tuple[str, ...] = COLOURS
    """Object colours, from COLOURS."""
    materials: tuple[str, ...] = MATERIALS
    """Materials, from MATERIALS."""
    sizes: tuple[str, ...] = SIZES
    """Sizes, from SIZES."""
    floor_patterns: tuple[str, ...] = FLOOR_PATTERNS
    """Floor patterns, from FLOOR_PATTERNS."""
    floors: tuple[str, ...] = FLOORS
    """Floor colours, from FLOORS."""
    background_patterns: tuple[str, ...] = BACKGROUND_PATTERNS
    """Background patterns, from BACKGROUND_PATTERNS."""
    backgrounds: tuple[str, ...] = BACKGROUNDS
    """Background colours, from BACKGROUNDS."""
    floor_radius: tuple[float, float] = (3.8, 5.2)
    """Extent of the opaque floor."""
    floor_fade: tuple[float, float] = (0.2, 2.0)
    """Width of the floor's soft edge."""
    light_azimuth: tuple[float, float] = (-160.0, 160.0)
    """Degrees from behind the camera to the sun, seen from above."""
    light_elevation: tuple[float, float] = (30.0, 75.0)
    """Degrees of the sun above the table."""
    light_strength: tuple[float, float] = (0.38, 0.65)
    """Irradiance of the sun."""
    light_tint: float = 0.12
    """Largest relative deviation of the sun's red and blue from its green."""
    ambient: tuple[float, float] = (0.12, 0.24)
    """Ambient light."""
    camera_distance: tuple[float, float] = (8.5, 12.0)
    """Distance of the camera from the middle of the table."""
    camera_elevation: tuple[float, float] = (18.0, 45.0)
    """Degrees of the camera above the table."""
    camera_azimuth: tuple[float, float] = (0.0, 360.0)
    """Degrees of the camera about z."""
    view_height: tuple[float, float] = (4.8, 6.0)
    """World height that the image spans at the middle of the table; sets the field of view."""
    aspect: float = 1.0
    """Width / height of the frame that holds the objects."""
    new_floors: tuple[str, ...] = FLOORS
    """Colours that edits give the floor."""
    new_backgrounds: tuple[str, ...] = BACKGROUNDS
    """Colours that edits give the background."""
    alike: float = 0.0
    """Share of the scenes whose objects take after the first one in shape or colour, so that it
    mostly takes two words together to tell them apart."""
    by_place: float = 0.0
    """Share of the objects that are named by their place wherever one singles them out, instead
    of now and then."""


FULL = SceneRange()
"""Everything the world offers."""

PLAIN = SceneRange(
    objects=(1, 4),
    colours=COLOURS[:10],
    floor_patterns=("plain",),
    floors=("gray", "white", "red", "green", "blue", "yellow"),
    background_patterns=("plain",),
    backgrounds=("gray", "white", "black", "blue", "green", "orange"),
    floor_radius=(4.0, 5.0),
    floor_fade=(0.5, 2.0),
    light_azimuth=(-110.0, 110.0),
    light_elevation=(40.0, 70.0),
    light_strength=(0.45, 0.6),
    light_tint=0.04,
    ambient=(0.14, 0.2),
    camera_distance=(9.5, 10.5),
    camera_elevation=(25.0, 38.0),
    view_height=(4.9, 5.5),
    new_floors=("gray", "white", "red", "green", "blue", "yellow"),
    new_backgrounds=("gray", "white", "black", "blue", "green", "orange"),
)
"""What a small editor learns on a CPU: plain floors and backgrounds, moderate light and views."""

CLOSE_UP = replace(
    PLAIN, objects=(1, 4), view_height=(2.5, 3.0), floor_radius=(1.9, 2.5), floor_fade=(0.25, 1.0)
)
"""PLAIN from so near that objects are as large at 64 pixels as those of PLAIN at 128."""

CLEVR = SceneRange(
    objects=(3, 5),
    shapes=("sphere", "cube", "cylinder"),
    colours=COLOURS[:8],
    floor_patterns=("plain",),
    floors=("gray",),
    background_patterns=("plain",),
    backgrounds=("gray",),
    floor_radius=(3.5, 4.0),
    floor_fade=(3.0, 4.0),
    light_azimuth=(-80.0, 80.0),
    light_elevation=(45.0, 65.0),
    light_strength=(0.5, 0.62),
    light_tint=0.02,
    ambient=(0.18, 0.24),
    camera_distance=(10.0, 11.5),
    camera_elevation=(24.0, 34.0),
    view_height=(5.2, 5.8),
    aspect=1.5,
    new_floors=("gray", "white", "red", "green", "blue", "yellow"),
    new_backgrounds=("gray", "white", "black", "blue", "green", "orange"),
)
"""The look of CLEVR: gray floor and background, its eight colours and three shapes, wide frames."""


def allowed_colours(split: Split, shape: str, colours: Sequence[str]) -> list[str]:
    """The colours that objects of a shape may have in a split."""
    return [c for c in colours if split == "test" or HELD_OUT[shape] != c]
