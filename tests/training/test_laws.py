"""Laws of the small parts: schedule, average, packing, losses, metrics."""

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wys.training.denoiser import (
    balanced_bce,
    class_shares,
    dice_loss,
    diffusion_loss,
    draw_timesteps,
    noised,
)
from wys.training.denoising import DenoiserSettings, Phase
from wys.training.ema import Ema, decay_at
from wys.training.latents import Batch, pool_ids, pool_mask
from wys.training.progress import append_log, meter, read_log
from wys.training.schedule import Schedule
from wys.training.triplets import pack_bits, unpack_bits
from wys.training.validation import grounded, iou


@given(total=st.integers(200, 10_000), images=st.integers(0, 20_000))
def test_rate_stays_between_zero_and_peak_and_ends_at_the_final_fraction(total, images):
    schedule = Schedule(total, peak=2e-3, warmup=100, final=0.1)
    assert 0 < schedule.rate(images) <= 2e-3 * (1 + 1e-9)
    assert schedule.rate(100) == pytest.approx(2e-3)
    assert schedule.rate(max(images, total)) == pytest.approx(2e-4)


def test_a_longer_total_gives_a_higher_rate_at_the_same_place():
    assert Schedule(20_000, warmup=100).rate(9_000) > Schedule(10_000, warmup=100).rate(9_000)


def test_average_is_the_weighted_sum_of_all_past_weights():
    weight = torch.nn.Parameter(torch.tensor([3.0, -1.0]))
    history = [weight.detach().clone()]
    ema = Ema([weight], decay=0.9)
    for step in range(1, 30):
        with torch.no_grad():
            weight += torch.randn(2, generator=torch.Generator().manual_seed(step))
        history.append(weight.detach().clone())
        ema.update(step)
    expected = torch.zeros(2)
    for index, value in enumerate(history):
        own = 1.0 if index == 0 else 1 - decay_at(index, 0.9)
        later = math.prod(decay_at(step, 0.9) for step in range(index + 1, 30))
        expected += own * later * value
    torch.testing.assert_close(ema.average[0], expected)


def test_applied_gives_the_weights_back():
    weight = torch.nn.Parameter(torch.ones(3))
    ema = Ema([weight])
    with torch.no_grad():
        weight.fill_(5.0)
    with ema.applied():
        assert weight.tolist() == [1.0, 1.0, 1.0]
    assert weight.tolist() == [5.0, 5.0, 5.0]


@given(seed=st.integers(0, 1000))
def test_packed_bits_come_back(seed):
    mask = torch.rand(2, 5, 16, generator=torch.Generator().manual_seed(seed)) < 0.5
    packed = pack_bits(mask)
    assert packed.shape == (2, 5, 2)
    assert torch.equal(unpack_bits(packed), mask)


def test_pooling_counts_pixels():
    ids = torch.zeros(1, 8, 8, dtype=torch.uint8)
    ids[0, :2, :3] = 2
    ids[0, 4:, 4:] = 1
    pooled = pool_ids(ids, 3, 4)
    assert pooled.shape == (1, 3, 2, 2)
    assert pooled[0, 1].tolist() == [[round(255 * 6 / 16), 0], [0, 0]]
    assert pooled[0, 0].tolist() == [[0, 0], [0, 255]]
    assert torch.equal(pool_mask(pack_bits(ids == 2), 4)[0], pooled[0, 1])
    assert pool_ids(ids, 0, 4).shape == (1, 0, 2, 2)


@given(weight=st.floats(0, 10), seed=st.integers(0, 100))
def test_diffusion_loss_of_a_constant_error_does_not_depend_on_the_weights(weight, seed):
    changed = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    clean = torch.zeros(3, 2, 4, 4)
    loss = diffusion_loss(clean + 2, clean, changed, weight)
    assert float(loss) == pytest.approx(4, rel=1e-5)


def test_balanced_loss_of_no_opinion_is_log_two_for_any_area():
    share = torch.zeros(2, 1, 8, 8)
    share[0, 0, :4, :1] = 1
    share[1, 0, :7] = 1
    torch.testing.assert_close(
        balanced_bce(torch.zeros_like(share), share), torch.full((2,), math.log(2))
    )


def test_the_overlap_is_that_of_counted_sets():
    draw = torch.Generator().manual_seed(1)
    predicted, truth = (torch.rand(3, 1, 8, 8, generator=draw) > 0.6 for _ in range(2))
    loss = dice_loss(torch.where(predicted, 50.0, -50.0), truth.float())
    for i in range(3):
        first, second = set(predicted[i].nonzero()), set(truth[i].nonzero())
        both = sum(bool((a == b).all()) for a in first for b in second)
        assert float(loss[i]) == pytest.approx(
            1 - (2 * both + 1) / (len(first) + len(second) + 1), abs=1e-5
        )


def test_where_nothing_changes_the_overlap_asks_for_nothing():
    empty = torch.zeros(1, 1, 8, 8)
    assert float(dice_loss(torch.full_like(empty, -50.0), empty)) == pytest.approx(0)
    assert float(dice_loss(torch.full_like(empty, 50.0), empty)) > 0.9


def test_class_shares_add_up_to_the_coverage():
    coverage = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) / 3
    classes = torch.tensor([[0, 2, -1], [1, 1, 0]])
    shares = class_shares(coverage, classes, 4)
    torch.testing.assert_close(shares[1].sum(0), coverage[1].sum(0))
    torch.testing.assert_close(shares[0, 2], coverage[0, 1])
    torch.testing.assert_close(shares[1, 1], coverage[1, :2].sum(0))
    assert shares[0].sum() < coverage[0].sum()


def test_timesteps_are_in_range_and_often_high():
    t = draw_timesteps(4000, 0.4, torch.Generator().manual_seed(0))
    assert int(t.min()) >= 0 and int(t.max()) <= 999
    # 0.4 directly, and a tenth of the rest.
    assert float((t >= 900).float().mean()) == pytest.approx(0.46, abs=0.03)


def test_the_noised_latent_is_that_of_the_input_where_asked():
    before, after = torch.full((4, 2, 4, 4), -1.0), torch.full((4, 2, 4, 4), 3.0)
    batch = Batch(
        before,
        after,
        *(torch.zeros(4, 1, 4, 4),) * 2,
        *(torch.zeros(4, 1).long(),) * 3,
        torch.zeros(4, 1, 4, 4),
        *(torch.zeros(4, 1).long(),) * 3,
        target=torch.zeros(4).long(),
        naming=torch.zeros(4).long(),
        tokens=torch.ones(4, 5).long(),
        kinds=["remove"] * 4,
    )
    text = torch.tensor([True, True, False, False])
    given = noised(
        batch,
        0.5,
        torch.zeros(4).long(),
        torch.zeros_like(before),
        torch.ones(1000),
        null_tokens=torch.zeros(5).long(),
        has_text=text,
        has_image=torch.ones(4).bool(),
        from_input=torch.tensor([False, True, False, True]),
    )
    assert given.sample[:, 0, 0, 0].tolist() == [1.5, -0.5, 1.5, -0.5]
    assert given.sample[:, 2, 0, 0].tolist() == [-1.0] * 4
    # With words the edit is wanted whatever is noised; without them, what was noised.
    assert given.clean[:, 0, 0, 0].tolist() == [1.5, 1.5, 1.5, -0.5]
    assert given.tokens[:, 0].tolist() == [1, 1, 0, 0]


def test_grounding_prefers_the_object_with_the_highest_mean():
    coverage = torch.zeros(2, 3, 4, 4)
    coverage[:, 0, :2, :2] = 1
    coverage[:, 1, 3:, 3:] = 1
    values = torch.zeros(2, 4, 4)
    values[0, 3, 3] = 1  # all of the small object, in slot 2
    values[1, 0, 0] = 1
    assert grounded(values, coverage, torch.tensor([2, 2])).tolist() == [1.0, 0.0]
    assert iou(coverage[:, 0], coverage[:, 0]).tolist() == [1.0, 1.0]
    # A map that says nothing points at nothing; one object alone is always meant.
    assert grounded(torch.ones(2, 4, 4), coverage, torch.tensor([1, 2])).tolist() == [0.0, 0.0]
    assert grounded(values, coverage[:, :1], torch.tensor([1, 1])).tolist() == [1.0, 1.0]


def test_phases_follow_each_other():
    settings = DenoiserSettings(phases=(Phase(64, 100, 10), Phase(128, 50, 5)))
    assert settings.images == 150
    assert [settings.phase(n).size for n in (0, 99, 100, 149, 150)] == [64, 64, 128, 128, 128]


def test_the_time_left_goes_by_pixels(monkeypatch):
    settings = DenoiserSettings(phases=(Phase(64, 100, 10), Phase(128, 50, 5)))
    assert [settings.pixels(n) / 64**2 for n in (0, 40, 100, 110, 150, 160)] == [
        0,
        40,
        100,
        140,
        300,
        340,
    ]
    clock = iter(range(10))
    seconds = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr("wys.training.progress.time", seconds)
    with meter("quiet", 150, shown=False) as plain:
        plain.update(10), plain.update(20)
        assert plain.seconds_left == 13
    with meter("quiet", 150, shown=False, work=settings.pixels) as bar:
        assert bar.seconds_left == math.inf
        bar.update(10), bar.update(20)
        assert bar.rate == 10 and bar.seconds_left == 28
        bar.update(160)
        assert bar.seconds_left == 0


def test_log_leaves_out_what_a_kill_undid(tmp_path):
    log = tmp_path / "log.jsonl"
    for images in (10, 20, 30, 20, 40):
        append_log(log, {"stage": "a", "images": images})
    append_log(log, {"stage": "b", "images": 5})
    assert [entry["images"] for entry in read_log(log, "a")] == [10, 20, 40]


def test_a_line_that_was_cut_short_costs_that_line_alone(tmp_path):
    log = tmp_path / "log.jsonl"
    append_log(log, {"stage": "a", "images": 10})
    log.write_text(log.read_text() + '{"stage": "a", "im')
    assert [entry["images"] for entry in read_log(log, "a")] == [10]
    for images in (20, 30):
        append_log(log, {"stage": "a", "images": images})
    assert [entry["images"] for entry in read_log(log, "a")] == [10, 20, 30]
