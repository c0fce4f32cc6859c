"""`wys scene relevance` and `wys scene edit`: where an instruction matters, and the edit there.

An edit becomes a layer of the scene's folder. While it is under way its state is saved there, so
that `--resume` goes on after a kill; the scene has the layer once everything of it is written.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wys.apps.options import EditorOptions, Flag, optional
from wys.apps.scene_commands import ScenePath
from wys.apps.scene_options import Method, SceneGuideOptions, SceneMapOptions
from wys.errors import WysError

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

    from wys.camera import Camera
    from wys.diffusion.editor import Editor
    from wys.nerf.layering import Look
    from wys.nerf.region import Region
    from wys.nerf.rendering import Rendering
    from wys.relevance import Threshold
    from wys.scene_edit import SceneEditSettings, SceneEditState, SceneEditStep
    from wys.scene_folder import Layer, SceneFolder
    from wys.views import Capture, ViewSet

EditorGroup = tyro.conf.OmitArgPrefixes[EditorOptions]
MapGroup = Annotated[tyro.conf.OmitArgPrefixes[SceneMapOptions], tyro.conf.arg(name="map")]
EditGroup = Annotated[tyro.conf.OmitArgPrefixes[SceneGuideOptions], tyro.conf.arg(name="edit")]
Instruction = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INSTRUCTION")]

VERDICTS = {
    "nothing to edit": "Nothing to edit: no view shows what the instruction is about.",
    "local": "A local edit.",
    "whole image": "The instruction concerns the whole scene.",
}
FILM_RATE = 15.0
"""Pictures a second in the film of an edit."""


def relevance(
    scene: ScenePath,
    instruction: Instruction,
    out: Path = Path("out"),
    points: int = 100_000,
    editor: EditorGroup = EditorOptions(),  # noqa: B008
    how: MapGroup = SceneMapOptions(),  # noqa: B008
) -> None:
    """Show where an instruction would change a scene, before anything is edited.

    Writes a sheet, all views' relevance and masks, and coloured points (.ply).

    Args:
        scene: Folder of the scene.
        instruction: What to do, such as "make the red cube blue".
        out: Folder for the results; made where it is missing.
        points: Most points of the cloud.
    """
    _check_instruction(instruction)
    from wys.apps.progress import err
    from wys.apps.results import in_words, result_folder
    from wys.scene_edit import PRESETS
    from wys.scene_folder import SceneFolder

    folder = SceneFolder.open(scene)
    look = folder.look(folder.top)
    views = folder.views_to_edit(folder.top)
    capture = folder.capture()
    with result_folder(out) as results:
        with err.status("loading the editor"):
            loaded = editor.load()
        settings = how.settings(loaded, PRESETS["wys"])
        found = _find(loaded, look.to(loaded.device), views, instruction, settings, how.seed)
        record = _command(instruction, editor, loaded, how.seed) | {"scene": str(scene.resolve())}
        shares = _write_preview(results, found, capture, points, record)
    print(f"{VERDICTS[found.verdict]} {_in_words(shares)}")
    print(f"Results in {in_words(out)}")


@dataclass(frozen=True)
class Found:
    """Where an instruction matters in a scene."""

    look: Look
    """The scene with its relevance field."""
    region: Region | None
    """What space may change; None where the relevance field alone decides."""
    verdict: str
    settings: SceneEditSettings

    def mask(self, shown: Rendering, camera: Camera) -> Bool[Tensor, "1 h w"]:
        """The pixels of a view that may change."""
        return mask_of(shown, camera, self.region, self.settings.threshold)


def mask_of(
    shown: Rendering, camera: Camera, region: Region | None, threshold: Threshold
) -> Bool[Tensor, "1 h w"]:
    """The pixels of a view that look at a region; without one, those of high relevance."""
    import torch

    from wys.relevance import RelevanceMap, RelevanceSettings

    if region is not None:
        return region.seen_by(camera, shown.depth)
    if shown.relevance is None:
        return torch.ones_like(shown.depth, dtype=torch.bool)
    values, size = shown.relevance[None], (camera.height, camera.width)
    found = RelevanceMap(values, values, None, ("",), size, RelevanceSettings())
    return found.mask(threshold).at(size)[0]


def _find(
    editor: Editor,
    look: Look,
    views: ViewSet,
    instruction: str,
    settings: SceneEditSettings,
    seed: int,
) -> Found:
    """The first half of `edit_scene`: maps of all views, the relevance field, the region."""
    from wys.apps.progress import progress
    from wys.nerf.fitting import RelevanceFitSettings, fit_relevance
    from wys.scene_edit import agreed_region, normalise_across, scene_relevance, verdict_of

    maps = []
    with progress("looking for what the instruction changes") as advance:
        for i, made in scene_relevance(editor, views, instruction, settings.relevance, seed=seed):
            maps.append(made)
            advance(i + 1, len(views))
    verdict, values = verdict_of(maps), normalise_across(maps)
    for i, value in enumerate(values):
        views = views.with_relevance(i, value)
    field = look.scene.with_relevance(seed)
    with progress("learning where it is in the scene") as advance:
        for step in fit_relevance(field, views, RelevanceFitSettings(), seed):
            advance(step.iteration, step.count)
    region = None
    if verdict != "whole image":
        how = settings.relevance or editor.settings.relevance
        region = agreed_region(values, views, how, settings.voting)
    return Found(look.with_scene(field), region, verdict, settings)


def _write_preview(
    results: Path, found: Found, capture: Capture, most: int, record: dict[str, Any]
) -> dict[str, float]:
    """Every file of a preview; returns the shares that it tells of."""
    import torch

    from wys.apps.progress import progress
    from wys.apps.scene_data import surface_points, to_world
    from wys.apps.scene_results import spread_indices, write_points, write_sheet
    from wys.image import draw_outline, overlay_heat, write_image
    from wys.seeds import generator
    from wys.store import write_json

    rows, shares = [], {}
    renders: list[Rendering] = []
    for split, views in (("training", capture.train), ("held-out", capture.held_out)):
        shown, masks = [], []
        with progress(f"rendering {split} views") as advance:
            for i in range(len(views)):
                shown.append(found.look(views.cameras[i]))
                masks.append(found.mask(shown[i], views.cameras[i]))
                advance(i + 1, len(views))
        for i, (each, mask) in enumerate(zip(shown, masks, strict=True)):
            assert each.relevance is not None
            colour = each.rgb.clamp(0, 1)
            heat = overlay_heat(colour, each.relevance)
            write_image(results / "relevance" / f"{views.names[i]}.png", heat)
            write_image(results / "mask" / f"{views.names[i]}.png", mask.float())
            if i in spread_indices(len(views), 4):
                title = f"{split} {views.names[i]}"
                cells = [(title, colour), ("relevance", heat), ("mask", draw_outline(colour, mask))]
                rows.append(cells)
        if len(views):
            shares[f"{split} pixels"] = float(torch.stack(masks).double().mean())
        if split == "training":
            renders = shown
    places, rgb = surface_points(
        [each.depth for each in renders],
        [each.opacity for each in renders],
        [each.rgb for each in renders],
        capture.train.cameras,
    )
    chosen = torch.randperm(len(places), generator=generator(0, len(places), "points"))[:most]
    places, rgb = places[chosen], rgb[chosen]
    field = found.look.scene.relevance
    assert field is not None
    with torch.no_grad():
        values = field(places.to(found.look.scene.device)).cpu()
    write_points(results / "points.ply", to_world(places, capture.scene_from_world), rgb, values)
    if found.region is not None:
        shares["surface"] = float(found.region.contains(places).double().mean())
    write_sheet(results / "sheet.png", rows)
    write_json(
        results / "run.json",
        record
        | {
            "verdict": found.verdict,
            "shares": {name: round(value, 5) for name, value in shares.items()},
            "settings": asdict(found.settings),
            "points": len(places),
        },
    )
    return shares


def _in_words(shares: dict[str, float]) -> str:
    parts = [f"{value:.1%} of the {name}" for name, value in shares.items()]
    return f"It may change {', '.join(parts)}."


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
    _check_instruction(instruction)
    from wys.apps.progress import err
    from wys.apps.results import in_words
    from wys.scene_edit import PRESETS
    from wys.scene_folder import RECORD, SceneFolder, copy_scene, layer_name, locked

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
        record = _command(instruction, editor, loaded, how.seed) | {
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


def _check_instruction(instruction: str) -> None:
    if not instruction.strip():
        raise WysError("the instruction is empty; say what to change.")


def _command(instruction: str, options: EditorOptions, editor: Editor, seed: int) -> dict[str, Any]:
    """What every record begins with."""
    from wys.apps.results import versions

    return {
        "command": shlex.join(["wys", *sys.argv[1:]]),
        "instruction": instruction,
        "editor": asdict(options) | {"device": str(editor.device)},
        "seed": seed,
        "versions": versions(),
    }


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
    from wys.scene_edit import NOTHING, SceneEditState, edit_scene

    below = folder.top
    scene = folder.scene(below).to(editor.device)
    views = folder.views_to_edit(below)
    instruction, seed = layer.record["instruction"], layer.record["seed"]
    state, before = None, 0.0
    saved = layer.state()
    if saved is not None:
        tensors, notes = saved
        assert settings.relevance is not None
        state = SceneEditState.from_tensors(tensors, scene, views, instruction, settings.relevance)
        before = float(notes["seconds"])

    def steps() -> Iterator[SceneEditStep]:
        _, fitting, _ = folder.fit_settings()
        try:
            yield from edit_scene(
                editor,
                scene,
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
    from wys.apps.scene_data import chosen_views, truth_of
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
    before, after, masks, rows = [], [], [], []
    truth = truth_of(folder, layer.record["instruction"], views)
    with progress("rendering views") as advance:
        for i in range(len(views)):
            camera = views.cameras[i]
            shown, now = old(camera), new(camera)
            masks.append(mask_of(shown, camera, state.region, settings.threshold))
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
    changed = metrics.largest_difference(images, torch.stack(before), ~inside)
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
