"""The part of the latents that is denoised: a window around the mask, with a margin of context.

What the network computes far from the mask is replaced by the background after every step. Left
out, an edit costs what its window does; what is lost is what the network would have seen there.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wys.diffusion.conditioning import Conditioning
from wys.errors import WysError
from wys.masks import Box


@dataclass(frozen=True)
class WindowSettings:
    """How large the window is. Lengths are fractions."""

    margin: float = 0.15
    """Context on every side, as a share of the mask's longer side; at least two latent pixels,
    since a mask is finer in pixels and the autoencoder sees its neighbours."""
    least: float = 0.25
    """The least side, as a share of the image's: the network was not trained on tiny images."""
    most: float = 0.6
    """Where the window would be more than this share of the area, the whole is edited."""

    def __post_init__(self) -> None:
        if not (0 <= self.margin < math.inf and 0 <= self.least <= 1 and 0 <= self.most <= 1):
            raise WysError(
                "a window has a margin of 0 or more, and a least side and a largest share between "
                f"0 and 1, not {self.margin}, {self.least} and {self.most}."
            )


@dataclass(frozen=True)
class Windows:
    """One window for each of b items, all of one size, in latent pixels."""

    boxes: tuple[Box, ...]

    def crop(
        self, whole: Float[Tensor, "b c h w"] | Bool[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c hw ww"] | Bool[Tensor, "b c hw ww"]:
        """What lies in the windows, of latents or of masks."""
        if all(box == Box(0, 0, whole.shape[-1], whole.shape[-2]) for box in self.boxes):
            return whole  # As it lies in memory: kernels round by layout.
        rows = zip(whole, self.boxes, strict=True)
        return torch.stack([w[:, b.top : b.bottom, b.left : b.right] for w, b in rows])

    def crop_told(self, conditioning: Conditioning) -> Conditioning:
        """The conditioning of the windows; nothing is encoded again."""
        latents = (conditioning.z0, conditioning.image_latents)
        z0, image_latents = (self.crop(each) for each in latents)
        return replace(conditioning, z0=z0, image_latents=image_latents)

    def paste(
        self, whole: Float[Tensor, "b c h w"], parts: Float[Tensor, "b c hw ww"]
    ) -> Float[Tensor, "b c h w"]:
        """The whole with the windows filled in; latents, or what they decode to."""
        result = whole.to(parts).clone()
        for i, box in enumerate(self.boxes):
            # Image pixels to a latent pixel, where images are pasted.
            factor = parts.shape[-1] // (box.right - box.left)
            left, top = factor * box.left, factor * box.top
            height, width = parts.shape[-2:]
            result[i, :, top : top + height, left : left + width] = parts[i]
        return result


def windows(
    masks: Bool[Tensor, "b 1 h w"], unit: int, settings: WindowSettings | None
) -> list[Box]:
    """The window around each mask, by that mask alone, in its pixels.

    Args:
        masks: where to edit, at latent size.
        unit: what the network needs the sides to be multiples of.
        settings: None: everything is a window.
    """
    return [_window(mask, unit, settings) for mask in masks[:, 0]]


def _window(mask: Bool[Tensor, "h w"], unit: int, settings: WindowSettings | None) -> Box:
    height, width = mask.shape
    whole = Box(0, 0, width, height)
    if settings is None or not bool(mask.any()):
        return whole
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    spans = [(int(cells.min()), int(cells.max()) + 1) for cells in (rows, columns)]
    margin = max(2, round(settings.margin * max(last - first for first, last in spans)))
    sides = []
    for (first, last), limit in zip(spans, (height, width), strict=True):
        side = max(last - first + 2 * margin, math.ceil(settings.least * limit))
        side = min(math.ceil(side / unit) * unit, limit)
        start = max(0, min((first + last - side) // 2, limit - side))
        sides.append((start, start + side))
    (top, bottom), (left, right) = sides
    if (bottom - top) * (right - left) > settings.most * height * width:
        return whole
    return Box(left, top, right, bottom)
