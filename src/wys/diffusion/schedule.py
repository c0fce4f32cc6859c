"""The noise schedule of a checkpoint, and its solvers as explicit steps from t to t_prev.

Symbols: t in 0..T-1 is the timestep (T = 1000), abar_t the cumulative alpha of the checkpoint's
schedule, z_t = sqrt(abar_t) z0 + sqrt(1 - abar_t) noise. `None` as a timestep means
"clean": the end of denoising.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float, Int
from torch import Tensor

from wys.errors import WysError

Prediction = Literal["epsilon", "v_prediction", "sample"]


@dataclass(frozen=True)
class Schedule:
    """A checkpoint's noise schedule. Holds no state that an edit changes."""

    abar: Float[Tensor, " t"]
    """Cumulative alphas of the training schedule, float32, on the CPU."""
    final_abar: float
    """The cumulative alpha after the last step: 1, or that of t = 0 (`set_alpha_to_one`)."""
    prediction: Prediction
    """What the network predicts."""
    clip: float | None
    """The range to which the predicted clean latent is clipped; None (usual): not at all."""
    config: Mapping[str, Any]
    """The configuration of the DDIM scheduler that gives the timesteps."""

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> "Schedule":
        """The schedule of a diffusers scheduler's configuration, of whatever solver.

        Raises:
            WysError: the scheduler is not one of a discrete diffusion with betas.
        """
        if "beta_schedule" not in config or config.get("thresholding", False):
            raise WysError(
                f"the scheduler {config.get('_class_name', '')} of this editor is not supported; "
                "use an editor trained with a discrete noise schedule (such as DDIM's)."
            )
        # DDIM's own default is to clip; a checkpoint that does not ask for it is not clipped.
        clips = bool(config.get("clip_sample", False))
        ddim = DDIMScheduler.from_config(dict(config), clip_sample=clips)
        prediction = ddim.config["prediction_type"]
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise WysError(f"the prediction type {prediction} of this editor is not supported.")
        reach = ddim.config["clip_sample_range"] if clips else None
        if clips and not (isinstance(reach, int | float) and 0 < reach < math.inf):
            raise WysError(
                f"this editor's scheduler has the clip_sample_range {reach!r}; it must be a number "
                "above 0, or clip_sample false."
            )
        if not bool(((ddim.betas >= 0) & (ddim.betas <= 1)).all()):
            raise WysError(
                "this editor's scheduler has betas beyond 0 and 1; take beta_start and beta_end "
                "from the training."
            )
        return Schedule(
            # A schedule with zero terminal SNR ends at abar = 0, where noise says nothing about
            # the clean latent; the smallest level that float32 carries stands in for it.
            abar=ddim.alphas_cumprod.float().clamp(min=2.0**-24),
            final_abar=float(ddim.final_alpha_cumprod),
            prediction=prediction,
            clip=None if reach is None else float(reach),
            config=ddim.config,
        )

    def timestep(self, fraction: float) -> int:
        """The timestep at a fraction of the diffusion's length (0.8 is 800)."""
        return max(0, min(len(self.abar) - 1, round(fraction * len(self.abar))))

    def timesteps(self, steps: int, start: float = 1.0) -> list[int]:
        """The timesteps of a denoising in `steps` steps, highest first.

        A full denoising (start = 1) visits those of diffusers' DDIMScheduler for the checkpoint's
        spacing; a partial one begins at exactly start * T and spreads its steps evenly down to 0.
        """
        if start < 1:
            first = self.timestep(start)
            steps = min(steps, max(first, 1))
            return [round(first * (steps - i) / steps) for i in range(steps)]
        ddim = DDIMScheduler.from_config(self.config)
        steps = min(steps, len(self.abar))
        ddim.set_timesteps(steps)
        # For some numbers of steps the spacing of diffusers gives one too many, below 0, or begins
        # beyond the noisiest level.
        found = [min(int(t), len(self.abar) - 1) for t in ddim.timesteps if t >= 0]
        return list(dict.fromkeys(found))[:steps]

    def level(self, t: int | Int[Tensor, " b"] | None, like: Tensor) -> Tensor:
        """abar_t as a tensor that broadcasts over latents `like`; t is one or one an item."""
        if t is None:
            return like.new_tensor(self.final_abar)
        level = self.abar[t.cpu() if isinstance(t, Tensor) else t].to(like)
        return level.reshape(-1, 1, 1, 1) if level.ndim else level

    def add_noise(
        self, z0: Float[Tensor, "b c h w"], noise: Tensor, t: int | Int[Tensor, " b"] | None
    ) -> Float[Tensor, "b c h w"]:
        """z0 noised to level t; z0 itself at the end (t is None)."""
        if t is None:
            return z0
        level = self.level(t, z0)
        return level.sqrt() * z0 + (1 - level).sqrt() * noise

    def to_noise(
        self, output: Float[Tensor, "b c h w"], z: Tensor, t: int | Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """The noise eps that a network's output stands for."""
        if self.prediction == "epsilon":
            return output
        level = self.level(t, z)
        if self.prediction == "v_prediction":
            return level.sqrt() * output + (1 - level).sqrt() * z
        return (z - level.sqrt() * output) / (1 - level).sqrt()

    def clean(
        self, z: Float[Tensor, "b c h w"], noise: Tensor, t: int | Int[Tensor, " b"]
    ) -> Float[Tensor, "b c h w"]:
        """The clean latent that predicted noise stands for, clipped where the checkpoint asks."""
        level = self.level(t, z)
        clean = (z - (1 - level).sqrt() * noise) / level.sqrt()
        return clean if self.clip is None else clean.clamp(-self.clip, self.clip)

    def step(
        self, z: Float[Tensor, "b c h w"], noise: Tensor, t: int, t_prev: int | None
    ) -> Float[Tensor, "b c h w"]:
        """One DDIM step from t to t_prev, without randomness (arXiv 2010.02502, equation 12)."""
        target = self.level(t_prev, z)
        return target.sqrt() * self.clean(z, noise, t) + (1 - target).sqrt() * noise

    def multistep(
        self,
        z: Float[Tensor, "b c h w"],
        clean: Float[Tensor, "b c h w"],
        earlier: Float[Tensor, "b c h w"],
        times: tuple[int, int, int],
    ) -> Float[Tensor, "b c h w"]:
        """One step of DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2).

        It is a DDIM step along the line through this clean latent and the one of the step before,
        drawn over the logarithm of the signal-to-noise ratio.

        Args:
            clean: what is predicted at t.
            earlier: what was predicted at t_before.
            times: t_before, t and t_prev, falling.
        """
        before, here, there = (self._log_ratio(t) for t in times)
        clean = clean + (there - here) / (here - before) / 2 * (clean - earlier)
        level, target = self.level(times[1], z), self.level(times[2], z)
        noise = (z - level.sqrt() * clean) / (1 - level).sqrt()
        return target.sqrt() * clean + (1 - target).sqrt() * noise

    def _log_ratio(self, t: int) -> float:
        """log(sqrt(abar) / sqrt(1 - abar)): half the logarithm of the signal-to-noise ratio."""
        level = float(self.abar[t])
        return 0.5 * (math.log(level) - math.log1p(-level))


def pairs(timesteps: list[int]) -> list[tuple[int, int | None]]:
    """(t, t_prev) of every step; the last one leads to None, the clean latent."""
    return list(zip(timesteps, [*timesteps[1:], None], strict=True))


def levels(schedule: Schedule, fractions: tuple[float, ...]) -> Int[Tensor, " n"]:
    """The timesteps at fractions of the diffusion's length, as a tensor."""
    return torch.tensor([schedule.timestep(fraction) for fraction in fractions])
