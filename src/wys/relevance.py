"""Where an edit belongs: relevance maps, thresholds, masks and a verdict in words.

Symbols: D is the raw difference that an instruction makes to an editor's prediction, one value a
latent pixel; R in [0, 1] is D normalised; tau is the threshold; M = (R >= tau) is the mask.
(Mirzaei et al., "Watch Your Steps", arXiv 2308.08947, section 4.1.)
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wys.edges import follow_edges
from wys.errors import WysError
from wys.masks import Box, Mask
from wys.thresholds import Threshold, check_threshold, threshold_levels

Source = Literal["difference", "head", "both", "locator"]
Space = Literal["eps", "x0"]
Normalisation = Literal["paper", "percentile", "robust", "absolute"]
Verdict = Literal["nothing to edit", "local", "whole image"]


PROBABILITIES: tuple[Source, ...] = ("head", "locator")
"""Sources whose raw map says how likely a latent pixel is to change, or how much of it to take."""

MAX_DRAWS = 64
"""The most noise samples of a map: all are predicted together, and their mean hardly moves on."""

MAX_REACH = 16.0
"""The farthest that a map is blurred or its edges are moved, in latent pixels."""


@dataclass(frozen=True)
class VerdictSettings:
    """When a map says that there is nothing, or everything, to edit. Judged on D, never on R."""

    nothing_below: float = 0.005
    """Nothing to edit where the peak of D stays below this. In the units of D: noise standard
    deviations summed over latent channels, or a probability (see `PROBABILITIES`)."""
    quantile: float = 0.99
    """The quantile of D over the image that counts as its peak."""
    noise_ratio: float = 1.5
    """Nothing to edit where D varies over the image by less than this many standard errors of its
    mean over the draws (1 = pure noise). Only judged with two or more draws."""
    level_ratio: float = 4.0
    """The exception to `noise_ratio`: a D that is the same everywhere, but on average more than so
    many times its spread between draws, is an edit of the whole image."""
    whole_share: float = 0.6
    """The whole image is to be edited where more than this share of it has at least `whole_level`
    of the peak of D."""
    whole_level: float = 0.5
    """The share of the peak from which on a pixel counts towards `whole_share`."""

    def __post_init__(self) -> None:
        for name in ("nothing_below", "noise_ratio", "level_ratio"):
            if not 0 <= getattr(self, name) < math.inf:
                raise WysError(
                    f"a verdict's {name} is a number of 0 or more, not {getattr(self, name):g}."
                )
        if not all(0 <= x <= 1 for x in (self.quantile, self.whole_share, self.whole_level)):
            raise WysError("quantile, whole_share and whole_level are numbers from 0 to 1.")


@dataclass(frozen=True)
class RelevanceSettings:
    """How a relevance map is made. The defaults are the preset `paper`."""

    source: Source = "difference"
    """difference: of the noise predicted with and without the instruction; head: the editor's own
    relevance head, where it has one; both: the geometric mean of the two; locator: the lower
    of the head's answer and that of a network which sees it and only says how much to take of the
    edit; the head's alone where it covers over a fifth of the image."""
    first_steps: int = 0
    """Read the map off so many first steps of the edit itself, which run without a mask, instead of
    off predictions of its own (`timesteps`, `draws`); 0: the map is made before the edit."""
    timesteps: tuple[float, ...] = (0.8,)
    """Noise levels to predict at, as fractions of the diffusion's length; averaged."""
    draws: int = 1
    """Noise samples at each timestep; averaged."""
    space: Space = "eps"
    """Differences of the predicted noise, or of the predicted clean latent; a probability is of
    neither."""
    normalisation: Normalisation = "paper"
    """paper: clamp outliers, then minimum to maximum; percentile: 5th percentile to maximum;
    robust: 0 to `scale` deviations above the median, which are the median absolute deviation made
    comparable to a standard one; absolute: 0 to `scale`."""
    clamp: float = 1.5
    """Interquartile ranges above the third quartile at which `paper` clamps (2 in scenes)."""
    scale: float = 1.0
    """The raw difference that `absolute` maps to 1; for `robust`, the deviations."""
    smoothing: float = 0.0
    """Standard deviation, in latent pixels, of a Gaussian blur of the raw map; 0 for none."""
    edges: float = 0.0
    """Radius, in latent pixels, within which the map's edges are moved to those of the image; 0
    leaves the map at latent size."""
    threshold: Threshold = 0.5
    """Edit where the map is at least this, or by a rule for each map: `auto` (Otsu's), `triangle`
    or `entropy`."""
    softness: float = 0.0
    """Mix edit and input, by the relevance, from so much below the threshold to as much above it;
    0: all edit from the threshold on, the input below it."""
    verdict: VerdictSettings = field(default_factory=VerdictSettings)
    """When there is nothing to edit, or everything."""

    def __post_init__(self) -> None:
        for name, known in (
            ("source", get_args(Source)),
            ("space", get_args(Space)),
            ("normalisation", get_args(Normalisation)),
        ):
            if getattr(self, name) not in known:
                raise WysError(
                    f"the {name} of a map is one of {', '.join(known)}, not {getattr(self, name)}."
                )
        if not self.timesteps or not all(0 < t <= 1 for t in self.timesteps):
            raise WysError("relevance timesteps are fractions above 0, up to 1, at least one.")
        if not 1 <= self.draws <= MAX_DRAWS:
            raise WysError(f"a relevance map needs 1 to {MAX_DRAWS} draws, not {self.draws}.")
        if self.first_steps < 0:
            raise WysError(f"a map is read off 0 first steps or more, not {self.first_steps}.")
        if not 0 < self.scale < math.inf or not 0 <= self.clamp < math.inf:
            raise WysError("the scale of a map must be above 0, its clamp at least 0.")
        for name, reach in (("smoothed", self.smoothing), ("led along edges", self.edges)):
            if not 0 <= reach <= MAX_REACH:
                raise WysError(
                    f"a map is {name} by 0 to {MAX_REACH:g} latent pixels, not {reach:g}."
                )
        if not 0 <= self.softness <= 0.5:
            raise WysError(f"the softness of a mask is from 0 to 0.5, not {self.softness:g}.")
        check_threshold(self.threshold)


@dataclass(frozen=True)
class RelevanceMap:
    """The relevance of b images for their instructions."""

    values: Float[Tensor, "b 1 hv wv"]
    """R in [0, 1], at latent size; with `settings.edges` at the size that the editor works at."""
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
        peak = raw.flatten().quantile(rule.quantile)
        if peak < rule.nothing_below:
            return "nothing to edit"
        if self.spread is not None:
            error = self.spread[i].double().square().mean().sqrt() / math.sqrt(self.settings.draws)
            noisy = raw.std(correction=0) < rule.noise_ratio * error
            level = rule.level_ratio * self.spread[i].double().mean()
            if noisy and raw.mean() < level:
                return "nothing to edit"
        share = (raw >= peak * rule.whole_level).double().mean()
        return "whole image" if share > rule.whole_share else "local"

    def mask(self, threshold: Threshold | None = None) -> "Mask":
        """The region to edit: R >= threshold; None takes the settings' threshold.

        With the settings' softness it begins below that, and the edit fades in.
        """
        threshold = self.settings.threshold if threshold is None else threshold
        return relevance_mask(self.values, self.image_size, threshold, self.settings.softness)

    def at(self, size: tuple[int, int], box: Box) -> Float[Tensor, "b 1 h w"]:
        """R inside a box of image pixels, at a resolution (height, width)."""
        values = self.values
        if box != Box(0, 0, self.image_size[1], self.image_size[0]):
            values = F.interpolate(values, size=self.image_size, mode="bilinear")
            values = values[..., box.top : box.bottom, box.left : box.right]
        if values.shape[-2:] == tuple(size):
            return values
        return F.interpolate(values, size=size, mode="bilinear", antialias=True)

    def select(self, indices: list[int]) -> "RelevanceMap":
        """The maps of some of the images."""
        return replace(
            self,
            values=self.values[indices],
            raw=self.raw[indices],
            spread=None if self.spread is None else self.spread[indices],
            instructions=tuple(self.instructions[i] for i in indices),
        )


def relevance_mask(
    values: Float[Tensor, "b 1 h w"],
    image_size: tuple[int, int],
    threshold: Threshold,
    softness: float = 0.0,
) -> Mask:
    """M = (R >= tau) of relevance in [0, 1], be it a map or what a field shows.

    Where R is how likely a pixel is to change, the mean of what it can become is R edit + (1 - R)
    input: `softness` makes the composite go from the one to the other about tau.
    """
    levels = threshold_levels(values, threshold).to(values)
    return Mask(values, levels, image_size, softness=softness)


def field_mask(
    shown: Float[Tensor, "b 1 h w"],
    image_size: tuple[int, int],
    threshold: Threshold,
    stretched: bool = False,
) -> Mask:
    """M = (R >= tau) of what a relevance field shows in b views.

    Args:
        stretched: scale each view to [0, 1] first, as the published program does.
    """
    if stretched:
        low, high = shown.amin(dim=(1, 2, 3), keepdim=True), shown.amax(dim=(1, 2, 3), keepdim=True)
        shown = (shown - low) / (high - low).clamp(min=1e-12)
    return relevance_mask(shown, image_size, threshold)


def relevance_values(
    raw: Float[Tensor, "b 1 h w"], settings: RelevanceSettings, image: Float[Tensor, "b 3 H W"]
) -> Float[Tensor, "b 1 h2 w2"]:
    """D to R, each image for itself: smoothed, normalised, and led along the image's edges.

    Args:
        image: what the map is of, at the size that the editor works at.
    """
    values = normalise(smooth(raw, settings.smoothing), settings)
    return led_along(values, settings, image)


def led_along(
    values: Float[Tensor, "b 1 h w"], settings: RelevanceSettings, image: Float[Tensor, "b 3 H W"]
) -> Float[Tensor, "b 1 h2 w2"]:
    """R with its edges on those of the image, where the settings say so."""
    return follow_edges(values, image, settings.edges) if settings.edges else values


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
    elif settings.normalisation == "robust":
        low = flat.quantile(0.5, dim=1)
        deviation = 1.4826 * (flat - low[:, None]).abs().quantile(0.5, dim=1)
        # Where more than half of a map is equal, its maximum stands in for the deviations.
        far = low + settings.scale * deviation
        high = torch.where(deviation > 1e-6 * (highest - low), far, highest)
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
    # In double precision, where no sigma above 0 is 0.
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(raw)
    padded = F.pad(raw, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.reshape(1, 1, 1, -1))
    return F.conv2d(rows, kernel.reshape(1, 1, -1, 1))
