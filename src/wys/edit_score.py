"""How good an edit is, told without the true one: six signs of a good edit, and their weights.

Symbols: I is the input, E the edit, M its mask, P the edit of the same noise without a mask, T the
mean of all P, R the relevance of the instruction for I in [0, 1], D the same before normalisation
and D' that of the same instruction for E.
"""

import math
from dataclasses import astuple, dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wys.errors import WysError


@dataclass(frozen=True)
class ScoreSettings:
    """The weights of an edit's signs: dB of error that one unit of each stands for.

    The score is minus the weighted sum. `wys bench relevance` fits the weights to an editor on the
    validation split. Without a fit the expected error counts, and nothing else.
    """

    expected: float = 1.0
    """Mean of R (E - T)^2 + (1 - R) (E - I)^2 over all pixels, in dB: the expected squared error
    if a pixel is to be changed with probability R, and to what plain edits have in common."""
    residue: float = 0.0
    """D' over D, both averaged inside the mask: near 0 where what was asked for is done."""
    change: float = 0.0
    """Mean absolute change |E - I| inside the mask, on the [0, 1] scale."""
    seam: float = 0.0
    """By how much more E jumps across the mask's edge than I does, on the [0, 1] scale."""
    leak: float = 0.0
    """Mean absolute change |P - I| outside the mask: what the mask holds back."""
    disagreement: float = 0.0
    """Mean absolute deviation inside the mask from the mean edit over all seeds."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(weight) for weight in astuple(self)):
            raise WysError("the weights of an edit's signs are finite numbers.")


SIGNS = tuple(field.name for field in fields(ScoreSettings))


def edit_signs(
    original: Float[Tensor, "b 3 h w"],
    edited: Float[Tensor, "b 3 h w"],
    plain: Float[Tensor, "b 3 h w"],
    average: Float[Tensor, "b 3 h w"],
    typical: Float[Tensor, "b 3 h w"],
    region: Bool[Tensor, "b 1 h w"],
    likely: Float[Tensor, "b 1 hr wr"],
    before: Float[Tensor, "b 1 m n"],
    after: Float[Tensor, "b 1 m n"],
) -> Float[Tensor, "b 6"]:
    """The signs of b edits, in the order of `SIGNS`; an empty mask has left all undone.

    Args:
        original: I; edited: E; plain: P; region: M at image size.
        average: the mean of E over the seeds; typical: T.
        likely: R; before: D; after: D'.
    """
    size = (region.shape[-2], region.shape[-1])
    likely, before, after = (
        F.interpolate(x.to(original), size=size, mode="bilinear") for x in (likely, before, after)
    )
    inside = region.to(original)
    left = _mean(after, inside) / _mean(before, inside).clamp(min=1e-6)
    error = likely * (edited - typical).square() + (1 - likely) * (edited - original).square()
    signs = [
        10 * error.flatten(1).mean(dim=1).clamp(min=1e-10).log10(),
        torch.where(inside.flatten(1).any(dim=1), left.clamp(0, 2), 1.0),
        _mean((edited - original).abs(), inside),
        _jump(edited, region) - _jump(original, region),
        _mean((plain - original).abs(), 1 - inside),
        _mean((edited - average).abs(), inside),
    ]
    return torch.stack(signs, dim=1)


def edit_score(signs: Float[Tensor, "... 6"], settings: ScoreSettings) -> Float[Tensor, "..."]:
    """Higher is better, in dB; only differences between edits of one image mean something."""
    return -(signs * signs.new_tensor(astuple(settings))).sum(dim=-1)


def fit_score(
    signs: Float[Tensor, "b n 6"], error: Float[Tensor, "b n"], ridge: float = 1.0
) -> ScoreSettings:
    """The weights that predict the exact error best, by least squares with a ridge.

    Signs and errors are taken as deviations from their mean over the n edits of each image: the
    score has to tell the edits of one image apart, and need not know which image is hard. The ridge
    draws the weights to those without a fit, so that a few images cannot overrule them.

    Args:
        error: the exact error of each edit, in dB.
        ridge: in units of the variance of each sign.
    """
    x = (signs - signs.mean(dim=1, keepdim=True)).flatten(0, 1).double()
    y = (error - error.mean(dim=1, keepdim=True)).flatten().double()
    scale = x.square().mean(dim=0).sqrt()
    x = x / scale.clamp(min=1e-9)
    gram = x.T @ x / len(x) + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    prior = x.new_tensor(astuple(ScoreSettings())) * scale
    weights = torch.linalg.solve(gram, x.T @ y / len(x) + ridge * prior) / scale.clamp(min=1e-9)
    weights = torch.where(scale > 1e-9, weights, 0.0)
    return ScoreSettings(*(round(float(weight), 3) for weight in weights))


def _mean(values: Float[Tensor, "b c h w"], weight: Float[Tensor, "b 1 h w"]) -> Tensor:
    """The weighted mean of each case; 0 where nothing has weight."""
    total = (values * weight).flatten(1).sum(dim=1)
    return total / (weight.flatten(1).sum(dim=1) * values.shape[1]).clamp(min=1)


def _jump(image: Float[Tensor, "b 3 h w"], region: Bool[Tensor, "b 1 h w"]) -> Tensor:
    """Mean absolute difference between neighbours of which one is in the region; 0 for none."""
    total, count = image.new_zeros(len(image)), image.new_zeros(len(image))
    for axis in (-2, -1):
        here, there = (slice(None, -1), slice(1, None))
        near = [part.transpose(axis, -1)[..., here] for part in (image, region)]
        far = [part.transpose(axis, -1)[..., there] for part in (image, region)]
        edge = (near[1] != far[1]).to(image)
        total = total + ((near[0] - far[0]).abs() * edge).flatten(1).sum(dim=1)
        count = count + edge.flatten(1).sum(dim=1) * image.shape[1]
    return total / count.clamp(min=1)
