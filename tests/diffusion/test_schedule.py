"""The explicit steps and their timesteps, against diffusers' schedulers."""

from itertools import pairwise

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from wys.diffusion.full_size import SCHEDULER
from wys.diffusion.schedule import Schedule, levels, pairs
from wys.errors import WysError


def schedule(**changes: object) -> Schedule:
    return Schedule.from_config(DDIMScheduler(**{**SCHEDULER, **changes}).config)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 3, 20, 30, 999])
def test_full_timesteps_are_diffusers(spacing: str, steps: int) -> None:
    theirs = DDIMScheduler(**SCHEDULER, timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    ours = schedule(timestep_spacing=spacing)
    assert ours.timesteps(steps) == theirs.timesteps.tolist()
    assert pairs(ours.timesteps(steps))[-1][1] is None


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_any_number_of_steps_falls_from_level_to_level(spacing: str) -> None:
    """Also where diffusers' rounding gives one step too many, or one that no level belongs to."""
    ours = schedule(timestep_spacing=spacing, steps_offset=1 if spacing == "leading" else 0)
    for steps in (*range(1, 1000), 1000, 1001, 5000):
        times = ours.timesteps(steps)
        assert min(steps, 999) <= len(times) <= min(steps, 1000)
        assert all(a > b for a, b in pairwise(times)) and times[-1] >= 0 and times[0] <= 999


def test_twenty_steps_start_at_951() -> None:
    assert schedule().timesteps(20)[0] == 951


@pytest.mark.parametrize("start", [0.02, 0.5, 0.8, 0.999])
def test_partial_timesteps_begin_where_asked_and_fall(start: float) -> None:
    ours = schedule()
    for steps in (1, 7, 20, 600):
        times = ours.timesteps(steps, start)
        assert times[0] == ours.timestep(start)
        assert all(a > b for a, b in pairwise(times))
        assert min(times) >= 0
        assert len(times) == min(steps, times[0])
    assert levels(ours, (0.8, 1.0)).tolist() == [800, 999]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("to_one", [False, True])
def test_a_step_is_diffusers_step(prediction: str, clip: bool, to_one: bool) -> None:
    changes = {"prediction_type": prediction, "clip_sample": clip, "set_alpha_to_one": to_one}
    theirs = DDIMScheduler(**{**SCHEDULER, **changes})
    ours = schedule(**changes)
    theirs.set_timesteps(20)
    generator = torch.Generator().manual_seed(0)
    z, output = torch.randn(2, 2, 4, 8, 8, generator=generator)
    for t, t_prev in pairs(ours.timesteps(20)):
        expected = theirs.step(output, t, z, eta=0).prev_sample
        if clip and prediction != "epsilon":
            # diffusers derives the noise from the clean latent before it is clipped; so do we.
            assert ours.clip == 1.0
        actual = ours.step(z, ours.to_noise(output, z, t), t, t_prev)
        # Recovering a clean latent from noise at high t costs digits of float32.
        assert torch.allclose(actual, expected, atol=1e-4)


def predicted(z: torch.Tensor, t: int) -> torch.Tensor:
    """Noise as a network might predict it: of z and t, and not along a line."""
    return 0.8 * torch.tanh(z + t / 1000) + 0.1 * z.roll(1, -1)


@pytest.mark.parametrize("steps", [2, 3, 8, 25])
def test_multisteps_are_those_of_diffusers_solver(steps: int) -> None:
    theirs = DPMSolverMultistepScheduler.from_config(DDIMScheduler(**SCHEDULER).config)
    theirs.set_timesteps(steps)
    ours = schedule(set_alpha_to_one=True)
    z = expected = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    times = theirs.timesteps.tolist()
    cleans: list[torch.Tensor] = []
    for i, (t, t_prev) in enumerate(pairs(times)):
        noise = predicted(z, t)
        cleans.append(ours.clean(z, noise, t))
        if i == 0 or t_prev is None:
            z = ours.step(z, noise, t, t_prev)
        else:
            z = ours.multistep(z, cleans[-1], cleans[-2], (times[i - 1], t, t_prev))
        expected = theirs.step(predicted(expected, t), t, expected).prev_sample
        assert torch.allclose(z, expected, atol=1e-3), t


def test_a_multistep_along_a_straight_line_is_a_plain_step() -> None:
    """Where the prediction did not change there is nothing to extrapolate."""
    ours, generator = schedule(), torch.Generator().manual_seed(1)
    z, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    clean = ours.clean(z, noise, 600)
    plain = ours.step(z, noise, 600, 400)
    assert torch.allclose(ours.multistep(z, clean, clean, (800, 600, 400)), plain, atol=1e-5)


@pytest.mark.parametrize("deviation", [0.3, 2.0])
def test_multisteps_come_nearer_to_the_exact_solution(deviation: float) -> None:
    """Where the clean latents are normal with some deviation, everything is known exactly."""
    ours = schedule(set_alpha_to_one=True)
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)).double()

    def variance(t: int) -> float:
        level = float(ours.abar[t])
        return level * deviation**2 + 1 - level

    def error(multistep: bool, steps: int) -> float:
        z, earlier = start * variance(999) ** 0.5, None
        times = [round(999 - i * 799 / steps) for i in range(steps + 1)]
        for i, (t, t_prev) in enumerate(pairs(times)[:-1]):
            assert t_prev is not None
            noise = (1 - float(ours.abar[t])) ** 0.5 * z / variance(t)
            clean = ours.clean(z, noise, t)
            if multistep and earlier is not None:
                z = ours.multistep(z, clean, earlier, (times[i - 1], t, t_prev))
            else:
                z = ours.step(z, noise, t, t_prev)
            earlier = clean
        exact = start * variance(times[-1]) ** 0.5
        return float((z - exact).norm() / exact.norm())

    assert error(True, 20) < 0.3 * error(False, 20)
    # Of second order: half the step, a quarter of the error; DDIM is of first order.
    assert error(True, 40) < 0.3 * error(True, 20)
    assert 0.45 * error(False, 20) < error(False, 40) < 0.55 * error(False, 20)


def test_v_and_clean_predictions_stand_for_the_same_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    z0, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
    t = torch.tensor([20, 500, 980])
    for prediction in ("epsilon", "v_prediction", "sample"):
        ours = schedule(prediction_type=prediction)
        a = ours.level(t, z0)
        z = ours.add_noise(z0, noise, t)
        v = a.sqrt() * noise - (1 - a).sqrt() * z0
        output = {"epsilon": noise, "v_prediction": v, "sample": z0}[prediction]
        assert torch.allclose(ours.to_noise(output, z, t), noise, atol=1e-4)
        single = ours.to_noise(output[1:2], z[1:2], 500)
        assert torch.allclose(single, noise[1:2], atol=1e-5)


def test_noising_matches_diffusers_and_ends_clean() -> None:
    ours, theirs = schedule(), DDIMScheduler(**SCHEDULER)
    z0, noise = torch.randn(2, 3, 4, 8, 8)
    t = torch.tensor([1, 400, 999])
    assert torch.allclose(ours.add_noise(z0, noise, t), theirs.add_noise(z0, noise, t), atol=1e-6)
    assert ours.add_noise(z0, noise, None) is z0


def test_zero_terminal_snr_stays_finite() -> None:
    ours = schedule(
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        set_alpha_to_one=True,
    )
    z, v = torch.randn(2, 1, 4, 8, 8)
    t = ours.timesteps(10)[0]
    assert t == 999
    stepped = ours.step(z, ours.to_noise(v, z, t), t, None)
    # At abar = 0 the clean latent is -v.
    assert torch.allclose(stepped, -v, atol=0.01)


def test_any_discrete_solver_gives_its_schedule() -> None:
    betas = {k: SCHEDULER[k] for k in ("beta_start", "beta_end", "beta_schedule", "steps_offset")}
    ours = Schedule.from_config(EulerAncestralDiscreteScheduler(**betas).config)
    assert ours.clip is None
    assert ours.timesteps(20)[0] == 951
    assert torch.allclose(ours.abar, schedule().abar)


def test_other_schedules_are_refused() -> None:
    with pytest.raises(WysError, match="FlowMatchEulerDiscreteScheduler"):
        Schedule.from_config(
            {
                **FlowMatchEulerDiscreteScheduler().config,
                "_class_name": "FlowMatchEulerDiscreteScheduler",
            }
        )
    with pytest.raises(WysError, match="prediction type"):
        Schedule.from_config({**SCHEDULER, "prediction_type": "flow"})
