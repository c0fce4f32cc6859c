"""Metrics against slow, obvious references, and their laws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wys.errors import WysError
from wys.evaluation.metrics import (
    average_precision,
    grounding,
    iou,
    largest_difference,
    mean,
    spearman,
    squared_error,
    ssim,
)

seeds = st.integers(0, 2**31)


def random_case(seed: int, levels: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Few levels, so that ties are common; the mask may be empty or full."""
    g = torch.Generator().manual_seed(seed)
    values = torch.randint(0, levels, (3, 4, 5), generator=g) / levels
    exact = torch.rand(3, 4, 5, generator=g) < torch.rand(3, 1, 1, generator=g)
    return values, exact


def slow_average_precision(values: torch.Tensor, exact: torch.Tensor) -> float:
    """Walk down every threshold and add precision times the gain in recall."""
    pixels = list(zip(values.flatten().tolist(), exact.flatten().tolist(), strict=True))
    positives = sum(hit for _, hit in pixels)
    if positives == 0:
        return math.nan
    area, recall = 0.0, 0.0
    for threshold in sorted({value for value, _ in pixels}, reverse=True):
        found = [hit for value, hit in pixels if value >= threshold]
        area += (sum(found) / positives - recall) * sum(found) / len(found)
        recall = sum(found) / positives
    return area


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_average_precision_is_the_sum_over_thresholds(seed: int) -> None:
    values, exact = random_case(seed)
    fast = average_precision(values, exact)
    for got, value, truth in zip(fast.tolist(), values, exact, strict=True):
        assert got == pytest.approx(slow_average_precision(value, truth), nan_ok=True)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_average_precision_ignores_pixel_order_and_monotone_maps(seed: int) -> None:
    values, exact = random_case(seed)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    shuffled = [x.flatten(1)[:, order].view_as(x) for x in (values, exact)]
    before = average_precision(values, exact)
    assert torch.allclose(before, average_precision(*shuffled), equal_nan=True)
    assert torch.allclose(before, average_precision(values.exp() * 3, exact), equal_nan=True)


def test_average_precision_of_a_perfect_and_a_constant_map() -> None:
    _, exact = random_case(3)
    exact[:, 0, 0] = True
    assert torch.allclose(average_precision(exact.float(), exact), torch.ones(3).double())
    share = exact.flatten(1).double().mean(1)
    assert torch.allclose(average_precision(torch.zeros(3, 4, 5), exact), share)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_iou_counts_pixels(seed: int) -> None:
    (_, a), (_, b) = random_case(seed), random_case(seed + 1)
    for got, x, y in zip(iou(a, b).tolist(), a, b, strict=True):
        x_set = {i for i, on in enumerate(x.flatten().tolist()) if on}
        y_set = {i for i, on in enumerate(y.flatten().tolist()) if on}
        union = x_set | y_set
        assert got == pytest.approx(len(x_set & y_set) / len(union) if union else 1.0)
    assert torch.equal(iou(a, b), iou(b, a))


def test_grounding_names_the_object_with_the_highest_mean() -> None:
    ids = torch.tensor([[[0, 1, 1], [2, 2, 3]]]).repeat(5, 1, 1)
    values = torch.tensor([[[1.0, 0.2, 0.4], [0.9, 0.1, 0.4]]]).repeat(5, 1, 1)
    # means: 0.3, 0.5, 0.4; id 4 is not visible, 0 is a global edit
    found = grounding(values, ids, torch.tensor([1, 2, 3, 4, 0]))
    assert found.hit[:3].tolist() == [0, 1, 0]
    assert found.hit[3:].isnan().all() and found.chance[3:].isnan().all()
    assert found.chance[:3].tolist() == pytest.approx([1 / 3] * 3)
    assert grounding(torch.ones(1, 2, 3), ids[:1], torch.tensor([2])).hit.tolist() == [0]


@given(seeds, st.floats(0.001, 0.5))
@settings(max_examples=25, deadline=None)
def test_psnr_pools_squared_error(seed: int, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    truth = torch.rand(3, 3, 4, 5, generator=g)
    image = truth + scale * torch.randn(3, 3, 4, 5, generator=g)
    region = torch.rand(3, 4, 5, generator=g) < 0.5
    squares = [
        float(image[b, c, y, x] - truth[b, c, y, x]) ** 2
        for b, y, x in region.nonzero().tolist()
        for c in range(3)
    ]
    expected = -10 * math.log10(sum(squares) / len(squares))
    assert squared_error(image, truth, region).psnr() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_has_no_psnr(value: float) -> None:
    image, region = torch.full((1, 3, 2, 2), value), torch.ones(1, 2, 2, dtype=torch.bool)
    with pytest.raises(WysError, match="not numbers"):
        squared_error(image, torch.zeros(1, 3, 2, 2), region)


def test_the_median_does_not_mind_a_case_that_went_wrong() -> None:
    draw = torch.Generator().manual_seed(0)
    truth = torch.rand(5, 3, 4, 4, generator=draw)
    noise = torch.tensor([0.01, 0.02, 0.03, 0.9, 0.0]).reshape(5, 1, 1, 1)
    region = torch.ones(5, 4, 4, dtype=torch.bool)
    error = squared_error(truth + noise, truth, region)
    assert error.median_psnr() == pytest.approx(-20 * math.log10(0.02), abs=1e-3)
    pooled = error.psnr()
    assert pooled is not None and pooled < 10
    same = squared_error(truth, truth, region)
    assert same.median_psnr() == 99
    assert squared_error(truth, truth, ~region).median_psnr() is None


def test_psnr_is_capped_and_none_where_empty() -> None:
    image = torch.rand(2, 3, 4, 4)
    everything, nothing = torch.ones(2, 4, 4, dtype=bool), torch.zeros(2, 4, 4, dtype=bool)
    assert squared_error(image, image, everything).psnr() == 99
    assert squared_error(image, image, nothing).psnr() is None
    chosen = torch.tensor([False, False])
    assert squared_error(image, image, everything).psnr(chosen) is None


def test_largest_difference_is_of_the_bytes() -> None:
    image = torch.full((1, 3, 2, 2), 10 / 255)
    other = image.clone()
    other[0, 1, 0, 0] = 250 / 255  # would wrap in 8 bits
    other[0, 2, 1, 1] += 0.4 / 255  # rounds to the same byte
    left = torch.tensor([[[True, False], [True, False]]])
    assert largest_difference(image, other, left).tolist() == [240]
    assert largest_difference(image, other, ~left).tolist() == [0]
    assert largest_difference(image, other, left & ~left).tolist() == [0]


def test_mean_leaves_out_what_is_undefined() -> None:
    assert mean(torch.tensor([1.0, math.nan, 3.0])) == 2
    assert mean(torch.tensor([math.nan])) is None


def test_spearman_is_the_correlation_of_mean_ranks() -> None:
    a = torch.tensor([[1.0, 2, 3, 4], [1, 1, 2, 3], [1, 1, 1, 1]])
    b = torch.tensor([[10.0, 20, 40, 30], [5, 5, 1, 0], [1, 2, 3, 4]])
    found = spearman(a, b)
    assert found[0].item() == pytest.approx(0.8)
    assert found[1].item() == pytest.approx(-1.0)
    assert found[2].isnan()


def test_psnr_does_not_wrap_as_8_bit_differences_do() -> None:
    """Differences of bytes taken modulo 256 turn the worst error into nearly the best."""
    dark, light = torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 255 / 255)
    everywhere = torch.ones(1, 4, 4, dtype=torch.bool)
    bytes_of = [(image * 255).to(torch.uint8) for image in (dark, light)]
    wrapped = (bytes_of[0] - bytes_of[1]).double() / 255
    assert -10 * math.log10(float(wrapped.square().mean())) > 48
    assert squared_error(dark, light, everywhere).psnr() == pytest.approx(0, abs=1e-6)
    assert squared_error(light, dark, everywhere).psnr() == pytest.approx(0, abs=1e-6)


def test_the_order_of_the_channels_matters() -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    everywhere = torch.ones(1, 16, 16, dtype=torch.bool)
    swapped = squared_error(image.flip(1), image, everywhere).psnr()
    assert swapped is not None and swapped < 15
    assert float(ssim(image.flip(1), image)[0]) < 0.9
