"""The trained networks as an ordinary diffusers InstructPix2Pix pipeline directory."""

import shutil
import tempfile
from pathlib import Path

from diffusers import (
    AutoencoderKL,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

from wys.diffusion.loading import HEAD
from wys.diffusion.refusals import LOCATOR
from wys.store import write_tensors
from wys.training.denoiser import build_scheduler
from wys.training.tokenizer import save_tokenizer

SHARD = "14MB"
"""Largest weight file of a network."""


def without_auxiliary(unet: UNet2DConditionModel, channels: int) -> UNet2DConditionModel:
    """A copy of a network whose output is its first channels alone, without what only teaches."""
    config = {**unet.config, "out_channels": channels}
    plain = UNet2DConditionModel.from_config(config).to(unet.device)
    weights = dict(unet.state_dict())
    for name in ("conv_out.weight", "conv_out.bias"):
        weights[name] = weights[name][:channels]
    plain.load_state_dict(weights)
    return plain.eval()


def assemble(
    vae: AutoencoderKL, unet: UNet2DConditionModel, text: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StableDiffusionInstructPix2PixPipeline:
    """The pipeline of the networks; auxiliary outputs of the UNet are left out."""
    return StableDiffusionInstructPix2PixPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=without_auxiliary(unet, vae.config.latent_channels),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )


def write_pipeline(
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    folder: Path,
    locator: UNet2DConditionModel | None = None,
) -> None:
    """Writes the directory: UNet and autoencoder as float16, the text encoder as float32.

    The head that predicts which pixels change is kept beside it: `relevance_head.safetensors`,
    `weight` [1 c 3 3] and `bias` [1] of a convolution of the features that enter `conv_out`; and so
    is the locator, in a folder of its own, which the stock pipeline passes over.
    An existing directory is replaced once the new one is complete.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    pipeline = assemble(vae, unet, text, tokenizer)
    latent = vae.config.latent_channels
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        new = Path(temporary) / "new"
        pipeline.save_pretrained(new, safe_serialization=True)
        # The stock pipeline mixes types where the text encoder is not float32.
        _save_half(pipeline.vae, new / "vae")
        _save_half(pipeline.unet, new / "unet")
        if locator is not None:
            _save_half(without_auxiliary(locator, 1), new / LOCATOR)
        save_tokenizer(tokenizer, new / "tokenizer")
        head = {
            "weight": unet.conv_out.weight[latent : latent + 1].detach().float().contiguous(),
            "bias": unet.conv_out.bias[latent : latent + 1].detach().float().contiguous(),
        }
        write_tensors(new / HEAD, head)
        for extra in folder.glob("*") if folder.exists() else []:
            if extra.is_file() and not (new / extra.name).exists():
                shutil.copy2(extra, new / extra.name)
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        new.rename(folder)


def _save_half(module: AutoencoderKL | UNet2DConditionModel, folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    # diffusers marks settings left at their defaults, and would take a changed one back to it; it
    # also notes the folder that a module was read from, which is nobody's business.
    private = ("_use_default_values", "_name_or_path")
    config = {key: value for key, value in module.config.items() if key not in private}
    half = type(module).from_config(config).half()
    half.load_state_dict(module.state_dict())
    half.save_pretrained(folder, safe_serialization=True, max_shard_size=SHARD)
