"""Masked denoising: the edit happens inside the mask, the background follows the input's noise.

(Mirzaei et al., arXiv 2308.08947, section 4.2, with the background at the level just reached.)
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wys.diffusion.conditioning import Conditioning, Guidance, Sight
from wys.diffusion.noise import NoisePrediction
from wys.diffusion.schedule import pairs
from wys.diffusion.window import WindowSettings
from wys.errors import WysError

if TYPE_CHECKING:
    from wys.diffusion.editor import Editor


Solver = Literal["ddim", "dpm++"]
Blend = Literal["reached", "published"]

MOST_STEPS = 1000
"""As many as there are timesteps."""
UNGUIDED = Guidance(text=1.0, image=1.0)
"""What the network predicts with image and instruction, as it is: the branch `full` alone."""


@dataclass(frozen=True)
class EditSettings:
    """How an image is denoised. The defaults are the preset `paper`."""

    guidance: Guidance = field(default_factory=Guidance)
    """How far to follow the instruction and the image."""
    steps: int = 20
    """Denoising steps."""
    start: float = 1.0
    """The noise level to start from, as a fraction of the diffusion's length: 1 is a full edit,
    less stays closer to the input's layout."""
    blend: Blend = "reached"
    """Noise level of the background after a step: the one reached, or, as in the published program,
    the one just left (one step too noisy; for comparison)."""
    guided: tuple[float, float] = (0.0, 1.0)
    """Noise levels at which the edit is guided, as fractions of the diffusion's length; at others
    the network's own answer is followed, which costs one branch (arXiv 2404.07724)."""
    window: WindowSettings | None = None
    """Denoise only a window of the latents around the mask; None: all of them."""
    solver: Solver = "ddim"
    """ddim: each step for itself, of first order; dpm++: each with the one before in view, of
    second order where the network's answer changes smoothly (DPM-Solver++ 2M, arXiv 2211.01095)."""

    def __post_init__(self) -> None:
        for name, known in (("solver", get_args(Solver)), ("blend", get_args(Blend))):
            if getattr(self, name) not in known:
                raise WysError(
                    f"the {name} of an edit is one of {', '.join(known)}, not "
                    f"{getattr(self, name)}."
                )
        if self.steps not in range(1, MOST_STEPS + 1):
            raise WysError(
                f"an edit has a whole number of 1 to {MOST_STEPS} steps, not {self.steps}."
            )
        if not 0 < self.start <= 1:
            raise WysError(
                f"the start of an edit is a fraction above 0, up to 1, not {self.start}."
            )
        if len(self.guided) != 2 or not 0 <= self.guided[0] <= self.guided[1] <= 1:
            raise WysError(
                "an edit is guided between two levels, from a fraction of 0 or more up to one of 1 "
                f"or less, not {self.guided}."
            )

    def guidance_at(self, fraction: float) -> Guidance:
        """The guidance at a noise level, given as a fraction of the diffusion's length."""
        low, high = self.guided
        return self.guidance if low <= fraction <= high else UNGUIDED


@dataclass(frozen=True)
class Begun:
    """Steps of an edit that are done."""

    steps: int
    """How many, 1 or more."""
    latents: Float[Tensor, "b c h w"]
    """What they came to."""
    clean: Float[Tensor, "b c h w"]
    """The clean latents that the last of them took for the end."""


@dataclass(frozen=True)
class DenoisingStep:
    """The state after one step of denoising."""

    index: int
    """1 for the first step, `count` for the last."""
    count: int
    timestep: int | None
    """The level just reached, None for clean."""
    latents: Float[Tensor, "b c h w"]
    clean: Float[Tensor, "b c h w"]
    """The clean latents that the step took for the end, at the level that it left."""
    prediction: NoisePrediction
    """What the step followed, at the level that it left."""
    left: int
    """The timestep of that level."""
    noised: Float[Tensor, "b c h w"]
    """The latents at that level."""


def denoise(
    editor: "Editor",
    conditioning: Conditioning,
    mask: Bool[Tensor, "b 1 h w"],
    noise: Float[Tensor, "b c h w"],
    settings: EditSettings,
    start: Float[Tensor, "b c h w"] | None = None,
    *,
    relevance: Float[Tensor, "b 1 h w"] | None = None,
    resume: Begun | None = None,
    look: tuple[Sight, ...] = (),
) -> Iterator[DenoisingStep]:
    """Denoises `start` noised to the first level, following the input outside the mask.

    Args:
        mask: where to edit, at latent size; true everywhere is plain InstructPix2Pix.
        noise: one sample a item, used for the start and for every background.
        start: the clean latent that the edit starts from, scaled; None takes the input's, z0.
        relevance: R at latent size, for soft guidance.
        resume: steps done without a mask, to go on from.
        look: what to predict besides what the guidance needs: more branches, the relevance head.

    Yields:
        the state after each step; the last one's latents are clean.
    """
    schedule = editor.schedule
    steps = pairs(schedule.timesteps(settings.steps, settings.start))
    noise = noise.to(conditioning.z0)
    z = schedule.add_noise(conditioning.z0 if start is None else start, noise, steps[0][0])
    done, earlier = 0, None
    if resume is not None:
        done, z, earlier = resume.steps, resume.latents, resume.clean
        level = _background_level(settings, *steps[done - 1])
        z = torch.where(mask, z, schedule.add_noise(conditioning.z0, noise, level))
    for index, (t, t_prev) in enumerate(steps[done:], start=done + 1):
        guidance = settings.guidance_at(t / len(schedule.abar))
        more = [b for b in look if b != "change" and b not in guidance.branches]
        branches = (*guidance.branches, *more)
        prediction = editor.predict(z, t, conditioning, branches, change="change" in look)
        eps = prediction.guided(guidance, relevance)
        clean = schedule.clean(z, eps, t)
        # The first step has none before it, and the last one leads to no noise, infinitely far.
        left = z
        if settings.solver == "ddim" or earlier is None or t_prev is None:
            z = schedule.step(left, eps, t, t_prev)
        else:
            z = schedule.multistep(left, clean, earlier, (steps[index - 2][0], t, t_prev))
        earlier = clean
        level = _background_level(settings, t, t_prev)
        background = schedule.add_noise(conditioning.z0, noise, level)
        z = torch.where(mask, z, background)
        yield DenoisingStep(index, len(steps), t_prev, z, clean, prediction, t, left)


def _background_level(settings: EditSettings, t: int, t_prev: int | None) -> int | None:
    """The noise level of the background after the step from t to t_prev."""
    return t_prev if settings.blend == "reached" else t
