"""Edit several images at once. The result of each is the same as if it were edited alone.

python examples/04_batch_of_images.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import wys
from wys.image import labelled_sheet
from wys.tabletop.pairs import make_pairs
from wys.tabletop.world import PLAIN

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, default=Path("out/04"))
parser.add_argument("--editor", default="builtin")
arguments = parser.parse_args()

editor = wys.Editor.load(arguments.editor)
sample = make_pairs(0, "validation", 0, 4, size=editor.native_size, scene_range=PLAIN)

# `items` names the images: an image's noise follows its name, not its place in the batch.
names = ["first", "second", "third", "fourth"]
together = wys.edit_image(editor, sample.before, sample.plain_instructions, items=names)
alone = wys.edit_image(editor, sample.before[2], sample.plain_instructions[2], items=names[2:3])
difference = float((together.image[2] - alone.image[0]).abs().max())
print(f"largest difference between a batch and one alone: {difference:.1e}")

rows = [
    [(words, before), ("edited", after)]
    for words, before, after in zip(
        sample.plain_instructions, sample.before, together.image, strict=True
    )
]
wys.write_image(arguments.out / "sheet.png", labelled_sheet(rows))
print(f"see {arguments.out / 'sheet.png'}")
