"""Training the autoencoder: a linear encoder that is set, and a decoder that is trained."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor

from wys.image import from_model, to_model
from wys.seeds import generator
from wys.store import read_json, write_json
from wys.training.learner import Learner, OptimiserSettings, load_average
from wys.training.linear import principal_patches, set_encoder, start_decoder
from wys.training.loop import compile_first, run_steps
from wys.training.parallel import compiled
from wys.training.schedule import Schedule
from wys.training.sheets import reconstruction_sheet
from wys.training.triplets import ShardFile, find_shards, require_shards


@dataclass(frozen=True)
class AutoencoderSettings:
    """A small AutoencoderKL (Rombach et al. 2022) and how it is trained."""

    channels: tuple[int, ...] = (24, 48, 96)
    """Width of each level; every level after the first halves the image."""
    latent_channels: int = 8
    """Channels of the latent."""
    groups: int = 8
    """Groups of the group normalisation."""
    images: int = 10_000
    """Images that the decoder's training sees in all."""
    batch: int = 8
    """Images of a step, over all processes."""
    crop: int = 64
    """Size of the images and crops in pixels."""
    peak_rate: float = 1e-3
    """Highest learning rate."""
    noise: float = 0.03
    """Standard deviation of the noise on latents in training: a denoiser is not exact either."""
    seed: int = 0
    """Seed of the weights and batches."""
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(ema=0.998))
    """AdamW, clipping and averaging."""


def build_autoencoder(settings: AutoencoderSettings, size: int) -> AutoencoderKL:
    """The untrained network for images of `size` pixels."""
    levels = len(settings.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return AutoencoderKL(
            block_out_channels=settings.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=1,
            latent_channels=settings.latent_channels,
            norm_num_groups=settings.groups,
            sample_size=size,
            mid_block_add_attention=False,
        )


class Reconstruction(torch.nn.Module):
    """Images to the decoder's loss: one graph, so that it can be compiled as a whole."""

    def __init__(self, vae: AutoencoderKL, noise: float) -> None:
        super().__init__()
        self.vae, self.noise = vae, noise

    def forward(
        self, images: Float[Tensor, "b 3 h w"], noise: Float[Tensor, "b c hl wl"]
    ) -> tuple[Tensor, Tensor]:
        """The loss and the squared error of images in [-1, 1]."""
        with torch.no_grad():
            mode = self.vae.quant_conv(self.vae.encoder(images)).float().chunk(2, dim=1)[0]
        latent = mode + self.noise * noise
        output = self.vae.decoder(self.vae.post_quant_conv(latent)).float()
        error = output - images
        squared = error.square().mean()
        return 10 * squared + error.abs().mean(), squared.detach()


def initialise(vae: AutoencoderKL, settings: AutoencoderSettings, folder: Path, size: int) -> None:
    """Sets the encoder and the decoder's start from training images (see `linear`).

    Args:
        folder: of the triplets.
        size: of the images to look at, in pixels.
    """
    draw = generator(settings.seed, 0, "principal components")
    images = random_images(require_shards(folder, "train", size)[:1], 256, size, draw)
    basis = principal_patches(to_model(images), settings.latent_channels)
    set_encoder(vae, basis)
    start_decoder(vae, basis)


def random_images(
    shards: Sequence[ShardFile], count: int, crop: int, draw: torch.Generator
) -> Float[Tensor, "b 3 crop crop"]:
    """Random images, before and after alike, in [0, 1]; random crops where they are larger."""
    images = []
    while count > 0:
        shard = shards[int(torch.randint(len(shards), (), generator=draw))]
        which = ("before", "after")[int(torch.randint(2, (), generator=draw))]
        available = shard.tensors[which]
        part = min(count, 4)
        rows = torch.randint(available.shape[0], (part,), generator=draw)
        batch = shard.images(rows, which)
        top, left = (
            int(torch.randint(side - crop + 1, (), generator=draw)) for side in batch.shape[-2:]
        )
        images.append(batch[:, :, top : top + crop, left : left + crop])
        count -= part
    return torch.cat(images)


def psnr(vae: AutoencoderKL, images: Float[Tensor, "b 3 h w"], batch: int = 16) -> float:
    """Signal to noise of the reconstruction in dB, squared error pooled over all images."""
    squared = [
        (reconstruct(vae, part) - part).square().mean(dim=(1, 2, 3)) for part in images.split(batch)
    ]
    return float(-10 * torch.cat(squared).mean().log10())


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Images through the posterior's mode and back."""
    values = to_model(images).to(vae.device, vae.dtype)
    latents = vae.encode(values).latent_dist.mode()
    return from_model(vae.decode(latents).sample.float()).cpu()


def held_out_images(folder: Path, size: int, count: int) -> Float[Tensor, "b 3 h w"]:
    """Validation images after the edit, spread over the shard."""
    shard = require_shards(folder, "validation", size)[0]
    available = shard.tensors["after"].shape[0]
    return shard.images(torch.arange(0, available, max(available // count, 1))[:count], "after")


def train_autoencoder(
    accelerator: Accelerator,
    settings: AutoencoderSettings,
    out: Path,
    sizes: tuple[int, int],
    compile: bool,
    minutes: float,
) -> None:
    """Trains, or goes on from `out/state/autoencoder.safetensors`.

    Args:
        sizes: small and large size of the triplets in pixels.
        minutes: time between two saves; an evaluation comes with each.
    """
    torch.manual_seed(settings.seed)
    data, state = out / "data", out / "state" / "autoencoder.safetensors"
    vae = build_autoencoder(settings, sizes[1])
    if not state.exists():
        initialise(vae, settings, data, sizes[1])
    for module in (vae.encoder, vae.quant_conv):
        module.requires_grad_(False)
    learner = Learner({"vae": vae}, settings.optimiser, accelerator)
    if state.exists():
        learner.load(state)
    schedule = Schedule(settings.images, settings.peak_rate, settings.images // 50, 0.02)
    network = Reconstruction(vae, settings.noise)
    loss_of = compiled(network, compile)
    shards = RescannedShards()
    share = settings.batch // accelerator.num_processes
    held_out = held_out_images(data, sizes[1], 64)
    latent_shape = (share, settings.latent_channels, *(settings.crop // vae_factor(vae),) * 2)

    def batch_loss() -> tuple[Tensor, dict[str, Tensor]]:
        draw = generator(
            settings.seed,
            learner.position.step * accelerator.num_processes + accelerator.process_index,
            "autoencoder batch",
        )
        half = share // 2
        counts = (share - half, half)
        images = torch.cat(
            [
                random_images(shards(data, size), count, settings.crop, draw)
                for size, count in zip(sizes, counts, strict=True)
            ]
        )
        noise = torch.randn(latent_shape, generator=draw)
        values = to_model(images).to(accelerator.device)
        with accelerator.autocast():
            loss, squared = loss_of(values, noise.to(accelerator.device))
        return loss, {"squared_error": squared}

    compile_first(learner, compile, batch_loss)

    if accelerator.is_main_process and not state.exists():
        learner.save(state)  # Latents depend on the encoder alone: they can be made from now on.

    def evaluate() -> dict[str, float]:
        vae.eval()
        quality = psnr(vae, held_out)
        reconstruction_sheet(vae, held_out[:6], out / "sheets" / "autoencoder.png")
        vae.train()
        return {"psnr": quality}

    run_steps(
        learner,
        schedule,
        "autoencoder",
        out,
        minutes,
        batch_loss,
        lambda: share * accelerator.num_processes,
        evaluate,
    )


def vae_factor(vae: AutoencoderKL) -> int:
    """Pixels to a latent pixel."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


class RescannedShards:
    """`find_shards` of the training split, looked up again every minute while data is made."""

    def __init__(self, every: float = 60.0) -> None:
        self.every = every
        self._found: dict[int, tuple[float, list[ShardFile]]] = {}

    def __call__(self, folder: Path, size: int) -> list[ShardFile]:
        now = time.monotonic()
        when, shards = self._found.get(size, (-self.every, []))
        if now - when >= self.every:
            known = {shard.path: shard for shard in shards}
            found = find_shards(folder, "train", size) or require_shards(folder, "train", size)
            shards = [known.get(shard.path, shard) for shard in found]
            self._found[size] = (now, shards)
        return shards


def load_autoencoder(settings: AutoencoderSettings, out: Path, size: int) -> AutoencoderKL:
    """The trained network with averaged weights, on the CPU.

    Its `scaling_factor` is that of `out/latents/scale.json`, where `measure_scale` has made it.
    """
    vae = build_autoencoder(settings, size)
    load_average({"vae": vae}, out / "state" / "autoencoder.safetensors")
    scale = out / "latents" / "scale.json"
    if scale.exists():
        vae.register_to_config(**read_json(scale))
    return vae.eval().requires_grad_(False)


def measure_scale(vae: AutoencoderKL, out: Path, sizes: tuple[int, int]) -> None:
    """Writes 1 / standard deviation of the latents of training images, `out/latents/scale.json`."""
    draw = generator(0, 0, "latent scale")
    shards = require_shards(out / "data", "train", sizes[1])
    images = random_images(shards, 64, sizes[1], draw)
    with torch.no_grad():
        latents = vae.encode(to_model(images)).latent_dist.mode()
    write_json(out / "latents" / "scale.json", {"scaling_factor": float(1 / latents.std())})
