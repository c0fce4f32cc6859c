"""How sure a figure is: 95 % intervals by the bootstrap over cases (Efron & Tibshirani 1993).

A case is drawn with all that was measured on it. Runs with several seeds count as follows: where a
seed draws scenes of its own, its cases are further cases; where the cases are given, the runs of
one case are drawn together. Either way more seeds make the interval narrower, as they should, and
measuring one case ten times is not taken for ten cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wys.errors import WysError
from wys.seeds import generator

Figure = Callable[[Float[Tensor, "draws n"]], Float[Tensor, " draws"]]
"""A figure of n measurements as a function of how often each counts, draw by draw."""


@dataclass(frozen=True)
class BootstrapSettings:
    """How intervals are made."""

    draws: int = 1000
    """Times that the cases are drawn anew."""
    level: float = 0.95
    """Share of the draws inside the interval."""

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 < self.level < 1:
            raise WysError("a bootstrap needs at least 1 draw and a level between 0 and 1.")


def weights(
    units: Sequence[str], settings: BootstrapSettings | None = None
) -> Float[Tensor, "draws n"]:
    """How often each of n measurements counts in each draw.

    Args:
        units: the case of each measurement; those of one case are drawn together. The draws are a
            function of how the cases are arranged, not of their names. A single case says nothing
            about others: its weights are zero, and no figure is defined.
    """
    settings = settings or BootstrapSettings()
    place = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    if len(place) < 2:
        return torch.zeros((settings.draws, len(units)), dtype=torch.float64)
    random = generator(0, len(place), "bootstrap")
    drawn = torch.randint(len(place), (settings.draws, len(place)), generator=random)
    counts = torch.zeros((settings.draws, len(place)), dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    return counts[:, torch.tensor([place[unit] for unit in units])]


def of_several(
    weight: Float[Tensor, "draws n"], units: Sequence[str], known: Bool[Tensor, " n"]
) -> Float[Tensor, "draws n"]:
    """The weights for a figure that only some measurements have; zero where these are of one case.

    Args:
        units: the case of each measurement, as for `weights`.
        known: which measurements have the figure.
    """
    cases = {unit for unit, has in zip(units, known.tolist(), strict=True) if has}
    return weight if len(cases) > 1 else torch.zeros_like(weight)


def interval(
    figure: Figure, weight: Float[Tensor, "draws n"], settings: BootstrapSettings | None = None
) -> tuple[float, float] | None:
    """The low and the high end of a figure's percentile interval; None where no draw has it.

    Args:
        figure: the figure of each draw, NaN where it is undefined, from the weights of the draws.
        weight: what `weights` gave.
    """
    settings = settings or BootstrapSettings()
    values = figure(weight)
    values = values[~values.isnan()]
    if not len(values):
        return None
    outside = (1 - settings.level) / 2
    low, high = values.quantile(torch.tensor([outside, 1 - outside], dtype=torch.float64))
    return float(low), float(high)


def weighted_mean(values: Float[Tensor, " n"]) -> Figure:
    """The mean of the values that are not NaN, as a figure for `interval`."""
    known = ~values.isnan()
    filled = torch.where(known, values, 0.0)

    def figure(weight: Float[Tensor, "draws n"]) -> Float[Tensor, " draws"]:
        # 0 / 0 is NaN: a draw without a known value.
        return (weight @ filled) / (weight @ known.double())

    return figure
