"""Where an edit belongs: relevance maps, thresholds, masks and a verdict in words.

Symbols: D is the raw difference that an instruction makes to an editor's prediction, one value a
latent pixel; R in [0, 1] is D normalised; tau is the threshold; M = (R >= tau) is the mask.
(Mirzaei et al., "Watch Your Steps", arXiv 2308.08947, section 4.1.)
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wys.errors import WysError

Normalisation = Literal["paper", "percentile", "absolute"]
Verdict = Literal["nothing to edit", "local", "whole image"]
Threshold = float | Literal["auto"]


@dataclass(frozen=True)
class VerdictSettings:
    """When a map says that there is nothing, or everything, to edit. Judged on D, never on R."""

    nothing_below: float = 0.005
    """Nothing to edit where the 99th percentile of D stays below this. In the units of D: noise
    standard deviations summed over latent channels, or a probability for the relevance head."""
    noise_ratio: float = 1.5
    """Nothing to edit where D varies over the image by less than this many standard errors of its
    mean over the draws (1 = pure noise). Only judged with two or more draws."""
    level_ratio: float = 4.0
    """The exception to `noise_ratio`: a D that is the same everywhere, but on average more than so
    many times its spread between draws, is an edit of the whole image."""
    whole_share: float = 0.6
    """The whole image is to be edited where more than this share of it has at least half of the
    99th percentile of D."""


@dataclass(frozen=True)
class RelevanceSettings:
    """How a relevance map is made. The defaults are the preset `paper`."""

    source: Literal["difference", "head"] = "difference"
    """difference: of the noise predicted with and without the instruction; head: the editor's own
    relevance head, where it has one."""
    timesteps: tuple[float, ...] = (0.8,)
    """Noise levels to predict at, as fractions of the diffusion's length; averaged."""
    draws: int = 1
    """Noise samples at each timestep; averaged."""
    space: Literal["eps", "x0"] = "eps"
    """Differences of the predicted noise, or of the predicted clean latent."""
    normalisation: Normalisation = "paper"
    """paper: clamp outliers, then minimum to maximum; percentile: 5th percentile to maximum;
    absolute: divide by `scale`."""
    clamp: float = 1.5
    """Interquartile ranges above the third quartile at which `paper` clamps (2 in scenes)."""
    scale: float = 1.0
    """The raw difference that `absolute` maps to 1."""
    smoothing: float = 0.0
    """Standard deviation, in latent pixels, of a Gaussian blur of the raw map; 0 for none."""
    threshold: Threshold = 0.5
    """Edit where the map is at least this, or `auto` (Otsu's threshold of each map)."""
    verdict: VerdictSettings = field(default_factory=VerdictSettings)
    """When there is nothing to edit, or everything."""

    def __post_init__(self) -> None:
        if not self.timesteps or not all(0 < t <= 1 for t in self.timesteps):
            raise WysError("relevance timesteps are fractions above 0, up to 1, at least one.")
        if self.draws < 1:
            raise WysError(f"a relevance map needs at least 1 draw, not {self.draws}.")
        if self.scale <= 0 or self.smoothing < 0 or self.clamp < 0:
            raise WysError("scale must be above 0, smoothing and clamp at least 0.")
        _check_threshold(self.threshold)


class Box(NamedTuple):
    """A rectangle of image pixels: columns left..right-1 and rows top..bottom-1."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class RelevanceMap:
    """The relevance of b images for their instructions."""

    values: Float[Tensor, "b 1 h w"]
    """R in [0, 1], at latent size."""
    raw: Float[Tensor, "b 1 h w"]
    """D, the mean over draws and timesteps before any clamp or scaling."""
    spread: Float[Tensor, "b 1 h w"] | None
    """The standard deviation of D between draws (mean over timesteps); None with one draw."""
    instructions: tuple[str, ...]
    image_size: tuple[int, int]
    """(height, width) of the images in pixels."""
    settings: RelevanceSettings

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One verdict an image, by `VerdictSettings`."""
        return tuple(self._verdict(i) for i in range(len(self.raw)))

    @property
    def verdict(self) -> Verdict:
        """The verdict on a single image."""
        (verdict,) = self.verdicts
        return verdict

    def _verdict(self, i: int) -> Verdict:
        rule, raw = self.settings.verdict, self.raw[i].double()
        peak = raw.flatten().quantile(0.99)
        if peak < rule.nothing_below:
            return "nothing to edit"
        if self.spread is not None:
            error = self.spread[i].double().square().mean().sqrt() / math.sqrt(self.settings.draws)
            noisy = raw.std(correction=0) < rule.noise_ratio * error
            level = rule.level_ratio * self.spread[i].double().mean()
            if noisy and raw.mean() < level:
                return "nothing to edit"
        share = (raw >= peak / 2).double().mean()
        return "whole image" if share > rule.whole_share else "local"

    def mask(self, threshold: Threshold | None = None) -> "Mask":
        """The region to edit: R >= threshold; None takes the settings' threshold."""
        threshold = self.settings.threshold if threshold is None else threshold
        return relevance_mask(self.values, self.image_size, threshold)

    def select(self, indices: list[int]) -> "RelevanceMap":
        """The maps of some of the images."""
        return replace(
            self,
            values=self.values[indices],
            raw=self.raw[indices],
            spread=None if self.spread is None else self.spread[indices],
            instructions=tuple(self.instructions[i] for i in indices),
        )


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


def relevance_mask(
    values: Float[Tensor, "b 1 h w"], image_size: tuple[int, int], threshold: Threshold
) -> Mask:
    """M = (R >= tau) of relevance in [0, 1], be it a map or what a field shows."""
    _check_threshold(threshold)
    if threshold == "auto":
        levels = otsu_threshold(values)
    else:
        levels = torch.full((len(values),), float(threshold))
    return Mask(values, levels.to(values), image_size)


def normalise(
    raw: Float[Tensor, "b 1 h w"], settings: RelevanceSettings
) -> Float[Tensor, "b 1 h w"]:
    """D to R in [0, 1], each image for itself, by `settings.normalisation`.

    A map that is the same everywhere becomes 0 (under `absolute` it keeps its level).

    Raises:
        WysError: the map holds NaN or infinity.
    """
    if not bool(torch.isfinite(raw).all()):
        raise WysError(
            "the editor predicted values that are not numbers; try --dtype fp32 or another editor."
        )
    if settings.normalisation == "absolute":
        return (raw / settings.scale).clamp(0, 1)
    flat = raw.flatten(1)
    highest = flat.amax(dim=1)
    if settings.normalisation == "percentile":
        low, high = flat.quantile(0.05, dim=1), highest
    else:
        low = flat.amin(dim=1)
        first, third = quartiles(flat)
        limit = torch.minimum(highest, third + settings.clamp * (third - first))
        # With equal quartiles the clamp would cut the whole region down to its background.
        high = torch.where(third - first > 1e-6 * (highest - low), limit, highest)
    low, high = low.reshape(-1, 1, 1, 1), high.reshape(-1, 1, 1, 1)
    scaled = ((raw - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    return torch.where(high > low, scaled, torch.zeros_like(raw))


def quartiles(values: Float[Tensor, "b n"]) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """First and third quartile of each row; between two values their midpoint (numpy's name)."""
    first, third = (
        torch.quantile(values, q, dim=1, interpolation="midpoint") for q in (0.25, 0.75)
    )
    return first, third


def smooth(raw: Float[Tensor, "b 1 h w"], sigma: float) -> Float[Tensor, "b 1 h w"]:
    """Gaussian blur with a standard deviation in pixels; edges are repeated."""
    if sigma == 0:
        return raw
    radius = math.ceil(3 * sigma)
    x = torch.arange(-radius, radius + 1, dtype=raw.dtype, device=raw.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(raw, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.reshape(1, 1, 1, -1))
    return F.conv2d(rows, kernel.reshape(1, 1, -1, 1))


def otsu_threshold(values: Float[Tensor, "b 1 h w"], bins: int = 256) -> Float[Tensor, " b"]:
    """The level that splits each map's values into the two best separated classes.

    Maximises the variance between the classes (Otsu 1979, equation 18) over the edges of a
    histogram on [0, 1]; the middle of the best edges where several tie. A constant map has no
    classes: its level is above every value, up to 1, and its mask empty.
    """
    levels = []
    edges = torch.arange(1, bins, dtype=torch.float64) / bins
    for row in values.flatten(1).double().cpu():
        # Class 0 is what lies below an edge, exactly as the mask compares.
        ordered = row.sort().values
        count = torch.searchsorted(ordered, edges, right=False)
        sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
        below = count / len(row)
        mean_below = sums[count] / count.clamp(min=1)
        mean_above = (sums[-1] - sums[count]) / (len(row) - count).clamp(min=1)
        variance = below * (1 - below) * (mean_above - mean_below) ** 2
        best = variance.max()
        if best < 1e-12:
            levels.append(min(1.0, float(ordered[-1]) + 1 / bins))
        else:
            ties = edges[variance >= best * (1 - 1e-9)]
            levels.append(float((ties[0] + ties[-1]) / 2))
    return torch.tensor(levels)


def _dilate(region: Bool[Tensor, "b 1 h w"], rows: int, columns: int) -> Bool[Tensor, "b 1 h w"]:
    """Every pixel within so many rows and columns of the region."""
    grown = F.max_pool2d(region.float(), (2 * rows + 1, 1), stride=1, padding=(rows, 0))
    grown = F.max_pool2d(grown, (1, 2 * columns + 1), stride=1, padding=(0, columns))
    return grown > 0


def _check_threshold(threshold: Threshold) -> None:
    if threshold != "auto" and not (isinstance(threshold, float | int) and 0 <= threshold <= 1):
        raise WysError(f"a threshold is a number from 0 to 1 or auto, not {threshold}.")
