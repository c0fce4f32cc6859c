"""Masks: regions of images, thresholded or drawn, at any resolution."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wys.errors import WysError


class Box(NamedTuple):
    """A rectangle of image pixels: columns left..right-1 and rows top..bottom-1."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True)
class Mask:
    """A region of b images of one size, at any resolution.

    The region is: scores >= threshold, grown, with the boxes of `include` added and, last, those of
    `exclude` taken away. It exists once: latents and pixels ask the same mask with `at`.
    """

    scores: Float[Tensor, "b 1 h w"]
    threshold: Float[Tensor, " b"]
    image_size: tuple[int, int]
    include: tuple[Box, ...] = ()
    exclude: tuple[Box, ...] = ()
    grow: float = 0.0
    """Pixels of the image by which the thresholded region grows in every direction."""
    feather: float = 0.0
    """Pixels of the image over which the composite fades in, inward from the region's edge."""

    @staticmethod
    def from_image(mask: Bool[Tensor, "b 1 h w"], image_size: tuple[int, int]) -> "Mask":
        """A mask that the user drew; raises WysError where its size is not the image's."""
        mask = mask.reshape(-1, 1, *mask.shape[-2:])
        if tuple(mask.shape[-2:]) != tuple(image_size):
            raise WysError(
                f"the mask has {mask.shape[-1]} x {mask.shape[-2]} pixels and the image "
                f"{image_size[1]} x {image_size[0]}; give a mask of the image's size."
            )
        return Mask(mask.float(), torch.full((len(mask),), 0.5, device=mask.device), image_size)

    def including(self, *boxes: Box) -> "Mask":
        """With these boxes of pixels added."""
        return replace(self, include=self.include + self._checked(boxes))

    def excluding(self, *boxes: Box) -> "Mask":
        """With these boxes of pixels taken away, whatever else adds them."""
        return replace(self, exclude=self.exclude + self._checked(boxes))

    def grown(self, pixels: float) -> "Mask":
        """With the thresholded region grown by a number of image pixels."""
        if pixels < 0:
            raise WysError(f"a mask grows by 0 pixels or more, not {pixels}.")
        return replace(self, grow=pixels)

    def feathered(self, pixels: float) -> "Mask":
        """With the composite fading in over a number of image pixels, inward from the edge."""
        if pixels < 0:
            raise WysError(f"a mask is feathered by 0 pixels or more, not {pixels}.")
        return replace(self, feather=pixels)

    def select(self, indices: list[int]) -> "Mask":
        """The masks of some of the images."""
        return replace(self, scores=self.scores[indices], threshold=self.threshold[indices])

    def emptied(self, empty: list[bool]) -> "Mask":
        """With no score at the threshold where `empty` is true; boxes of `include` remain."""
        nothing = torch.tensor(empty, device=self.threshold.device)
        return replace(self, threshold=self.threshold.masked_fill(nothing, math.inf))

    def at(self, size: tuple[int, int]) -> Bool[Tensor, "b 1 h w"]:
        """The region at a resolution (height, width).

        Upwards the scores are interpolated bilinearly and then compared. Downwards a cell belongs
        to the region where any score in it does, so that nothing thin is lost.
        """
        height, width = self.scores.shape[-2:]
        scores = self.scores
        if size[0] < height or size[1] < width:
            scores = F.adaptive_max_pool2d(scores, (min(size[0], height), min(size[1], width)))
        if scores.shape[-2:] != tuple(size):
            scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        region = scores >= self.threshold.reshape(-1, 1, 1, 1)
        if self.grow:
            radius = [
                math.ceil(self.grow * n / N) for n, N in zip(size, self.image_size, strict=True)
            ]
            region = _dilate(region, radius[0], radius[1])
        for box in self.include:
            rows, columns = self._cells(box, size, outward=True)
            region[..., rows, columns] = True
        for box in self.exclude:
            rows, columns = self._cells(box, size, outward=False)
            region[..., rows, columns] = False
        return region

    def alpha(self) -> Float[Tensor, "b 1 h w"]:
        """The weight of the edited image in the composite, at image size.

        Exactly 0 outside the region; inside it rises to 1 over `feather` pixels.
        """
        region = self.at(self.image_size)
        steps = max(1, math.ceil(self.feather))
        total, inner = region.float(), region
        for _ in range(steps - 1):
            inner = ~_dilate(~inner, 1, 1)
            total = total + inner
        return total / steps

    def crop(self, box: Box) -> "Mask":
        """The mask of a part of the images, in that part's own pixels."""
        part = self.at(self.image_size)[..., box.top : box.bottom, box.left : box.right]
        cropped = Mask.from_image(part, (box.bottom - box.top, box.right - box.left))
        return replace(cropped, feather=self.feather)

    def _checked(self, boxes: tuple[Box, ...]) -> tuple[Box, ...]:
        height, width = self.image_size
        clipped = []
        for box in boxes:
            left, top = max(0, box[0]), max(0, box[1])
            right, bottom = min(width, box[2]), min(height, box[3])
            if left >= right or top >= bottom:
                raise WysError(
                    f"the box {','.join(map(str, box))} holds no pixel of the {width} x {height} "
                    "image; give left,top,right,bottom in pixels."
                )
            clipped.append(Box(left, top, right, bottom))
        return tuple(clipped)

    def _cells(self, box: Box, size: tuple[int, int], outward: bool) -> tuple[slice, slice]:
        """The cells of a grid that a box touches (outward) or fills (not outward)."""
        first, last = (math.floor, math.ceil) if outward else (math.ceil, math.floor)
        y, x = size[0] / self.image_size[0], size[1] / self.image_size[1]
        rows = slice(first(box.top * y), max(first(box.top * y), last(box.bottom * y)))
        columns = slice(first(box.left * x), max(first(box.left * x), last(box.right * x)))
        return rows, columns


def composite(
    original: Float[Tensor, "b 3 h w"], edited: Float[Tensor, "b 3 h w"], mask: Mask
) -> Float[Tensor, "b 3 h w"]:
    """The edited image inside the mask, by its alpha; exactly the original outside."""
    alpha = mask.alpha().to(original)
    return torch.where(alpha > 0, torch.lerp(original, edited, alpha), original)


def zoom_box(
    region: Bool[Tensor, "h w"], native_size: int, margin: float = 0.5, gain: float = 1.5
) -> Box:
    """The crop in which to edit a small region: its bounds with a margin of context.

    The crop is as square as the image allows and at least half of `native_size` wide. Where it
    would bring the region nearer by less than `gain`, it is the whole image.

    Args:
        region: what to edit.
        margin: context on either side, as a share of the region's longer side.
    """
    height, width = region.shape
    rows, columns = region.any(dim=1).nonzero()[:, 0], region.any(dim=0).nonzero()[:, 0]
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max()) + 1
    side = max(bottom - top, right - left)
    side = max(round(side * (1 + 2 * margin)), native_size // 2)
    if side * gain > max(height, width):
        return Box(0, 0, width, height)
    top, bottom = _window((top + bottom) // 2, side, height)
    left, right = _window((left + right) // 2, side, width)
    return Box(left, top, right, bottom)


def _window(centre: int, side: int, limit: int) -> tuple[int, int]:
    first = max(0, min(centre - side // 2, limit - side))
    return first, min(limit, first + side)


def _dilate(region: Bool[Tensor, "b 1 h w"], rows: int, columns: int) -> Bool[Tensor, "b 1 h w"]:
    """Every pixel within so many rows and columns of the region."""
    grown = F.max_pool2d(region.float(), (2 * rows + 1, 1), stride=1, padding=(rows, 0))
    grown = F.max_pool2d(grown, (1, 2 * columns + 1), stride=1, padding=(0, columns))
    return grown > 0
