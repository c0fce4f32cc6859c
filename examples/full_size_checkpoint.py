"""A checkpoint of full size with random weights, to see what a real one takes on this machine.

    python examples/full_size_checkpoint.py DIRECTORY
    wys edit photo.png "make it autumn" --editor DIRECTORY --dtype bf16 --force --out result

It has Stable Diffusion 1.5's configuration, the built-in editor's tokenizer and 2.1 GB. What it
makes is noise; `result/run.json` holds the seconds and the peak of memory, which are those of a
real one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transformers import CLIPTokenizer

import wys
from wys.diffusion.full_size import save_full_size

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("directory", type=Path)
arguments = parser.parse_args()

builtin = Path(wys.__file__).parent / "builtin" / "tokenizer"
parameters = save_full_size(
    arguments.directory, CLIPTokenizer.from_pretrained(builtin, model_max_length=77)
)
print(f"{parameters:,} parameters in {arguments.directory}")
