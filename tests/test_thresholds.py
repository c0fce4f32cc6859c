"""Rules that find a threshold, against slow and obvious oracles."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wys.errors import WysError
from wys.thresholds import (
    RULES,
    check_threshold,
    entropy_threshold,
    otsu_threshold,
    threshold_levels,
    triangle_threshold,
)

bytes_ = arrays.arrays(np.int64, 40, elements=st.integers(0, 255))


def as_map(values: np.ndarray) -> torch.Tensor:
    """Integers 0..255 in the middle of their bins."""
    return torch.from_numpy((values + 0.5) / 256).reshape(1, 1, 5, 8)


# Two separate runs of levels that are equally good: between them is none.
TWO_BEST = np.repeat(
    [49, 90, 97, 107, 121, 158, 190, 200, 215, 255], [1, 1, 1, 1, 30, 2, 1, 1, 1, 1]
)


@given(bytes_.filter(lambda values: np.ptp(values) > 0))
@example(TWO_BEST)
def test_entropy_leaves_the_most(values: np.ndarray) -> None:
    def entropy(part: np.ndarray) -> float:
        share = np.unique(part, return_counts=True)[1] / len(part)
        return float(-(share * np.log(share)).sum())

    def together(edge: int) -> float:
        below, above = values[values < edge], values[values >= edge]
        return entropy(below) + entropy(above) if len(below) and len(above) else -np.inf

    level = entropy_threshold(as_map(values)).item() * 256
    assert together(round(np.floor(level))) >= max(map(together, range(1, 256))) - 1e-6


def test_otsus_level_is_not_between_two_best_ones() -> None:
    # Left and right of the middle are alike, so that a level on either side is as good.
    values = torch.tensor([4, 15, 17, 28]).reshape(1, 1, 1, 4) / 32
    assert 4 / 32 < otsu_threshold(values).item() <= 15 / 32


def test_the_triangle_bends_where_the_peak_ends() -> None:
    background = np.repeat([10, 11, 12, 13], [18, 9, 3, 1])
    values = np.concatenate([background, np.arange(100, 250, 17)])[:40]
    level = triangle_threshold(as_map(values)).item() * 256
    assert 13 < level < 100
    # The same picture with dark and bright changed about: the region is what the peak is not.
    mirrored = triangle_threshold(as_map(255 - values)).item() * 256
    assert 255 - 100 < mirrored <= 255 - 13


@pytest.mark.parametrize("rule", RULES)
def test_a_constant_map_has_an_empty_mask(rule: str) -> None:
    values = torch.full((2, 1, 4, 4), 0.3)
    assert (threshold_levels(values, rule) > 0.3).all()  # type: ignore[arg-type]


@pytest.mark.usefixtures("unchecked")
def test_levels() -> None:
    values = torch.rand(3, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(threshold_levels(values, 0.25), torch.full((3,), 0.25))
    assert torch.equal(threshold_levels(values, "auto"), otsu_threshold(values))
    for rule in RULES:
        alone = torch.cat([threshold_levels(row[None], rule) for row in values])
        assert torch.equal(threshold_levels(values, rule), alone)
    for bad in (1.5, -0.1, "otsu"):
        with pytest.raises(WysError, match="from 0 to 1"):
            check_threshold(bad)  # type: ignore[arg-type]
