"""Masks: regions of images, thresholded or drawn, at any resolution."""

import itertools
import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wys.errors import WysError

MOST_LEVELS = 32
"""Steps in which a composite fades in: no eye tells more from a ramp, and each takes time."""


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

    The region is: scores >= threshold (from `softness` below it on), grown, with the boxes of
    `include` added and, last, those of `exclude` taken away. It exists once: latents and pixels ask
    the same mask with `at`.
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
    softness: float = 0.0
    """The composite fades in from scores of so much below the threshold to as much above it; by
    less for thresholds so near 0 or 1 that there is no room for it."""

    @staticmethod
    def from_image(
        mask: Bool[Tensor, "b 1 h w"] | Bool[Tensor, "1 h w"], image_size: tuple[int, int]
    ) -> "Mask":
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
        self._check_reach("grows by", pixels)
        return replace(self, grow=pixels)

    def feathered(self, pixels: float) -> "Mask":
        """With the composite fading in over a number of image pixels, inward from the edge."""
        self._check_reach("is feathered by", pixels)
        return replace(self, feather=pixels)

    def _check_reach(self, does: str, pixels: float) -> None:
        side = max(self.image_size)
        if not 0 <= pixels <= side:
            raise WysError(
                f"a mask {does} 0 pixels or more, up to the {side} of the image, not {pixels:g}."
            )

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
        lowest = (self.threshold - self._fade).reshape(-1, 1, 1, 1)
        return self._shaped((self._scores_at(size) >= lowest).float(), size) > 0

    def alpha(self) -> Float[Tensor, "b 1 h w"]:
        """The weight of the edited image in the composite, at image size.

        Exactly 0 outside the region; inside it rises to 1 with the scores, by `softness`, and over
        `feather` pixels.
        """
        size, fade = self.image_size, self._fade.reshape(-1, 1, 1, 1)
        above = self._scores_at(size) - self.threshold.reshape(-1, 1, 1, 1)
        rise = ((above + fade) / (2 * fade).clamp(min=1e-12)).clamp(0, 1)
        weight = self._shaped(torch.where(fade > 0, rise, (above >= 0).float()), size)
        pixels = max(1, math.ceil(self.feather))
        steps = min(pixels, MOST_LEVELS)
        if steps == 1:
            return weight
        region = self.at(size)
        total = region.float()
        part = _bounds(region)
        inner = region[part]
        depths = [round(pixels * step / steps) for step in range(steps)]
        for before, depth in itertools.pairwise(depths):
            inner = ~_dilate(~inner, depth - before, depth - before)
            if not inner.any():
                break
            total[part] += inner
        return weight * total / steps

    @property
    def _fade(self) -> Float[Tensor, " b"]:
        """What `softness` is at each threshold: scores are from 0 to 1, and 0 asks for all."""
        room = torch.minimum(self.threshold / 2, 1 - self.threshold)
        return room.clamp(0, self.softness)

    def _scores_at(self, size: tuple[int, int]) -> Float[Tensor, "b 1 h w"]:
        height, width = self.scores.shape[-2:]
        scores = self.scores
        if size[0] < height or size[1] < width:
            scores = F.adaptive_max_pool2d(scores, (min(size[0], height), min(size[1], width)))
        if scores.shape[-2:] != tuple(size):
            scores = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        return scores

    def _shaped(
        self, weight: Float[Tensor, "b 1 h w"], size: tuple[int, int]
    ) -> Float[Tensor, "b 1 h w"]:
        """Weights, or a region's zeros and ones, grown and with the boxes."""
        if self.grow:
            radius = [
                math.ceil(self.grow * n / N) for n, N in zip(size, self.image_size, strict=True)
            ]
            weight = _spread(weight, radius[0], radius[1])
        weight = weight.clone()
        for box in self.include:
            rows, columns = self._cells(box, size, outward=True)
            weight[..., rows, columns] = 1.0
        for box in self.exclude:
            rows, columns = self._cells(box, size, outward=False)
            weight[..., rows, columns] = 0.0
        return weight

    def crop(self, box: Box) -> "Mask":
        """The mask of a part of the images, in that part's own pixels."""
        rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
        part = self.at(self.image_size)[..., rows, columns]
        cropped = Mask.from_image(part, box.size)
        if self.softness:
            # Scores whose composite fades in as this mask's does.
            weight = replace(self, feather=0.0).alpha()[..., rows, columns]
            scores = torch.where(part, 0.25 + 0.5 * weight, 0.0)
            cropped = replace(cropped, scores=scores, softness=0.25)
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
    return _spread(region.float(), rows, columns) > 0


def _spread(weight: Float[Tensor, "b 1 h w"], rows: int, columns: int) -> Float[Tensor, "b 1 h w"]:
    """The highest weight within so many rows and columns of each pixel."""
    return _highest(_highest(weight, rows, -2), columns, -1)


def _bounds(region: Bool[Tensor, "b 1 h w"]) -> tuple[slice, ...]:
    """The part of a batch of images outside of which no region is, with a pixel around it."""
    whole = region.any(dim=0)[0]
    slices = [slice(None), slice(None)]
    for along in (whole.any(dim=1), whole.any(dim=0)):
        there = along.nonzero()[:, 0].tolist() or [0]
        slices.append(slice(max(there[0] - 1, 0), there[-1] + 2))
    return tuple(slices)


def _highest(weight: Float[Tensor, "b 1 h w"], reach: int, dim: int) -> Float[Tensor, "b 1 h w"]:
    """The highest weight within so many pixels along one axis, in logarithmically many passes."""
    axis = weight.transpose(dim, -1)
    reach = min(reach, axis.shape[-1] - 1)
    window = F.pad(axis, (reach, reach), value=-torch.inf)
    length, width = 2 * reach + 1, 1
    while width < length:
        # Two windows of the same width make one of up to twice that.
        step = min(width, length - width)
        window = torch.maximum(window[..., :-step], window[..., step:])
        width += step
    return window.transpose(dim, -1)
