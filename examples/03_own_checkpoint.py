"""Use an InstructPix2Pix pipeline of your own: one that is already loaded, LoRAs and all.

    python examples/03_own_checkpoint.py [--checkpoint DIRECTORY_OR_HUB_ID] [--out FOLDER]

Without --checkpoint the built-in editor stands in: it is an ordinary diffusers directory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusers import StableDiffusionInstructPix2PixPipeline

import wys
from wys.diffusion.loading import builtin_directory
from wys.tabletop.pairs import make_pairs
from wys.tabletop.world import PLAIN

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--checkpoint", default=None)
parser.add_argument("--out", type=Path, default=Path("out/03"))
arguments = parser.parse_args()

pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
    arguments.checkpoint or builtin_directory(), safety_checker=None, requires_safety_checker=False
)
# pipeline.load_lora_weights(...) and the like go here: the editor uses the pipeline as it is.
editor = wys.Editor.from_pipeline(pipeline)
sample = make_pairs(
    1, "validation", 0, 1, size=editor.native_size, scene_range=PLAIN, kinds=["background"]
)

# A checkpoint without tuned settings runs with the paper's; here some are chosen by hand.
settings = wys.EditSettings(guidance=wys.Guidance(text=1.5, image=1.0), steps=10)
edit = wys.edit_image(editor, sample.before, sample.plain_instructions, settings, seed=7)
wys.write_image(arguments.out / "edited.png", edit.image[0])
print(f"{sample.plain_instructions[0]}: see {arguments.out / 'edited.png'}")
