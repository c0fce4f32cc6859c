"""Thresholds of relevance maps: a number, or a rule that finds one for each map."""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wys.errors import WysError

Rule = Literal["auto", "triangle", "entropy"]
Threshold = float | Rule
RULES: tuple[Rule, ...] = get_args(Rule)


def threshold_levels(values: Float[Tensor, "b 1 h w"], threshold: Threshold) -> Float[Tensor, " b"]:
    """The level of each map: the number itself, or what a rule finds (`auto` is Otsu's).

    Raises:
        WysError: the threshold is neither a number from 0 to 1 nor a rule.
    """
    check_threshold(threshold)
    if threshold == "auto":
        return otsu_threshold(values)
    if threshold == "triangle":
        return triangle_threshold(values)
    if threshold == "entropy":
        return entropy_threshold(values)
    return torch.full((len(values),), float(threshold))


def otsu_threshold(values: Float[Tensor, "b 1 h w"], bins: int = 256) -> Float[Tensor, " b"]:
    """The level that splits each map's values into the two best separated classes.

    Maximises the variance between the classes (Otsu 1979, equation 18) over the edges of a
    histogram on [0, 1]; the middle of the first best edges where several tie. A constant map has
    no classes: its level is above every value and its mask empty, but for a map that is 1 all over,
    which is all mask.
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
            first, last = _first_run(variance >= best * (1 - 1e-9))
            levels.append(float((edges[first] + edges[last]) / 2))
    return torch.tensor(levels)


def triangle_threshold(values: Float[Tensor, "b 1 h w"], bins: int = 256) -> Float[Tensor, " b"]:
    """The level at which each histogram bends between its peak and its farther end.

    The edge, between the peak and that end, that lies farthest below the line that joins them
    (Zack et al. 1977). A constant map has no bend: its level is that of `otsu_threshold`.
    """
    levels = []
    for row in values.flatten(1).double().cpu():
        count, low, high = _histogram(row, bins)
        if low == high:
            levels.append(min(1.0, (high + 2) / bins))
            continue
        peak = int(count.argmax())
        end = high if high - peak >= peak - low else low
        bins_between = torch.arange(min(peak, end), max(peak, end) + 1)
        share = (bins_between - end).double() / (peak - end)
        below = count[peak] * share - count[bins_between]
        bend = int(bins_between[below.argmax()])
        # What lies on the peak's side of the bend is one class, the bend's own bin with it.
        levels.append((bend + 1) / bins if end == high else bend / bins)
    return torch.tensor(levels)


def entropy_threshold(values: Float[Tensor, "b 1 h w"], bins: int = 256) -> Float[Tensor, " b"]:
    """The level that leaves the most entropy in the two classes together.

    Maximises the sum of the entropies of both sides' histograms (Kapur, Sahoo and Wong 1985); the
    middle of the first best edges where several tie. A constant map's level is that of
    `otsu_threshold`.
    """
    levels = []
    for row in values.flatten(1).double().cpu():
        count, low, high = _histogram(row, bins)
        if low == high:
            levels.append(min(1.0, (high + 2) / bins))
            continue
        share = count / count.sum()
        mass = share.cumsum(0)[:-1]
        plogp = torch.special.entr(share).cumsum(0)
        below, above = mass, 1 - mass
        entropy = below.log() + plogp[:-1] / below + above.log() + (plogp[-1] - plogp[:-1]) / above
        entropy = torch.where((below > 1e-12) & (above > 1e-12), entropy, -torch.inf)
        first, last = _first_run(entropy >= entropy.max() - 1e-9)
        levels.append((first + last) / 2 / bins + 1 / bins)
    return torch.tensor(levels)


def _first_run(best: Bool[Tensor, " n"]) -> tuple[int, int]:
    """The ends of the first unbroken run: between two runs that tie, nothing is best."""
    first = int(best.int().argmax())
    broken = (~best[first:]).nonzero()[:, 0]
    return first, first + (int(broken[0]) if len(broken) else len(best) - first) - 1


def _histogram(row: Float[Tensor, " n"], bins: int) -> tuple[Float[Tensor, " bins"], int, int]:
    """Counts in equal bins of [0, 1], and the first and the last bin that hold a value."""
    index = (row * bins).long().clamp(0, bins - 1)
    count = torch.bincount(index, minlength=bins).double()
    return count, int(index.min()), int(index.max())


def check_threshold(threshold: Threshold) -> None:
    """Raises WysError where a threshold is neither a number from 0 to 1 nor a rule."""
    if threshold in RULES:
        return
    if isinstance(threshold, str) or not 0 <= threshold <= 1:
        raise WysError(f"a threshold is a number from 0 to 1 or auto, not {threshold}.")
