"""What a camera shows of a scene and its edits: in each mode, with each edit at its strength."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wys.apps.scene_data import mask_of
from wys.apps.scene_results import depth_image, depth_range
from wys.camera import Camera
from wys.image import draw_outline, overlay_heat
from wys.nerf.layering import Look
from wys.nerf.region import Region
from wys.nerf.rendering import Rendering
from wys.nerf.scene import Scene
from wys.relevance import Threshold

Mode = Literal["colour", "original", "edited", "relevance", "mask", "depth"]
"""colour: every edit at its strength; original: none; edited: all in full."""

Cancelled = Callable[[], bool]
BAND = 8192  # Rays between two looks at whether the picture is still wanted.


@dataclass(frozen=True)
class Place:
    """Where an instruction matters: what the modes relevance and mask show."""

    scene: Scene
    """Holds the relevance field."""
    region: Region | None
    """What space may change; None: where the relevance is at least the threshold."""
    threshold: Threshold
    stretched: bool = False
    """Whether each view's relevance is scaled to [0, 1] first."""


@dataclass(frozen=True)
class ShownLayer:
    """An edit as it is shown."""

    name: str
    place: Place
    """With the field after the edit."""
    room: Region | None
    """Where that field takes the place of what was there; None: everywhere."""
    strength: float = 1.0
    """0: what was there before; 1: the edit; between: a mixture of the two pictures."""
    stamp: str = ""
    """Tells it from another edit of the same name."""


@dataclass(frozen=True)
class Shot:
    """What one camera sees."""

    rendering: Rendering
    mask: Bool[Tensor, "1 h w"]
    """Where the instruction matters that was last previewed or carried out."""

    def picture(self, mode: Mode) -> Float[Tensor, "3 h w"]:
        """The picture in a mode; its colours where there is no relevance to show."""
        colour = self.rendering.rgb.clamp(0, 1)
        if mode == "depth":
            near, far = depth_range([self.rendering.depth], [self.rendering.opacity])
            return depth_image(self.rendering.depth, self.rendering.opacity, near, far)
        if self.rendering.relevance is None:
            return colour
        if mode == "relevance":
            return overlay_heat(colour, self.rendering.relevance)
        if mode == "mask":
            return draw_outline(torch.where(self.mask, colour, 0.35 * colour), self.mask)
        return colour


@dataclass(frozen=True)
class Stack:
    """A fitted scene with its edits, and perhaps a preview of the next one."""

    base: Scene
    layers: tuple[ShownLayer, ...] = ()
    preview: Place | None = None

    def with_strengths(self, strengths: Mapping[str, float]) -> Stack:
        """The same with the strengths of some edits, by their names."""
        known = (replace(x, strength=strengths.get(x.name, x.strength)) for x in self.layers)
        return replace(self, layers=tuple(known))

    @property
    def place(self) -> Place | None:
        """Of the preview or, without one, of the last edit."""
        if self.preview is not None:
            return self.preview
        return self.layers[-1].place if self.layers else None

    def shoot(
        self, camera: Camera, mode: Mode, cancelled: Cancelled = lambda: False
    ) -> Shot | None:
        """What one camera sees; None where it was cancelled on the way."""
        bands = []
        for band in row_bands(camera):
            if cancelled():
                return None
            bands.append(self._shoot(band, mode))
        shown = _joined([shown for shown, _ in bands])
        mask = torch.zeros_like(shown.depth, dtype=torch.bool)
        place = self._place_in(mode)
        if place is not None and place.scene.relevance is not None:
            # Of the whole picture: a threshold's rule and a stretched scale depend on all of it.
            looked_at = _joined([looked_at for _, looked_at in bands])
            mask = mask_of(looked_at, camera, place.region, place.threshold, place.stretched)
        return Shot(shown, mask)

    def _place_in(self, mode: Mode) -> Place | None:
        """The place that a mode shows."""
        return self.place if mode in ("relevance", "mask") else None

    def _shoot(self, camera: Camera, mode: Mode) -> tuple[Rendering, Rendering]:
        """What is shown, and what the mask is made of."""
        layers = [] if mode == "original" else list(self.layers)
        if mode == "edited":
            layers = [replace(layer, strength=1.0) for layer in layers]
        layers = [layer for layer in layers if layer.strength > 0]
        whole = [i for i, x in enumerate(layers) if x.room is None and x.strength == 1]
        # An edit of all of space in full hides what was before it.
        bottom = layers[whole[-1]].place.scene if whole else self.base
        above = layers[whole[-1] + 1 :] if whole else layers
        look = Look(((bottom, None), *((x.place.scene, x.room) for x in above)))
        place = self._place_in(mode)
        relevance = None if place is None else place.scene.relevance
        last = look.scene
        look = look.with_scene(Scene(last.radiance, relevance, background=last.background))

        stages = list(look.stages(camera))
        shown = stages[0]
        for layer, before, after in zip(above, stages, stages[1:], strict=False):
            shown = _mixed(shown, before, after, layer.strength)
        # An edit's region is seen past what stood in front of it before the edit.
        own = self.preview is None and bool(above) and above[-1].place is place
        return shown, stages[-2 if own else -1]


def _mixed(shown: Rendering, before: Rendering, after: Rendering, strength: float) -> Rendering:
    """`shown` where an edit changes nothing, else a mixture with what it makes of `before`."""
    changed = (before.rgb != after.rgb).any(dim=0)
    changed |= ((before.depth != after.depth) | (before.opacity != after.opacity))[0]

    def mix(old: Tensor, new: Tensor) -> Tensor:
        return torch.where(changed, new if strength == 1 else torch.lerp(old, new, strength), old)

    return Rendering(
        rgb=mix(shown.rgb, after.rgb),
        depth=mix(shown.depth, after.depth),
        opacity=mix(shown.opacity, after.opacity),
        relevance=after.relevance,
    )


def _joined(bands: Sequence[Rendering]) -> Rendering:
    """Bands of rows as one picture."""
    relevance = [band.relevance for band in bands if band.relevance is not None]
    return Rendering(
        rgb=torch.cat([band.rgb for band in bands], dim=-2),
        depth=torch.cat([band.depth for band in bands], dim=-2),
        opacity=torch.cat([band.opacity for band in bands], dim=-2),
        relevance=torch.cat(relevance, dim=-2) if relevance else None,
    )


def row_bands(camera: Camera, rays: int = BAND) -> Iterator[Camera]:
    """One camera's picture as cameras of some rows each, from the top down."""
    rows = max(1, rays // camera.width)
    for top in range(0, camera.height, rows):
        lens = camera.intrinsics - camera.intrinsics.new_tensor([0, 0, 0, top])
        yield replace(camera, intrinsics=lens, height=min(rows, camera.height - top))


def along_axis(camera: Camera, depth: Float[Tensor, "1 h w"]) -> Float[Tensor, "h w"]:
    """Distances along rays as distances along the viewing axis, as graphics programs count."""
    ahead = camera.world_from_camera[:3, 2]
    return depth[0] * (camera.rays().directions * ahead).sum(-1)
