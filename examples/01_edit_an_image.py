"""Edit one image of the tabletop world and look at what decided the edit.

python examples/01_edit_an_image.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import wys
from wys.image import draw_outline, labelled_sheet, overlay_heat
from wys.tabletop.pairs import make_pairs
from wys.tabletop.world import PLAIN

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, default=Path("out/01"))
parser.add_argument("--editor", default="builtin")
arguments = parser.parse_args()

editor = wys.Editor.load(arguments.editor)
sample = make_pairs(
    0, "validation", 0, 1, size=editor.native_size, scene_range=PLAIN, kinds=["recolour"]
)
image, instruction = sample.before[0], sample.plain_instructions[0]

edit = wys.edit_image(editor, image, instruction)
assert edit.relevance is not None
print(f"{instruction}: {edit.relevance.verdict}, {float(edit.changed_share[0]):.1%} changed")

sheet = labelled_sheet(
    [
        [
            (instruction, image),
            ("relevance", overlay_heat(image, edit.relevance.values[0])),
            ("mask", draw_outline(image, edit.mask.at(edit.mask.image_size)[0])),
            ("edited", edit.image[0]),
            ("truth", sample.after[0]),
        ]
    ]
)
wys.write_image(arguments.out / "sheet.png", sheet)
print(f"see {arguments.out / 'sheet.png'}")
