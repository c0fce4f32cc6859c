"""The bootstrap: its laws, and that its intervals hold what they promise."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wys.errors import WysError
from wys.evaluation.intervals import (
    BootstrapSettings,
    interval,
    of_several,
    weighted_mean,
    weights,
)
from wys.evaluation.metrics import SquaredError


@given(st.integers(2, 30))
def test_every_draw_has_as_many_cases_as_there_are(count: int) -> None:
    drawn = weights([str(i) for i in range(count)], BootstrapSettings(draws=20))
    assert drawn.shape == (20, count) and (drawn.sum(1) == count).all()
    assert torch.equal(drawn, weights([f"other {i}" for i in range(count)], BootstrapSettings(20)))


def test_what_was_measured_on_one_case_is_drawn_together() -> None:
    drawn = weights(["a", "b", "a", "c"])
    assert torch.equal(drawn[:, 0], drawn[:, 2]) and not torch.equal(drawn[:, 0], drawn[:, 1])


def test_measuring_the_same_cases_again_is_not_more_cases() -> None:
    values = torch.arange(12, dtype=torch.float64)
    units = [str(i) for i in range(12)]
    once = interval(weighted_mean(values), weights(units))
    again = interval(weighted_mean(values.repeat(5)), weights(units * 5))
    assert once is not None and again == pytest.approx(once)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    g = torch.Generator().manual_seed(0)
    units, held = [str(i) for i in range(40)], 0
    drawn = weights(units, BootstrapSettings(draws=300))
    for _ in range(200):
        sample = 3 + torch.randn(40, generator=g, dtype=torch.float64)
        found = interval(weighted_mean(sample), drawn)
        assert found is not None
        held += found[0] <= 3 <= found[1]
    assert 0.88 < held / 200 < 0.99


def test_undefined_values_are_left_out_and_one_case_has_no_interval() -> None:
    values = torch.tensor([1.0, math.nan, 1.0, math.nan], dtype=torch.float64)
    found = interval(weighted_mean(values), weights(list("abcd")))
    assert found == (1.0, 1.0)
    assert interval(weighted_mean(values * math.nan), weights(list("abcd"))) is None
    assert interval(weighted_mean(values[:1]), weights(["a"])) is None
    assert interval(weighted_mean(values[:0]), weights([])) is None


@pytest.mark.parametrize(("known", "several"), [("a", False), ("aa", False), ("ab", True)])
def test_a_figure_of_one_case_among_many_has_no_interval(known: str, several: bool) -> None:
    units = [*known, "c", "d", "e"]
    has = torch.arange(len(units)) < len(known)
    values = torch.where(has, torch.rand(len(units)).double(), math.nan)
    weight = of_several(weights(units), units, has)
    assert (interval(weighted_mean(values), weight) is not None) is several


def test_psnr_is_weighted_as_it_is_pooled() -> None:
    error = SquaredError(torch.tensor([1.0, 4.0, 0.0]), torch.tensor([10.0, 20.0, 0.0]))
    ones, twice = torch.ones(1, 3), torch.tensor([[2.0, 0.0, 5.0]])
    assert float(error.weighted_psnr(ones.double())) == pytest.approx(error.psnr())
    only = error.psnr(torch.tensor([True, False, False]))
    assert float(error.weighted_psnr(twice.double())) == pytest.approx(only)
    assert error.weighted_psnr(torch.zeros(1, 3).double()).isnan().all()


@pytest.mark.parametrize("wrong", [{"draws": 0}, {"level": 1.0}])
def test_bad_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(WysError):
        BootstrapSettings(**wrong)
