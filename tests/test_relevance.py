"""Normalisation, thresholds, masks and verdicts, against slow and obvious oracles."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wys.errors import WysError
from wys.masks import Box, Mask, _spread
from wys.relevance import (
    RelevanceMap,
    RelevanceSettings,
    VerdictSettings,
    field_mask,
    normalise,
    quartiles,
    relevance_mask,
    smooth,
)
from wys.thresholds import otsu_threshold

PAPER = RelevanceSettings()
maps = arrays.arrays(
    np.float32,
    st.tuples(st.integers(2, 9), st.integers(2, 9)),
    elements=st.floats(0, 10, width=32),
)


def paper_oracle(raw: np.ndarray, factor: float = 1.5) -> np.ndarray:
    """The paper's normalisation in numpy, word by word."""
    first, third = (np.quantile(raw, q, method="midpoint") for q in (0.25, 0.75))
    if third - first > 1e-6 * (raw.max() - raw.min()):
        raw = np.minimum(raw, third + factor * (third - first))
    if raw.max() <= raw.min():
        return np.zeros_like(raw)
    return (raw - raw.min()) / (raw.max() - raw.min())


@given(maps)
def test_quartiles_are_numpys_midpoints(raw: np.ndarray) -> None:
    first, third = quartiles(torch.from_numpy(raw.copy()).reshape(1, -1))
    assert np.isclose(first.item(), np.quantile(raw, 0.25, method="midpoint"), rtol=1e-6)
    assert np.isclose(third.item(), np.quantile(raw, 0.75, method="midpoint"), rtol=1e-6)


@given(maps.filter(lambda raw: float(np.ptp(raw)) == 0 or float(np.ptp(raw)) > 1e-3))
def test_paper_normalisation(raw: np.ndarray) -> None:
    values = normalise(torch.from_numpy(raw.copy())[None, None], PAPER)[0, 0]
    assert np.allclose(values.numpy(), paper_oracle(raw.astype(np.float64)), atol=1e-3)


def test_each_map_is_normalised_for_itself() -> None:
    raw = torch.rand(3, 1, 6, 5) * torch.tensor([1.0, 10, 100]).reshape(3, 1, 1, 1)
    for how in ("paper", "percentile", "absolute"):
        settings = RelevanceSettings(normalisation=how, scale=50)
        alone = torch.cat([normalise(row[None], settings) for row in raw])
        assert torch.allclose(normalise(raw, settings), alone)


def test_a_clamp_that_makes_the_map_constant_keeps_the_region() -> None:
    raw = torch.full((1, 1, 20, 20), 0.2)
    raw[..., 3:8, 4:9] = 1.0  # a perfect map on 6 % of the area: the quartiles are equal
    raw[..., 0, 0] = 0.1
    values = normalise(raw, PAPER)
    mask = values >= 0.5
    assert mask.sum() == 25
    assert mask[..., 3:8, 4:9].all()
    assert (normalise(torch.full((1, 1, 4, 4), 3.0), PAPER) == 0).all()


def test_other_normalisations() -> None:
    raw = torch.linspace(0, 2, 101).reshape(1, 1, 1, 101)
    robust = normalise(raw, RelevanceSettings(normalisation="percentile"))[0, 0, 0]
    assert robust[5] == 0
    assert robust[-1] == 1
    assert torch.isclose(robust[53], torch.tensor((1.06 - 0.1) / 1.9))
    absolute = normalise(raw, RelevanceSettings(normalisation="absolute", scale=1.0))[0, 0, 0]
    assert torch.allclose(absolute, raw[0, 0, 0].clamp(max=1))


def test_values_that_are_not_numbers_are_one_sentence() -> None:
    with pytest.raises(WysError, match="not numbers"):
        normalise(torch.full((1, 1, 2, 2), float("nan")), PAPER)


@given(arrays.arrays(np.float32, 40, elements=st.floats(0, 1, width=32)))
def test_otsu_separates_best(values: np.ndarray) -> None:
    threshold = otsu_threshold(torch.from_numpy(values.copy()).reshape(1, 1, 5, 8)).item()

    def variance(level: float) -> float:
        below, above = values[values < level], values[values >= level]
        if not len(below) or not len(above):
            return 0.0
        share = len(below) / len(values)
        return float(share * (1 - share) * (below.astype(float).mean() - above.mean()) ** 2)

    best = max(variance(k / 256) for k in range(1, 256))
    assert variance(threshold) >= best - 1e-6
    if np.ptp(values) == 0:
        assert threshold > values[0] or values[0] == 1


def relevance(raw: torch.Tensor, **settings: object) -> RelevanceMap:
    how = RelevanceSettings(**settings)  # type: ignore[arg-type]
    size = (raw.shape[-2] * 4, raw.shape[-1] * 4)
    return RelevanceMap(normalise(raw, how), raw, None, ("x",) * len(raw), size, how)


def test_one_threshold_serves_latents_and_pixels() -> None:
    found = relevance(torch.rand(2, 1, 6, 5, generator=torch.Generator().manual_seed(0)))
    mask = found.mask(0.4)
    assert torch.equal(mask.at((6, 5)), found.values >= 0.4)
    fine = torch.nn.functional.interpolate(found.values, (24, 20), mode="bilinear")
    assert torch.equal(mask.at((24, 20)), fine >= 0.4)
    assert found.mask(0).at((24, 20)).all()
    auto = found.mask("auto")
    assert torch.allclose(auto.threshold, otsu_threshold(found.values))


def test_user_masks_keep_thin_things_in_the_latents() -> None:
    drawn = torch.zeros(1, 1, 24, 20, dtype=torch.bool)
    drawn[..., 7, 3] = True
    mask = Mask.from_image(drawn, (24, 20))
    assert torch.equal(mask.at((24, 20)), drawn)
    latent = mask.at((6, 5))
    assert latent.sum() == 1
    assert latent[0, 0, 1, 0]
    with pytest.raises(WysError, match="20 x 24 pixels and the image 21 x 24"):
        Mask.from_image(drawn, (24, 21))


box = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 8), st.integers(1, 8)).map(
    lambda v: Box(v[0], v[1], v[0] + v[2], v[1] + v[3])
)


@given(box, box, st.integers(0, 3))
def test_corrections(include: Box, exclude: Box, grow: int) -> None:
    drawn = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    drawn[..., 10, 12] = True
    mask = Mask.from_image(drawn, (20, 20)).grown(grow).including(include).excluding(exclude)
    expected = np.zeros((20, 20), bool)
    for y in range(20):
        for x in range(20):
            near = max(abs(y - 10), abs(x - 12)) <= grow
            in_box = include.left <= x < include.right and include.top <= y < include.bottom
            out_box = exclude.left <= x < exclude.right and exclude.top <= y < exclude.bottom
            expected[y, x] = (near or in_box) and not out_box
    fine = mask.at((20, 20))
    assert np.array_equal(fine[0, 0].numpy(), expected)
    # A latent cell may be edited wherever one of its pixels is.
    cells = torch.nn.functional.max_pool2d(fine.float(), 4) > 0
    assert (mask.at((5, 5)) | ~cells).all()


@given(st.integers(0, 9), st.integers(0, 30), st.integers(1, 12), st.integers(1, 12))
def test_the_highest_nearby_is_that_of_a_pooling(
    rows: int, columns: int, height: int, width: int
) -> None:
    weight = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(rows))
    padding = (rows, columns)
    kernel = (2 * rows + 1, 2 * columns + 1)
    around = F.pad(weight, (columns, columns, rows, rows), value=-torch.inf)
    assert torch.equal(_spread(weight, *padding), F.max_pool2d(around, kernel, stride=1))


@given(st.integers(0, 5), st.sets(st.integers(0, 11 * 9 - 1), max_size=60))
def test_feather_rises_by_the_distance_to_the_outside(feather: int, holes: set[int]) -> None:
    """By a pixel's distance to the nearest one outside, diagonals counting as one; the image's
    own edge is no outside."""
    drawn = torch.ones(1, 1, 11, 9, dtype=torch.bool)
    drawn.view(-1)[list(holes)] = False
    alpha = Mask.from_image(drawn, (11, 9)).feathered(feather).alpha()
    steps = max(1, feather)
    outside = [(hole // 9, hole % 9) for hole in holes]
    for y in range(11):
        for x in range(9):
            distance = min((max(abs(y - a), abs(x - b)) for a, b in outside), default=steps)
            assert float(alpha[0, 0, y, x]) == pytest.approx(min(distance, steps) / steps)


def test_a_wide_feather_rises_in_steps_that_nobody_sees() -> None:
    width, feather = 300, 200
    drawn = torch.ones(1, 1, 3, width, dtype=torch.bool)
    drawn[..., 0] = False
    alpha = Mask.from_image(drawn, (3, width)).feathered(feather).alpha()[0, 0, 1]
    ramp = (torch.arange(width) / feather).clamp(max=1)
    assert (alpha - ramp).abs().max() <= 1 / 32
    assert alpha[0] == 0 and alpha[1] > 0 and (alpha[feather:] == 1).all()
    assert (alpha.diff() >= 0).all()


def test_feather_fades_inward_only() -> None:
    drawn = torch.zeros(1, 1, 30, 30, dtype=torch.bool)
    drawn[..., 5:25, 5:25] = True
    mask = Mask.from_image(drawn, (30, 30)).feathered(4)
    alpha = mask.alpha()[0, 0]
    assert torch.equal(alpha > 0, drawn[0, 0])
    assert torch.allclose(alpha[15, 5:9], torch.tensor([0.25, 0.5, 0.75, 1.0]))
    assert (alpha[9:21, 9:21] == 1).all()
    whole = Mask.from_image(torch.ones(1, 1, 8, 8, dtype=torch.bool), (8, 8)).feathered(3)
    assert (whole.alpha() == 1).all()


unit = st.floats(0, 1, width=32)


@given(arrays.arrays(np.float32, (5, 7), elements=unit), unit, st.floats(0, 0.5))
def test_softness_mixes_about_the_threshold(
    values: np.ndarray, threshold: float, softness: float
) -> None:
    """Against a reference pixel by pixel."""
    mask = relevance_mask(torch.from_numpy(values)[None, None], (5, 7), threshold, softness)
    alpha, region = mask.alpha()[0, 0], mask.at((5, 7))[0, 0]
    fade = min(softness, threshold / 2, 1 - threshold)
    for y, x in np.ndindex(5, 7):
        above = float(values[y, x]) - threshold
        if abs(above + fade) < 1e-6 or fade < 1e-5:
            continue
        assert bool(region[y, x]) == (above >= -fade)
        expected = min(max((above + fade) / (2 * fade), 0.0), 1.0)
        assert float(alpha[y, x]) == pytest.approx(expected, abs=1e-3 + 1e-6 / fade)
    assert not alpha[~region].any()


@given(arrays.arrays(np.float32, (5, 7), elements=unit), unit)
def test_without_softness_a_mask_is_hard(values: np.ndarray, threshold: float) -> None:
    mask = relevance_mask(torch.from_numpy(values)[None, None], (5, 7), threshold)
    assert torch.equal(mask.alpha(), mask.at((5, 7)).float())
    everything = relevance_mask(mask.scores, (5, 7), 0.0, 0.5)
    assert (everything.alpha() == 1).all()


def test_a_stretched_field_reaches_one_in_every_view() -> None:
    shown = torch.tensor([0.1, 0.2, 0.3, 0.2, 0.5, 0.9]).reshape(2, 1, 1, 3)
    plain = field_mask(shown, (1, 3), 0.5).at((1, 3))
    assert plain.flatten().tolist() == [False, False, False, False, True, True]
    stretched = field_mask(shown, (1, 3), 0.6, stretched=True).at((1, 3))
    assert stretched.flatten().tolist() == [False, False, True, False, False, True]
    flat = field_mask(torch.full((1, 1, 2, 2), 0.7), (2, 2), 0.5, stretched=True)
    assert not flat.at((2, 2)).any()


@given(
    arrays.arrays(np.float32, (3, 1, 3, 4), elements=st.floats(0, 1, width=32)),
    st.sampled_from([0.25, 0.5, 0.8]),
    st.booleans(),
)
def test_a_field_mask_compares_pixel_by_pixel_each_view_stretched_by_its_own_extremes(
    values: np.ndarray, threshold: float, stretched: bool
) -> None:
    values[1] *= 0.1
    found = field_mask(torch.from_numpy(values.copy()), (3, 4), threshold, stretched).at((3, 4))
    for view, inside in zip(values[:, 0], found[:, 0].tolist(), strict=True):
        low, high = (extreme(view.flatten().tolist()) for extreme in (min, max))
        for row in range(3):
            for column in range(4):
                value = float(view[row, column])
                if stretched:
                    value = (value - low) / max(high - low, 1e-12)
                if abs(value - threshold) > 1e-5:
                    assert inside[row][column] == (value >= threshold)


def test_what_a_user_adds_is_not_soft() -> None:
    scores = torch.full((1, 1, 8, 8), 0.1)
    scores[..., 2:4, 2:4] = 0.5
    soft = relevance_mask(scores, (8, 8), 0.5, 0.2)
    assert (soft.alpha()[..., 2:4, 2:4] == 0.5).all() and soft.alpha().sum() == 2
    corrected = soft.grown(1).including(Box(5, 5, 8, 8)).excluding(Box(0, 0, 2, 8))
    alpha = corrected.alpha()[0, 0]
    assert (alpha[5:, 5:] == 1).all() and not alpha[:, :2].any()
    assert (alpha[1:5, 2:5] == 0.5).all() and float(alpha.sum()) == 9 + 0.5 * 12
    assert torch.equal(alpha > 0, corrected.at((8, 8))[0, 0])


def test_a_crop_is_as_soft_as_the_whole() -> None:
    scores = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    mask = relevance_mask(scores, (12, 12), 0.5, 0.2).including(Box(1, 1, 4, 4)).feathered(2)
    box = Box(0, 0, 9, 7)
    part = mask.crop(box)
    assert torch.equal(part.at((7, 9)), mask.at((12, 12))[..., :7, :9])
    hard = replace(mask, feather=0.0), replace(part, feather=0.0)
    torch.testing.assert_close(hard[1].alpha(), hard[0].alpha()[..., :7, :9])
    assert part.feather == 2


def test_crop_and_select() -> None:
    drawn = torch.rand(2, 1, 12, 10) > 0.5
    mask = Mask.from_image(drawn, (12, 10)).including(Box(0, 0, 3, 3))
    part = mask.select([1]).crop(Box(2, 1, 9, 11))
    assert torch.equal(part.at((10, 7)), mask.at((12, 10))[1:, :, 1:11, 2:9])
    assert not mask.emptied([True, False]).excluding(Box(0, 0, 3, 3)).at((12, 10))[0].any()


@pytest.mark.parametrize("bad", [Box(5, 5, 5, 9), Box(40, 0, 50, 9), Box(9, 9, 2, 2)])
def test_boxes_without_pixels_are_refused(bad: Box) -> None:
    mask = Mask.from_image(torch.ones(1, 1, 8, 8, dtype=torch.bool), (8, 8))
    with pytest.raises(WysError, match="holds no pixel"):
        mask.including(bad)


@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_refused() -> None:
    for settings, words in (
        ({"draws": 0}, "draw"),
        ({"draws": 65}, "draw"),
        ({"source": "x"}, "source"),
        ({"space": "x"}, "space"),
        ({"normalisation": "x"}, "normalisation"),
        ({"timesteps": ()}, "relevance timesteps"),
        ({"timesteps": (1.2,)}, "relevance timesteps"),
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": "otsu"}, "threshold"),
        ({"scale": 0.0}, "the scale of a map"),
    ):
        with pytest.raises(WysError, match=words):
            RelevanceSettings(**settings)  # type: ignore[arg-type]
    mask = Mask.from_image(torch.ones(1, 1, 8, 8, dtype=torch.bool), (8, 8))
    with pytest.raises(WysError, match="grows"):
        mask.grown(-1)
    with pytest.raises(WysError, match="softness"):
        RelevanceSettings(softness=0.6)
    with pytest.raises(WysError, match="feathered"):
        mask.feathered(-1)


def test_verdicts() -> None:
    noise = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    local = 0.05 * noise
    local[..., 2:6, 3:8] += 1
    assert relevance(local).verdict == "local"
    assert relevance(1e-3 * noise).verdict == "nothing to edit"
    assert relevance(1 + 0.1 * noise).verdict == "whole image"
    batch = relevance(torch.cat([local, 1e-3 * noise, 1 + 0.1 * noise]))
    assert batch.verdicts == ("local", "nothing to edit", "whole image")
    assert batch.select([2, 0]).verdicts == ("whole image", "local")
    strict = RelevanceSettings(verdict=VerdictSettings(nothing_below=5.0))
    assert replace(relevance(local), settings=strict).verdict == "nothing to edit"


def test_verdict_knows_noise_by_the_spread_of_its_draws() -> None:
    draws = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    settings = RelevanceSettings(draws=8)

    def judged(samples: torch.Tensor) -> str:
        mean, spread = samples.mean(dim=0, keepdim=True), samples.std(dim=0, keepdim=True)
        return RelevanceMap(mean, mean, spread, ("x",), (64, 64), settings).verdict

    assert judged(draws) == "nothing to edit"
    assert judged(draws + 5) == "whole image"
    there = draws.clone()
    there[..., 2:6, 3:8] += 3
    assert judged(there) == "local"


def test_smoothing() -> None:
    raw = torch.rand(2, 1, 9, 7)
    assert smooth(raw, 0) is raw
    assert torch.equal(smooth(raw, 1e-300), raw)
    assert torch.allclose(smooth(torch.ones(1, 1, 9, 7), 1.3), torch.ones(1, 1, 9, 7))
    dot = torch.zeros(1, 1, 15, 15)
    dot[..., 7, 7] = 1
    blurred = smooth(dot, 1.0)[0, 0]
    assert torch.isclose(blurred.sum(), torch.tensor(1.0))
    assert torch.isclose(blurred[7, 8] / blurred[7, 7], torch.tensor(-0.5).exp())
