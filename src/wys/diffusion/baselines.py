"""The same jobs done by others, with the same networks: what `wys bench speed` compares with.

`diffusers_edit` is diffusers' own pipeline. `published_relevance` and `published_edit` do the work
of the published program: all three branches at every prediction, a separate pass for the map, whose
encoding is not shared with the edit, and the background noised to the level just left.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import DDIMScheduler
from jaxtyping import Float
from torch import Tensor

from wys.diffusion.conditioning import Branch, Guidance
from wys.diffusion.editor import Editor
from wys.diffusion.schedule import pairs
from wys.diffusion.settings import PAPER
from wys.relevance import normalise

ALL: tuple[Branch, ...] = ("full", "image", "none")


@torch.no_grad()
def diffusers_edit(
    editor: Editor,
    images: Float[Tensor, "b 3 h w"],
    instructions: Sequence[str],
    guidance: Guidance,
    steps: int,
    latents: Float[Tensor, "b c hl wl"],
) -> Float[Tensor, "b 3 h w"]:
    """diffusers' StableDiffusionInstructPix2PixPipeline with DDIM, from given start latents.

    Below an image guidance of 1 diffusers drops all guidance.
    """
    pipeline = editor.pipeline
    # A pipeline of its own around the same networks: the scheduler of a call keeps state.
    own = type(pipeline)(
        **{
            **pipeline.components,
            "scheduler": DDIMScheduler.from_config(editor.schedule.config),
        },
        requires_safety_checker=False,
    )
    own.set_progress_bar_config(disable=True)
    result = own(
        prompt=list(instructions),
        image=images,
        num_inference_steps=steps,
        guidance_scale=guidance.text,
        image_guidance_scale=guidance.image,
        latents=latents.to(editor.device, editor.unet.dtype),
        output_type="pt",
    )
    output: Tensor = result.images
    return output.float()


@torch.no_grad()
def published_relevance(
    editor: Editor,
    images: Float[Tensor, "b 3 h w"],
    instructions: Sequence[str],
    noise: Float[Tensor, "b c hl wl"],
    level: float = 0.8,
) -> Float[Tensor, "b 1 hl wl"]:
    """The raw relevance by a pass of its own: encode, predict all three branches, subtract two."""
    told = editor.condition(images, instructions)
    t = editor.schedule.timestep(level)
    z = editor.schedule.add_noise(told.z0, noise.to(told.z0), t)
    return editor.predict(z, t, told, ALL).difference()


@torch.no_grad()
def published_edit(
    editor: Editor,
    images: Float[Tensor, "b 3 h w"],
    instructions: Sequence[str],
    guidance: Guidance,
    steps: int,
    noise: Float[Tensor, "b c hl wl"],
    threshold: float = 0.5,
) -> Float[Tensor, "b 3 h w"]:
    """Map and edit of the published program, of images at the editor's own size."""
    raw = published_relevance(editor, images, instructions, noise)
    relevance = normalise(raw, PAPER.relevance)
    mask = relevance >= threshold

    told = editor.condition(images, instructions)
    schedule, noise = editor.schedule, noise.to(told.z0)
    levels = pairs(schedule.timesteps(steps))
    z = schedule.add_noise(told.z0, noise, levels[0][0])
    for t, t_prev in levels:
        predicted = editor.predict(z, t, told, ALL)
        full, image, none = (predicted.branch(branch) for branch in ALL)
        guided = none + guidance.image * (image - none) + guidance.text * (full - image)
        background = schedule.add_noise(told.z0, noise, t)
        z = torch.where(mask, schedule.step(z, guided, t, t_prev), background)
    decoded = editor.decode(z)
    fine = torch.nn.functional.interpolate(relevance, size=decoded.shape[-2:], mode="bilinear")
    return torch.where(fine >= threshold, decoded, images.to(decoded))
