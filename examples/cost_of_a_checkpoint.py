"""What a checkpoint needs, from its configuration alone: memory of its parts, work of an edit.

    python examples/cost_of_a_checkpoint.py [DIRECTORY] [--size PIXELS] [--steps N]

Without DIRECTORY it is Stable Diffusion 1.5 as InstructPix2Pix uses it. Nothing is loaded: the
networks are built without weights (torch's "meta" device), their parameters and multiplications
are counted. An edit takes about the printed work divided by what the device does in a second.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from wys.diffusion.full_size import TEXT, UNET, VAE
from wys.store import read_json

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("directory", type=Path, nargs="?")
parser.add_argument("--size", type=int, default=None, help="side of the image; else its own")
parser.add_argument("--steps", type=int, default=20)
arguments = parser.parse_args()

configs = {"unet": UNET, "vae": VAE, "text_encoder": TEXT}
if arguments.directory is not None:
    configs = {part: read_json(arguments.directory / part / "config.json") for part in configs}
with torch.device("meta"):
    unet = UNet2DConditionModel.from_config(configs["unet"])
    vae = AutoencoderKL.from_config(configs["vae"])
    text_encoder = CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))
factor = 2 ** (len(vae.config.block_out_channels) - 1)
side = (arguments.size or unet.config.sample_size * factor) // factor

print("part            parameters   fp32 MB   fp16 MB")
total = 0
for name, part in (("unet", unet), ("vae", vae), ("text encoder", text_encoder)):
    count = sum(parameter.numel() for parameter in part.parameters())
    total += count
    print(f"{name:<13} {count:>12,} {4 * count / 1e6:>9,.0f} {2 * count / 1e6:>9,.0f}")
print(f"{'all':<13} {total:>12,} {4 * total / 1e6:>9,.0f} {2 * total / 1e6:>9,.0f}")


def work(call: object, *inputs: torch.Tensor) -> float:
    """Floating-point operations of a call, in units of 10^12."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(*inputs)  # type: ignore[operator]
    return counter.get_total_flops() / 1e12


def empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


channels = vae.config.latent_channels
width = unet.config.cross_attention_dim
tokens = text_encoder.config.max_position_embeddings


def prediction(side: int) -> float:
    return work(unet, empty(1, 2 * channels, side, side), empty(1).long(), empty(1, tokens, width))


branch = prediction(side)
encode = work(vae.encode, empty(1, 3, side * factor, side * factor))
decode = work(vae.decode, empty(1, channels, side, side))
steps = arguments.steps
print(f"\nat {side * factor} x {side * factor}, in 10^12 operations")
print(f"one prediction {branch:.2f}, encoding {encode:.2f}, decoding {decode:.2f}")
print(f"a map (2 predictions) {encode + 2 * branch:.1f}")
edit = encode + 3 * steps * branch + decode
print(f"an edit ({steps} steps of 3 predictions) {edit:.0f}")
# A square of a tenth of the area is a third of the side; with its context it takes half.
small = work(vae.decode, empty(1, channels, side // 2, side // 2))
window = encode + 3 * steps * prediction(side // 2) + small
print(f"the same of a tenth of the area, in a window: {window:.0f}, {window / edit:.2f} of it")
