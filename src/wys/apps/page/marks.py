"""What a visitor marks on the image: a threshold and brush strokes, and the mask they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wys.errors import WysError

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

    from wys.masks import Mask
    from wys.relevance import RelevanceMap

MOST_POINTS = 50_000
"""Points of all strokes together; far more than a hand draws."""


@dataclass(frozen=True)
class Stroke:
    """One movement of the brush."""

    adds: bool
    """Whether it adds to the mask, or takes from it."""
    radius: float
    """In pixels of the image."""
    points: tuple[tuple[float, float], ...]
    """Where the brush went: (x, y) in pixels of the image."""


@dataclass(frozen=True)
class Marks:
    """A visitor's corrections of the map's own mask."""

    threshold: float | None = None
    """None leaves the editor's own."""
    strokes: tuple[Stroke, ...] = ()
    """In the order in which they were drawn; later ones lie on top."""

    @staticmethod
    def read(value: Any) -> Marks:
        """What the browser sent, checked: anyone can send anything."""
        try:
            value = value or {}
            threshold = value.get("threshold")
            marks = Marks(
                None if threshold is None else float(threshold),
                tuple(
                    Stroke(
                        bool(stroke["adds"]),
                        float(stroke["radius"]),
                        tuple((float(x), float(y)) for x, y in stroke["points"]),
                    )
                    for stroke in value.get("strokes") or ()
                ),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise WysError("the page sent marks that cannot be read; load it again.") from error
        numbers = [n for s in marks.strokes for n in (s.radius, *(n for p in s.points for n in p))]
        if len(numbers) > 2 * MOST_POINTS:
            raise WysError("there are too many brush strokes; clear some of them.")
        # Pillow takes no coordinates beyond 32 bits, and nobody paints a mile off the image.
        if not all(math.isfinite(n) and abs(n) < 1e6 for n in numbers):
            raise WysError("the page sent strokes that lie nowhere; clear them and paint again.")
        return marks

    def mask(self, relevance: RelevanceMap) -> Mask:
        """The map's region at the threshold, with the strokes painted on it."""
        from wys.masks import Mask

        mask = relevance.mask(self.threshold)
        if not self.strokes:
            return mask
        region = _painted(mask.at(mask.image_size)[0, 0].cpu(), self.strokes)
        return Mask.from_image(region[None, None], mask.image_size)


def _painted(region: Bool[Tensor, "h w"], strokes: tuple[Stroke, ...]) -> Bool[Tensor, "h w"]:
    """The region with the strokes, round at their ends and bends."""
    import numpy as np
    import torch
    from PIL import Image, ImageDraw

    image = Image.fromarray(region.numpy().astype(np.uint8) * 255)
    draw = ImageDraw.Draw(image)
    for stroke in strokes:
        fill, radius = 255 * stroke.adds, max(stroke.radius, 0.5)
        # Pillow counts from the centre of the first pixel, the page from its corner.
        points = [(x - 0.5, y - 0.5) for x, y in stroke.points]
        if len(points) > 1:
            draw.line(points, fill=fill, width=max(1, round(2 * radius)))
        for x, y in points:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    return torch.from_numpy(np.array(image)) > 127
