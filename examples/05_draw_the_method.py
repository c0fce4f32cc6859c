"""Draw how the method works: the figures of docs/method.md and docs/guidance.md.

python examples/05_draw_the_method.py [--out FOLDER]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

import wys
from wys.diffusion.settings import PAPER
from wys.image import draw_outline, heat_map, labelled_sheet, overlay_heat, resize
from wys.tabletop.pairs import make_pairs
from wys.tabletop.world import PLAIN

STEPS = (
    (0, "recolour", "make the cyan cube brown"),
    (4, "floor", "the floor must become gray"),
    (3, "remove", "remove the brown object"),
)
THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
TEXT, IMAGE = (1.0, 2.0, 4.0, 7.5), (1.0, 1.5, 3.0)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, default=Path("out/05"))
parser.add_argument("--editor", default="builtin")
arguments = parser.parse_args()
editor = wys.Editor.load(arguments.editor)


def sample(index: int, kind: str, words: str) -> tuple[Tensor, str]:
    """An image of the tabletop world and what is asked of it."""
    pairs = make_pairs(
        0, "validation", index, 1, size=editor.native_size, scene_range=PLAIN, kinds=[kind]
    )
    return pairs.before[0], words


def magnified(values: Tensor, image: Tensor) -> Tensor:
    """A latent-sized map as colours at the image's size, its highest value the brightest."""
    colours = heat_map(values / values.amax().clamp(min=1e-12))
    return resize(colours, (image.shape[-2], image.shape[-1]))[0]


def draw_steps() -> Tensor:
    """From the input over the difference and the map to the edit, a row for each instruction."""
    rows = []
    for step in STEPS:
        image, instruction = sample(*step)
        # The paper's map shows the method best; more draws make it smoother.
        published = replace(PAPER.relevance, draws=8)
        found = wys.relevance_map(editor, image, instruction, published)
        one = wys.relevance_map(editor, image, instruction, replace(published, draws=1))
        own = wys.relevance_map(editor, image, instruction)
        edit = wys.edit_image(editor, image, instruction, relevance=own, force=True)
        region = edit.mask.at(edit.mask.image_size)[0]
        rows.append(
            [
                ("input", image),
                ("|difference|, 1 draw", magnified(one.raw, image)),
                ("|difference|, 8 draws", magnified(found.raw, image)),
                ("clamped, 0 to 1", overlay_heat(image, found.values[0])),
                ("the editor's own map", overlay_heat(image, own.values[0])),
                ("mask", draw_outline(image, region)),
                ("edited", edit.image[0]),
            ]
        )
    return labelled_sheet(rows, height=144)


def draw_thresholds() -> Tensor:
    """The same map at several thresholds: the mask, and the edit under it."""
    image, instruction = sample(*STEPS[0])
    found = wys.relevance_map(editor, image, instruction)
    masks, edits = [("map", overlay_heat(image, found.values[0]))], [("input", image)]
    for threshold in THRESHOLDS:
        mask = found.mask(threshold)
        edit = wys.edit_image(editor, image, instruction, relevance=found, mask=mask)
        masks.append((f"threshold {threshold:g}", draw_outline(image, mask.at(mask.image_size)[0])))
        edits.append((f"{float(edit.changed_share[0]):.0%} changed", edit.image[0]))
    return labelled_sheet([masks, edits], height=160)


def draw_guidance() -> Tensor:
    """One edit at several scales of both guidances, in the editor's own number of steps."""
    image, instruction = sample(*STEPS[0])
    found = wys.relevance_map(editor, image, instruction)
    rows = []
    for of_image in IMAGE:
        row = [("input", image)]
        for of_text in TEXT:
            settings = replace(editor.settings.edit, guidance=wys.Guidance(of_text, of_image))
            edit = wys.edit_image(editor, image, instruction, settings, relevance=found, force=True)
            row.append((f"text {of_text:g}, image {of_image:g}", edit.image[0]))
        rows.append(row)
    return labelled_sheet(rows, height=160)


for name, draw in (
    ("steps", draw_steps),
    ("thresholds", draw_thresholds),
    ("guidance", draw_guidance),
):
    with torch.no_grad():
        wys.write_image(arguments.out / f"{name}.png", draw())
    print(f"see {arguments.out / name}.png")
for _, kind, words in STEPS:
    print(f"{kind}: {words}")
