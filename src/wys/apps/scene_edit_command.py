"""`wys scene edit`: an edit where the instruction matters.

It becomes a layer of the scene's folder. While it is under way its state is saved there, so
that `--resume` goes on after a kill; the scene has the layer once everything of it is written.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wys.apps.options import EditorOptions, Flag, check_instruction, optional
from wys.apps.scene_options import (
    Instruction,
    Method,
    SceneGuideOptions,
    SceneMapOptions,
    ScenePath,
)
from wys.errors import WysError
from wys.names import resolved

if TYPE_CHECKING:
    from wys.apps.scene_edit_job import EditJob
    from wys.scene_folder import SceneFolder

EditorGroup = tyro.conf.OmitArgPrefixes[EditorOptions]
MapGroup = Annotated[tyro.conf.OmitArgPrefixes[SceneMapOptions], tyro.conf.arg(name="map")]
EditGroup = Annotated[tyro.conf.OmitArgPrefixes[SceneGuideOptions], tyro.conf.arg(name="edit")]


def edit(
    scene: ScenePath,
    instruction: Instruction,
    out: Annotated[Path | None, optional("EDITED")] = None,
    name: Annotated[str | None, optional("LAYER")] = None,
    method: Method = "wys",
    resume: Flag = False,
    film: int = 60,
    editor: EditorGroup = EditorOptions(),  # noqa: B008
    how: MapGroup = SceneMapOptions(),  # noqa: B008
    guide: EditGroup = SceneGuideOptions(),  # noqa: B008
) -> None:
    """Edit a scene, only where the instruction says.

    The edit is a layer in SCENE/layers with sheet, film and record; see 'undo'.

    Args:
        scene: Folder of the scene.
        instruction: What to do, such as "make the red cube blue".
        out: Leave SCENE as it is and edit a copy in this folder.
        name: What the layer is called; made of the instruction if not given.
        method: wys; paper; or for comparison published, in2n (no relevance), per-frame.
        resume: Go on with an edit that was stopped; give the options it began with.
        film: Pictures of the film; 0: none.
    """
    check_instruction(instruction)
    from wys.apps.progress import err
    from wys.apps.results import in_words
    from wys.apps.scene_edit_job import EditJob, begin_layer, edit_record
    from wys.apps.scene_results import check_film
    from wys.scene_folder import RECORD, SceneFolder, copy_scene
    from wys.scene_layer import layer_name
    from wys.scene_settings import PRESETS
    from wys.store import locked

    check_film(film)
    how.check(PRESETS[method])
    guide.check(PRESETS[method])
    title = layer_name(instruction if name is None else name)
    source = SceneFolder.open(scene)
    source.scene(None)
    again = out is not None and resume and (out / RECORD).is_file()
    if out is not None and not again and out.exists():
        raise WysError(f"{out} is there already; choose another --out, or go on with --resume.")
    if again and out is not None and not _is_copy(source, SceneFolder.open(out)):
        raise WysError(f"{out} is no copy of {scene}; choose another --out.")
    with contextlib.ExitStack() as held:
        if out is None:
            held.enter_context(locked(scene))
        with err.status("loading the editor"):
            loaded = editor.load()
        settings = guide.settings(loaded.settings, how.settings(loaded.settings, PRESETS[method]))
        if out is not None:
            if not again:
                copy_scene(source, out)
                held.enter_context(_gone_without_an_edit(out, len(source.layers)))
            held.enter_context(locked(out))
        folder = SceneFolder.open(scene if out is None else out)
        record = edit_record(instruction, editor, loaded, how, guide, method, settings)
        layer = begin_layer(folder, title, record, resume)
        if layer.name in folder.record["layers"]:
            print(f"{folder.path} has this edit already: {layer.name}.")
            return
        job = EditJob(folder, layer, loaded, settings, guide.force)
        figures = _run(job, film)
        if figures is None:
            print(f"{job.reason} The scene is left as it is.")
            return
    _tell_edit(figures)
    print(f"Results in {in_words(layer.folder)}")


def _is_copy(source: SceneFolder, other: SceneFolder) -> bool:
    """Whether a folder is a copy of a scene, with edits of its own or without."""
    rest = [{**folder.record, "layers": None} for folder in (source, other)]
    return rest[0] == rest[1] and resolved(source.path) != resolved(other.path)


@contextlib.contextmanager
def _gone_without_an_edit(copy: Path, layers: int) -> Iterator[None]:
    """Takes a copy away that was made for an edit which came to nothing."""
    from wys.scene_folder import SceneFolder

    try:
        yield
    finally:
        folder = SceneFolder.open(copy)
        if folder.begun is None and len(folder.record["layers"]) == layers:
            shutil.rmtree(copy)


def _run(job: EditJob, film: int) -> dict[str, Any] | None:
    """Edits and writes with one bar for all of it; the figures, or None where nothing is edited."""
    from wys.apps.progress import err, progress_of_kinds
    from wys.evaluation.peak_memory import PeakMemory

    kinds = {"relevance": "maps", "field": "relevance", "edit": "photographs", "fit": "field"}
    shown = (*kinds.values(), "views", *(("film",) if film else ()))
    expected = job.expected(film) if err.is_terminal else None
    with progress_of_kinds("editing", shown, expected) as advance:
        with PeakMemory(job.editor.device) as memory:
            for step in job.steps():
                if step.phase in kinds:
                    advance(kinds[step.phase], step.index, step.count)
        if job.state is None:
            return None
        _, figures = job.write(film, memory.megabytes, advance)
    return figures


def _tell_edit(figures: dict[str, Any]) -> None:
    """The outcome in words."""
    print(
        f"{figures['edited_views']} photographs edited in {figures['seconds']:g} s; the mask "
        f"covers {figures['share_in_mask']:.1%} of the held-out views."
    )
    truth = figures.get("truth")
    if truth is not None:
        inside, outside = truth["psnr_inside"], truth["psnr_outside"]
        parts = [f"IoU of the mask {truth['iou']:.2f}"]
        parts += [] if inside is None else [f"PSNR inside {inside:.1f} dB"]
        parts += [] if outside is None else [f"outside {outside:.1f} dB"]
        print(f"Against the exact truth: {', '.join(parts)}.")
