"""Pictures of training: loss curves and sample sheets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionInstructPix2PixPipeline
from jaxtyping import Float
from torch import Tensor

from wys.image import from_model, labelled_sheet, overlay_heat, to_model, write_image
from wys.seeds import generator
from wys.store import write_atomically
from wys.training.progress import read_log
from wys.training.triplets import require_shards

SHEET_ROWS = 8
"""Triplets on a sample sheet."""
LETTERS = 38
"""Of an instruction, as many as fit above an image."""


@torch.no_grad()
def reconstruction_sheet(vae: AutoencoderKL, images: Float[Tensor, "b 3 h w"], path: Path) -> None:
    """Images beside their reconstruction and ten times the error."""
    values = to_model(images).to(vae.device, vae.dtype)
    outputs = from_model(vae.decode(vae.encode(values).latent_dist.mode()).sample.float()).cpu()
    rows = [
        [("image", image), ("autoencoder", output), ("10 x error", (10 * (image - output).abs()))]
        for image, output in zip(images, outputs.clamp(0, 1), strict=True)
    ]
    write_image(path, labelled_sheet(rows, height=images.shape[-2]))


@torch.no_grad()
def sample_sheet(
    pipeline: StableDiffusionInstructPix2PixPipeline,
    data: Path,
    size: int,
    head: Float[Tensor, "b h w"],
    difference: Float[Tensor, "b h w"],
    path: Path,
) -> None:
    """The first validation triplets beside their edits and the maps of where to edit."""
    pipeline.set_progress_bar_config(disable=True)
    count = head.shape[0]
    instructions, before, after = _held_out(data, size, count)
    edited = pipeline(
        instructions,
        image=before,
        num_inference_steps=10,
        guidance_scale=1.5,
        image_guidance_scale=1.2,
        generator=[generator(0, item, "sheet") for item in range(count)],
        output_type="pt",
    ).images.cpu()
    spread = difference / difference.amax(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    rows = [
        [
            (_title(instructions[i]), before[i]),
            ("truth", after[i]),
            ("edited", edited[i]),
            ("change head", overlay_heat(before[i], head[i][None].cpu().float())),
            ("difference", overlay_heat(before[i], spread[i][None].cpu().float())),
        ]
        for i in range(count)
    ]
    write_image(path, labelled_sheet(rows, height=256))


def map_sheet(data: Path, size: int, maps: Float[Tensor, "b h w"], path: Path) -> None:
    """The first validation triplets beside maps of where to edit, in [0, 1]."""
    count = maps.shape[0]
    instructions, before, after = _held_out(data, size, count)
    rows = [
        [
            (_title(instructions[i]), before[i]),
            ("truth", after[i]),
            ("map", overlay_heat(before[i], maps[i][None].cpu().float())),
        ]
        for i in range(count)
    ]
    write_image(path, labelled_sheet(rows, height=256))


def _held_out(
    data: Path, size: int, count: int
) -> tuple[list[str], Float[Tensor, "b 3 h w"], Float[Tensor, "b 3 h w"]]:
    """The first validation triplets: instructions, images before and after."""
    shard = require_shards(data, "validation", size)[0]
    before = shard.images(shard.tensors["scene"][:count].long(), "before")
    return shard.instructions[:count], before, shard.images(torch.arange(count), "after")


def _title(instruction: str) -> str:
    return instruction if len(instruction) <= LETTERS else f"{instruction[: LETTERS - 3]}..."


def draw_curves(log: Path, stage: str, quantities: Sequence[str], path: Path) -> None:
    """One panel for each quantity of a stage's log, over images seen."""
    from matplotlib.figure import Figure

    entries: list[dict[str, Any]] = read_log(log, stage)
    figure = Figure(figsize=(4 * len(quantities), 3), layout="constrained")
    for index, quantity in enumerate(quantities):
        axes = figure.add_subplot(1, len(quantities), index + 1)
        points = [(e["images"], e[quantity]) for e in entries if e.get(quantity) is not None]
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".")
        axes.set_title(quantity)
        axes.set_xlabel("images seen")
        axes.grid(alpha=0.3)
    with write_atomically(path) as temporary:
        figure.savefig(temporary)
