"""Fit a field to posed photographs, edit it by an instruction, and look at views never trained on.

    python examples/06_edit_a_scene.py [--out FOLDER] [--iterations N] [--passes N]

A few minutes on two cores. `wys scene fit` and `wys scene edit` do the same to photographs of your
own, and keep every edit as a layer that can be undone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import wys
from wys.image import labelled_sheet, overlay_heat
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings, fit
from wys.nerf.layering import Look
from wys.nerf.scene import Scene
from wys.scene_settings import OWN
from wys.tabletop.posed import posed_edit, posed_views

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, default=Path("out/06"))
parser.add_argument("--editor", default="builtin")
parser.add_argument("--iterations", type=int, default=1500, help="steps of the fit")
parser.add_argument("--passes", type=float, default=1.25, help="edits of each photograph")
arguments = parser.parse_args()

# Photographs with their cameras, and the exact edited views to compare with.
editor = wys.Editor.load(arguments.editor)
case = posed_edit(0, 0, "recolour", "validation")
posed = posed_views(case, views=16, held_out=3, size=editor.native_size)
capture = posed.capture()

# The radiance field.
scene = Scene.create(
    FieldSettings(), seed=0, unbounded=capture.unbounded, background=capture.background
)
for fitted in fit(scene, capture.train, FitSettings(iterations=arguments.iterations), seed=0):
    if fitted.iteration % 100 == 0:
        print(f"fit: step {fitted.iteration} of {fitted.count}", flush=True)

# Where the instruction matters, and the edit there: photographs and field take turns.
before = Look(((scene, None),))
settings = replace(OWN, passes=arguments.passes)
for step in wys.edit_scene(editor, before, capture.train, case.instruction, settings, seed=0):
    if step.phase == "edit":
        print(f"edit: photograph {step.index} of {step.count}", flush=True)
if step.message is not None:
    print(step.message)
after = before.with_layer(step.state.scene, step.state.room)

truth = posed.truth.select(posed.held_out_rows).after
rows = []
for i, name in enumerate(capture.held_out.names):
    camera = capture.held_out.cameras[i]
    old, new = before(camera), after(camera)
    assert new.relevance is not None
    rows.append(
        [
            (f"{name}, before", old.rgb),
            ("relevance", overlay_heat(old.rgb, new.relevance)),
            ("edited", new.rgb),
            ("truth", truth[i]),
        ]
    )
wys.write_image(arguments.out / "sheet.png", labelled_sheet(rows, title=case.instruction))
print(f"see {arguments.out / 'sheet.png'}")
