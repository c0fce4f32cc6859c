"""What `make demo-scene` runs: fits a scene, shows where an instruction matters, edits it there.

python examples/demo_scene.py [FOLDER [options of 'wys scene edit' ...]]
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from pathlib import Path

from wys.apps import cli
from wys.scene_folder import SceneFolder

DATA = "tabletop:5"
KIND = "recolour"


def run(*words: str) -> None:
    """Prints a command and runs it; ends the program where it fails."""
    print(f"\n$ wys {shlex.join(words)}", flush=True)
    code = cli.main(words)
    if code:
        sys.exit(code)


def main(out: Path, options: list[str]) -> None:
    """Writes OUT/scene and OUT/relevance, and what to look at: OUT/sheet.png, OUT/edited.mp4."""
    started = time.monotonic()
    scene = out / "scene"
    run("scene", "fit", DATA, "--out", str(scene), "--resume")
    instruction = SceneFolder.open(scene).record["instructions"][KIND]
    editing = ["--name", KIND, "--resume", *options]
    if not SceneFolder.open(scene).layers:  # Afterwards it would look at what was edited.
        run("scene", "relevance", str(scene), instruction, "--out", str(out / "relevance"))
    run("scene", "edit", str(scene), instruction, *editing)
    run("scene", "info", str(scene))
    layer = SceneFolder.open(scene).top
    if layer is None:
        sys.exit(1)
    for name in ("sheet.png", "edited.mp4"):
        shutil.copyfile(layer.folder / name, out / name)
    minutes = (time.monotonic() - started) / 60
    print(f"\nAfter {minutes:.1f} minutes: {out / 'sheet.png'} and {out / 'edited.mp4'}")


if __name__ == "__main__":
    arguments = sys.argv[1:] or ["demo-scene"]
    main(Path(arguments[0]), arguments[1:])
