"""`wys scene edit`: an edit where the instruction matters.

It becomes a layer of the scene's folder. While it is under way its state is saved there, so
that `--resume` goes on after a kill; the scene has the layer once everything of it is written.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wys.apps.options import EditorOptions, Flag, optional
from wys.apps.scene_options import (
    Instruction,
    Method,
    SceneGuideOptions,
    SceneMapOptions,
    ScenePath,
    check_instruction,
)
from wys.errors import WysError

if TYPE_CHECKING:
    from wys.diffusion.editor import Editor
    from wys.scene_edit import SceneEditStep
    from wys.scene_folder import SceneFolder
    from wys.scene_layer import Layer
    from wys.scene_settings import SceneEditSettings
    from wys.scene_state import SceneEditState

EditorGroup = tyro.conf.OmitArgPrefixes[EditorOptions]
MapGroup = Annotated[tyro.conf.OmitArgPrefixes[SceneMapOptions], tyro.conf.arg(name="map")]
EditGroup = Annotated[tyro.conf.OmitArgPrefixes[SceneGuideOptions], tyro.conf.arg(name="edit")]

FILM_RATE = 15.0
"""Pictures a second in the film of an edit."""


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
    from wys.apps.results import in_words, run_record
    from wys.apps.scene_results import VERDICTS
    from wys.scene_folder import RECORD, SceneFolder, copy_scene
    from wys.scene_layer import layer_name
    from wys.scene_settings import PRESETS
    from wys.store import locked

    title = layer_name(instruction if name is None else name)
    source = SceneFolder.open(scene)
    source.scene(None)
    again = out is not None and resume and (out / RECORD).is_file()
    if out is not None and not again and out.exists():
        raise WysError(f"{out} is there already; choose another --out, or go on with --resume.")
    with contextlib.ExitStack() as held:
        if out is None:
            held.enter_context(locked(scene))
        with err.status("loading the editor"):
            loaded = editor.load()
        settings = guide.settings(loaded, how.settings(loaded, PRESETS[method]))
        if out is not None:
            if not again:
                copy_scene(source, out)
            held.enter_context(locked(out))
        folder = SceneFolder.open(scene if out is None else out)
        record = run_record(instruction, editor, loaded, how.seed) | {
            "method": method,
            "settings": asdict(settings),
            "force": guide.force,
        }
        layer = _layer(folder, title, _as_json(record), resume)
        if layer.name in folder.record["layers"]:
            print(f"{folder.path} has this edit already: {layer.name}.")
            return
        edited = _edit(folder, layer, loaded, settings, guide.force)
        if edited is None:
            folder.drop_unfinished()
            print(f"{VERDICTS['nothing to edit']} The scene is left as it is.")
            return
        figures = _write_edit(folder, layer, edited, settings, film)
        folder = folder.with_layer(
            layer, edited.state.scene, edited.state.views, edited.state.region, figures
        )
    _tell_edit(figures)
    print(f"Results in {in_words(layer.folder)}")


def _as_json(value: Any) -> Any:
    """The value as it comes back from a JSON file."""
    return json.loads(json.dumps(value))


def _layer(folder: SceneFolder, name: str, record: dict[str, Any], resume: bool) -> Layer:
    """A new layer; or, to resume, the one that was begun; or one that is there already."""
    drop = f"'wys scene undo {folder.path}' drops it"
    begun = folder.unfinished
    if begun is not None and not resume:
        raise WysError(
            f'{folder.path} has an unfinished edit, "{begun.record["instruction"]}"; --resume '
            f"goes on with it, {drop}."
        )
    same = ("instruction", "method", "seed", "settings", "force")
    if begun is not None:
        for key in same:
            if begun.record[key] != record[key]:
                raise WysError(
                    f"the unfinished edit of {folder.path} began with another {key}; repeat its "
                    f"options ({begun.record['command']}), or {drop}."
                )
        return begun
    top = folder.top
    if resume and top is not None and all(top.record.get(k) == record[k] for k in same):
        return top
    return folder.begin_layer(name, record)


@dataclass(frozen=True)
class Edited:
    """A scene's edit that is done and not yet written."""

    state: SceneEditState
    seconds: float
    peak_mb: float


def _edit(
    folder: SceneFolder, layer: Layer, editor: Editor, settings: SceneEditSettings, force: bool
) -> Edited | None:
    """Begins or goes on; None where there is nothing to edit."""
    from wys.apps.progress import Saving, progress_of_kinds
    from wys.evaluation.speed_bench import PeakMemory
    from wys.scene_edit import NOTHING, edit_scene
    from wys.scene_state import SceneEditState

    below = folder.top
    look = folder.look(below).to(editor.device)
    views = folder.views_to_edit(below)
    instruction, seed = layer.record["instruction"], layer.record["seed"]
    state, before = None, 0.0
    saved = layer.state()
    if saved is not None:
        tensors, notes = saved
        assert settings.relevance is not None
        how = settings.relevance
        state = SceneEditState.from_tensors(tensors, look.scene, views, instruction, how)
        before = float(notes["seconds"])

    def steps() -> Iterator[SceneEditStep]:
        _, fitting, _ = folder.fit_settings()
        try:
            yield from edit_scene(
                editor,
                look,
                views,
                instruction,
                settings,
                fitting=fitting,
                seed=seed,
                force=force,
                resume=state,
            )
        except WysError:
            # Not an interruption: going on would end here again.
            folder.drop_unfinished()
            raise

    kinds = {"relevance": "maps", "field": "relevance", "edit": "photographs", "fit": "field"}
    saving, started, last = Saving(share=0.1), time.monotonic(), None
    with (
        PeakMemory(editor.device) as memory,
        progress_of_kinds("editing", tuple(kinds.values())) as advance,
    ):
        for last in steps():
            if last.phase in kinds:
                advance(kinds[last.phase], last.index, last.count)
            if saving.due():
                with saving:
                    seconds = before + time.monotonic() - started
                    layer.save_state(last.state.tensors(), {"seconds": f"{seconds:.1f}"})
    assert last is not None
    if last.message == NOTHING:
        return None
    seconds = before + time.monotonic() - started
    return Edited(last.state, round(seconds, 1), round(memory.megabytes))


def _write_edit(
    folder: SceneFolder, layer: Layer, edited: Edited, settings: SceneEditSettings, film: int
) -> dict[str, Any]:
    """The sheet and the film of an edit, and its figures."""
    import torch

    from wys.apps.progress import progress
    from wys.apps.scene_data import chosen_views, mask_of, truth_of
    from wys.apps.scene_results import spread_indices, write_film, write_sheet
    from wys.evaluation import metrics
    from wys.image import draw_outline, overlay_heat
    from wys.nerf.scene import Scene

    capture, state = folder.capture(), edited.state
    views = capture.held_out if len(capture.held_out) else capture.train
    device = state.scene.device
    old = folder.look(folder.top).to(device)
    new = old.with_layer(state.scene, state.room)
    # What was there before the edit, with the relevance that the edit went by.
    field = Scene(old.scene.radiance, state.scene.relevance, background=old.scene.background)
    old = old.with_scene(field)
    before, after, masks, rooms, rows = [], [], [], [], []
    truth = truth_of(folder, layer.record["instruction"], views)
    with progress("rendering views") as advance:
        for i in range(len(views)):
            camera = views.cameras[i]
            shown, now = old(camera), new(camera)
            masks.append(mask_of(shown, camera, state.region, settings.threshold))
            rooms.append(mask_of(shown, camera, state.room, settings.threshold))
            before.append(shown.rgb.clamp(0, 1))
            after.append(now.rgb.clamp(0, 1))
            advance(i + 1, len(views))
            if i not in spread_indices(len(views)):
                continue
            cells = [(f"{views.names[i]}, before", before[i])]
            if shown.relevance is not None:
                seen = draw_outline(overlay_heat(before[i], shown.relevance), masks[i])
                cells.append(("relevance", seen))
            cells.append(("edited", after[i]))
            if truth is not None:
                cells.append(("truth", truth.after[i]))
            rows.append(cells)
    write_sheet(layer.folder / "sheet.png", rows)
    if film:
        shown_film = chosen_views(capture, "orbit", 1.0, film, film / FILM_RATE)
        frames = []
        with progress("rendering the film") as advance:
            for i in range(film):
                frames.append(new(shown_film.cameras[i]).rgb.clamp(0, 1))
                advance(i + 1, film)
        write_film(layer.folder / "edited.mp4", frames, FILM_RATE)
    images, inside = torch.stack(after), torch.stack(masks)[:, 0]
    # What may change is the room: the region, and the rim that the edited field has around it.
    outside = ~torch.stack(rooms)[:, 0]
    changed = metrics.largest_difference(images, torch.stack(before), outside)
    figures: dict[str, Any] = {
        "edited_views": sum(edit is not None for edit in state.views.edits),
        "share_in_mask": round(float(inside.double().mean()), 5),
        "largest_change_outside_mask": int(changed.max()),
        "seconds": edited.seconds,
        "peak_mb": edited.peak_mb,
    }
    if truth is not None:
        iou = metrics.mean(metrics.iou(inside, truth.mask))
        figures["truth"] = {
            "iou": None if iou is None else round(iou, 4),
            "psnr_inside": metrics.squared_error(images, truth.after, truth.mask).psnr(),
            "psnr_outside": metrics.squared_error(images, truth.after, ~truth.mask).psnr(),
        }
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
