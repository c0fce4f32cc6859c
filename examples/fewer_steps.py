"""How near each solver comes to 200 steps of the better one: PSNR between the two images.

    python examples/fewer_steps.py [--editor NAME] [--images N] [--guidance S_T S_I]

Without a mask, from the same noise; the scales are those of the preset `paper` if not given.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor

import wys
from wys.diffusion.sampler import denoise
from wys.image import resize
from wys.seeds import normal
from wys.tabletop.pairs import make_pairs
from wys.tabletop.world import PLAIN

MANY = 200
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--editor", default="builtin")
parser.add_argument("--images", type=int, default=4)
parser.add_argument("--guidance", type=float, nargs=2, default=(7.5, 1.5))
parser.add_argument("--steps", type=int, nargs="+", default=(5, 10, 20, 40))
arguments = parser.parse_args()
editor = wys.Editor.load(arguments.editor)

side = editor.native_size
samples = make_pairs(0, "validation", 0, arguments.images, size=side, scene_range=PLAIN)
shown = resize(samples.before, editor.fit((side, side)))
told = editor.condition(shown, samples.instructions)
noise = normal(told.z0.shape[1:], 0, list(range(len(shown))), "edit")
everywhere = torch.ones_like(told.z0[:, :1], dtype=torch.bool)


@torch.no_grad()
def edited(steps: int, solver: wys.Solver) -> Tensor:
    """The images after so many steps."""
    guidance = wys.Guidance(*arguments.guidance)
    settings = wys.EditSettings(guidance, steps, solver=solver)
    *_, last = denoise(editor, told, everywhere, noise, settings)
    return editor.decode(last.latents)


exact = edited(MANY, "dpm++")
print("| steps | ddim (dB) | dpm++ (dB) |\n| ---: | ---: | ---: |")
for steps in arguments.steps:
    errors = [float((edited(steps, s) - exact).square().mean()) for s in ("ddim", "dpm++")]
    ddim, dpm = (-10 * math.log10(error) for error in errors)
    print(f"| {steps} | {ddim:.1f} | {dpm:.1f} |")
