"""Curves against slow, obvious references, and their laws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wys.evaluation.curves import (
    DISTANCES,
    calibration_error,
    distance_to,
    leakage,
    precision_recall,
    relevance_counts,
    reliability,
)

seeds = st.integers(0, 2**31)


def random_maps(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 11, (2, 4, 5), generator=g) / 10
    return values, torch.rand(2, 4, 5, generator=g) < 0.4


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_precision_and_recall_count_pixels(seed: int) -> None:
    values, exact = random_maps(seed)
    points = precision_recall(relevance_counts(values, exact, bins=5))
    if not exact.any():
        assert points == []
    for point in points:
        found = (values.double() * 5).floor().clamp(max=4) >= round(point["threshold"] * 5)
        hits = float((found & exact).sum())
        assert point["precision"] == pytest.approx(hits / float(found.sum()))
        assert point["recall"] == pytest.approx(hits / float(exact.sum()))
    recalls = [point["recall"] for point in points]
    assert recalls == sorted(recalls) and (not points or recalls[-1] == 1)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_reliability_is_the_share_in_each_bin(seed: int) -> None:
    values, exact = random_maps(seed)
    points = reliability(relevance_counts(values, exact, bins=5))
    bins: dict[int, list[tuple[float, bool]]] = {}
    for value, hit in zip(values.flatten().tolist(), exact.flatten().tolist(), strict=True):
        bins.setdefault(min(int(value * 5), 4), []).append((value, hit))
    assert len(points) == len(bins)
    error = 0.0
    for point, (_, own) in zip(points, sorted(bins.items()), strict=True):
        mean, share = sum(v for v, _ in own) / len(own), sum(h for _, h in own) / len(own)
        assert point["relevance"] == pytest.approx(mean)
        assert point["changed"] == pytest.approx(share)
        assert point["pixels"] == pytest.approx(len(own) / 40)
        error += len(own) / 40 * abs(mean - share)
    assert calibration_error(relevance_counts(values, exact, bins=5)) == pytest.approx(error)


def test_a_calibrated_map_has_no_calibration_error_and_a_sure_wrong_one_has_all() -> None:
    exact = torch.zeros(1, 10, 10, dtype=torch.bool)
    exact[:, :3] = True
    assert calibration_error(relevance_counts(torch.full((1, 10, 10), 0.3), exact)) < 1e-6
    assert calibration_error(relevance_counts((~exact).float(), exact)) == 1
    nothing = relevance_counts(torch.zeros(1, 0, 0), torch.zeros(1, 0, 0, dtype=torch.bool))
    assert calibration_error(nothing) is None


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_distance_is_to_the_nearest_pixel_of_the_mask(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(6, 9, generator=g) < 0.12
    places = mask.nonzero().tolist()
    for (y, x), got in zip(
        [(y, x) for y in range(6) for x in range(9)],
        distance_to(mask).flatten().tolist(),
        strict=True,
    ):
        slow = min((math.hypot(y - v, x - u) for v, u in places), default=math.inf)
        assert got == pytest.approx(slow)


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_leakage_is_the_mean_change_at_a_distance(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    image, truth = torch.rand(2, 1, 3, 20, 64, generator=g)
    mask = torch.zeros(1, 20, 64, dtype=torch.bool)
    mask[0, 3:6, 2:9] = True
    away = distance_to(mask[0])
    points = leakage(image, truth, mask).points()
    assert [point["to"] for point in points] == [*DISTANCES, None]
    low = 0.0
    for point in points:
        high = math.inf if point["to"] is None else point["to"] * 64
        ring = (away > low) & (away <= high)
        expected = (image - truth)[0].abs().mean(0)[ring].mean() if ring.any() else None
        assert (point["change"] is None) == (expected is None)
        if expected is not None:
            assert point["change"] == pytest.approx(float(expected), abs=1e-6)
        low = high


def test_what_is_inside_the_region_does_not_leak() -> None:
    truth = torch.rand(1, 3, 32, 32)
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[0, 10:20, 10:20] = True
    image = torch.where(mask[:, None], 1 - truth, truth)
    assert all(point["change"] in (0, None) for point in leakage(image, truth, mask).points())
    everywhere = leakage(image, truth, torch.zeros_like(mask))
    assert all(point["change"] is None for point in everywhere.points())
