"""A pipeline as large as a real one, with random weights: for what does not hang on their values.

Its configuration is that of Stable Diffusion 1.5 as InstructPix2Pix uses it (`timbrooks/
instruct-pix2pix`). Whether such a checkpoint fits a machine, and how long it takes there, can be
measured without one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

UNET: dict[str, Any] = {
    "sample_size": 64,
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
VAE: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
}
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def save_full_size(
    directory: Path, tokenizer: CLIPTokenizer, dtype: torch.dtype = torch.float16, seed: int = 0
) -> int:
    """Writes the pipeline (2.1 GB in half precision) and gives the number of its parameters.

    Args:
        tokenizer: any one, however small its vocabulary; it should take 77 tokens.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(**UNET).to(dtype)
        vae = AutoencoderKL(**VAE).to(dtype)
        # The tokenizer may be small: its end token is not the last of the table.
        marks = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
        config = CLIPTextConfig(**TEXT, **marks, pad_token_id=tokenizer.pad_token_id)
        text_encoder = CLIPTextModel(config).to(dtype)
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(directory, safe_serialization=True)
    return sum(p.numel() for part in (unet, vae, text_encoder) for p in part.parameters())
