"""Make the relevance map once; then try thresholds and guidance scales on it.

python examples/02_reuse_a_relevance_map.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import wys
from wys.image import draw_outline, labelled_sheet
from wys.tabletop.pairs import make_pairs
from wys.tabletop.world import PLAIN

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, default=Path("out/02"))
parser.add_argument("--editor", default="builtin")
arguments = parser.parse_args()

editor = wys.Editor.load(arguments.editor)
sample = make_pairs(
    0, "validation", 0, 1, size=editor.native_size, scene_range=PLAIN, kinds=["remove"]
)
image, instruction = sample.before[0], sample.plain_instructions[0]

relevance = wys.relevance_map(editor, image, instruction)
own = editor.settings.edit.guidance
rows = []
for threshold in (0.2, 0.5, "auto"):
    mask = relevance.mask(threshold).grown(1)
    region = mask.at(mask.image_size)[0]
    row = [(f"threshold {threshold}", draw_outline(image, region))]
    for scale in (own.text, 1.5 * own.text):
        guidance = replace(own, text=scale)
        settings = replace(editor.settings.edit, guidance=guidance)
        edit = wys.edit_image(editor, image, instruction, settings, relevance=relevance, mask=mask)
        row.append((f"text guidance {scale:g}", edit.image[0]))
    rows.append(row)

wys.write_image(arguments.out / "sheet.png", labelled_sheet(rows))
print(f"{instruction}: see {arguments.out / 'sheet.png'}")
