"""What a training will take, told before it begins: its images, and the time of steps tried out."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from wys.diffusion.editor import sight_channels
from wys.training.autoencoder import AutoencoderSettings, Reconstruction, build_autoencoder
from wys.training.denoiser import LABELS, Heads, NetworkSettings, build_unet
from wys.training.denoising import DenoiserSettings
from wys.training.learner import position_of
from wys.training.locator import LocatorSettings
from wys.training.progress import duration

TRIED = 4
"""Images of a step that is tried out on a processor, at most: enough for its time per image."""
WORDS = 16
"""Tokens that a step is tried out with; their number hardly matters."""


def plan_in_words(
    autoencoder: AutoencoderSettings | None,
    denoiser: DenoiserSettings | None,
    locator: LocatorSettings | None,
    out: Path,
    *,
    network: NetworkSettings,
    size: int,
    factor: int,
    latent_channels: int,
    processes: int,
    device: str,
    precision: str,
) -> str:
    """What is left to be learnt in `out`, and about how long that takes on this machine.

    Args:
        autoencoder: None where it is not trained; denoiser and locator alike.
        network: of the denoiser, which the locator's is like.
        size: of the editor's images in pixels.
        factor: pixels to a latent pixel.
    """
    trial = _Trial(processes, device, precision)
    parts, seconds = [], 0.0
    denoising = 2 * latent_channels, sum(Heads(latent_channels).sizes)
    if autoencoder is not None:
        left = autoencoder.images - _seen(out, "autoencoder")
        if left > 0:
            parts.append(f"{left:,} images for the autoencoder")
            seconds += left * trial.autoencoder(autoencoder, size)
    seen = _seen(out, "denoiser")
    begin, phases = 0, []
    for phase in () if denoiser is None else denoiser.phases:
        left = min(begin + phase.images - seen, phase.images)
        begin += phase.images
        if left > 0:
            phases.append(f"{left:,} of {phase.size} pixels")
            seconds += left * trial.unet(network, denoising, phase.size // factor, phase.batch)
    if phases:
        parts.append(f"{max(begin - seen, 0):,} for the editor ({', '.join(phases)})")
    if locator is not None and (left := locator.images - _seen(out, "locator")) > 0:
        parts.append(f"{left:,} {'' if parts else 'images '}for the locator")
        narrow = replace(network, channels=locator.channels)
        locating, side = (sight_channels(latent_channels), sum(LABELS)), size // factor
        seconds += left * trial.unet(narrow, locating, side, locator.batch)
        seconds += left * trial.unet(network, denoising, side, locator.batch, learns=False)
    if not parts:
        return f"Plan: nothing is left to be learnt; the editor has seen {seen:,} images."
    return (
        f"Plan: {', '.join(parts)}; about {duration(seconds)} (hours, minutes, seconds) by a step "
        "tried out here, not compiled. --images sets another length."
    )


def _seen(out: Path, stage: str) -> int:
    """The images that a stage has behind it."""
    state = out / "state" / f"{stage}.safetensors"
    return position_of(state).images if state.exists() else 0


class _Trial:
    """Seconds for an image, by a step on noise; without losses and the optimiser, which are small.

    Args:
        processes: they share each batch, and the machine's cores.
    """

    def __init__(self, processes: int, device: str, precision: str) -> None:
        self.processes, self.device, self.precision = processes, device, precision

    def autoencoder(self, settings: AutoencoderSettings, size: int) -> float:
        network = Reconstruction(build_autoencoder(settings, size), settings.noise)
        for part in (network.vae.encoder, network.vae.quant_conv):
            part.requires_grad_(False)
        network.to(self.device)
        latent = settings.crop // 2 ** (len(settings.channels) - 1)

        def loss(count: int) -> Tensor:
            images = self._noise(count, 3, settings.crop, settings.crop)
            noise = self._noise(count, settings.latent_channels, latent, latent)
            found: Tensor = network(images, noise)[0]
            return found

        return self._seconds(loss, settings.batch)

    def unet(
        self,
        network: NetworkSettings,
        channels: tuple[int, int],
        side: int,
        batch: int,
        learns: bool = True,
    ) -> float:
        """Of a UNet with so many channels in and out, which learns or is only asked."""
        unet = build_unet(network, *channels, side).requires_grad_(learns)
        unet.to(self.device)

        def loss(count: int) -> Tensor:
            sample = self._noise(count, channels[0], side, side)
            words = self._noise(count, WORDS, network.text_width)
            timestep = torch.full((count,), 500, device=self.device)
            found: Tensor = unet(sample, timestep, encoder_hidden_states=words).sample
            return found.float().square().mean()

        return self._seconds(loss, batch)

    def _noise(self, *shape: int) -> Tensor:
        return torch.zeros(shape).normal_(generator=torch.Generator()).to(self.device)

    def _seconds(self, loss: Callable[[int], Tensor], batch: int) -> float:
        on_gpu, threads = self.device != "cpu", torch.get_num_threads()
        count = batch // self.processes if on_gpu else min(batch // self.processes, TRIED)
        if not on_gpu:
            torch.set_num_threads(1 if self.processes > 1 else threads)
        try:
            # The first step is slower than all that come after it.
            for _ in range(2):
                begun = time.perf_counter()
                with torch.autocast(
                    self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16"
                ):
                    value = loss(count)
                if value.requires_grad:
                    value.backward()
                if on_gpu:
                    torch.cuda.synchronize()
                seconds = time.perf_counter() - begun
        finally:
            torch.set_num_threads(threads)
        side_by_side = min(self.processes, os.cpu_count() or 1) if not on_gpu else self.processes
        return seconds / (count * side_by_side)
