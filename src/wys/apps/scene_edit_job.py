"""An edit of a scene's folder: begun as a layer, gone through step by step, written.

The command line prints its steps and the viewer draws them; what it leaves in the folder is the
same. While it is under way its state is saved there, so that it can go on after a kill; the scene
has the layer once everything of it is written.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from wys.apps.options import EditorOptions
from wys.apps.progress import AdvanceKind, Expected, Saving
from wys.apps.results import run_record
from wys.apps.scene_data import chosen_views, mask_of, truth_of
from wys.apps.scene_options import Method, SceneGuideOptions, SceneMapOptions
from wys.apps.scene_results import film, spread_indices, write_sheet
from wys.devices import beside
from wys.diffusion.editor import Editor
from wys.errors import WysError
from wys.evaluation import metrics
from wys.image import draw_outline, overlay_heat
from wys.nerf.scene import Scene
from wys.scene_edit import SceneEditStep, edit_scene
from wys.scene_folder import SceneFolder
from wys.scene_layer import Layer
from wys.scene_settings import SceneEditSettings
from wys.scene_state import SceneEditState
from wys.views import ViewSet

FILM_RATE = 15.0
"""Pictures a second in the film of an edit."""


def edit_record(
    instruction: str,
    options: EditorOptions,
    editor: Editor,
    how: SceneMapOptions,
    guide: SceneGuideOptions,
    method: Method,
    settings: SceneEditSettings,
) -> dict[str, Any]:
    """What the record of an edit begins with."""
    return run_record(instruction, options, editor, how.seed) | {
        "method": method,
        "settings": asdict(settings),
        "force": guide.force,
    }


def begin_layer(folder: SceneFolder, name: str, record: dict[str, Any], resume: bool) -> Layer:
    """A new layer; or, to resume, the one that was begun; or one that is there already.

    Args:
        record: "instruction", "method", "seed", "settings", "force", "editor" and "command".

    Raises:
        WysError: another edit was begun and is not finished.
    """
    record = json.loads(json.dumps(record))  # As it comes back from a file.
    drop = f"'wys scene undo {folder.path}' drops it"
    begun = folder.unfinished
    if begun is not None and not resume:
        raise WysError(
            f'{folder.path} has an unfinished edit, "{begun.record["instruction"]}"; --resume '
            f"goes on with it, {drop}."
        )
    same = ("instruction", "method", "seed", "settings", "force", "editor")
    if begun is not None:
        for key in same:
            if _told(begun.record, key) != _told(record, key):
                raise WysError(
                    f'the unfinished edit of {folder.path}, "{begun.record["instruction"]}", began '
                    f"with another {key}; give what it began with "
                    f"({begun.record.get('command', 'as it was')}), or {drop}."
                )
        return begun
    top = folder.top
    if resume and top is not None and all(_told(top.record, k) == _told(record, k) for k in same):
        return top
    return folder.begin_layer(name, record)


def _told(record: Mapping[str, Any], key: str) -> Any:
    """What a record says; of an editor without where it runs and what that takes."""
    value = record.get(key)
    if key != "editor" or not isinstance(value, dict):
        return value
    return {name: value.get(name) for name in ("editor", "variant", "config", "dtype", "edit_size")}


@dataclass
class EditJob:
    """An edit of a layer that was begun. Go through `steps`, then `write`."""

    folder: SceneFolder
    layer: Layer
    editor: Editor
    settings: SceneEditSettings
    force: bool = False
    """Edit also where all views say that there is nothing to edit."""
    found: SceneEditState | None = None
    """What a preview with the same settings found already; it is copied."""
    state: SceneEditState | None = field(default=None, init=False)
    """As the last step left it."""
    reason: str | None = field(default=None, init=False)
    """Why there is no place to edit, where there is none."""
    seconds: float = field(default=0.0, init=False)
    """That the steps took, those before an interruption too."""

    def steps(self) -> Iterator[SceneEditStep]:
        """The steps of `edit_scene`; the layer is dropped where the edit fails or finds nothing.

        Raises:
            WysError: as `edit_scene`.
        """
        below, record = self.folder.top, self.layer.record
        look = self.folder.look(below).to(beside(self.editor.device))
        views = self.folder.views_to_edit(below)
        start, before = self._start(look.scene), self.seconds
        _, fitting, _ = self.folder.fit_settings()
        steps = edit_scene(
            self.editor,
            look,
            views,
            record["instruction"],
            self.settings,
            fitting=fitting,
            seed=record["seed"],
            force=self.force,
            resume=start,
        )
        saving, started, waited = Saving(share=0.1), time.monotonic(), 0.0
        while True:
            try:
                step = next(steps, None)
            except WysError:
                # Not an interruption: going on would end here again.
                self.folder.drop_unfinished()
                raise
            if step is None:
                break
            self.state, self.reason = step.state, step.message
            self.seconds = before + time.monotonic() - started - waited
            if saving.due():
                # A full disk is an interruption: the state before stays.
                with saving:
                    notes = {"seconds": f"{self.seconds:.1f}"}
                    self.layer.save_state(step.state.tensors(), notes)
            paused = time.monotonic()
            yield step
            # Whoever goes through the steps may have paused.
            waited += time.monotonic() - paused
        if self.reason is not None:
            self.state = None
            self.folder.drop_unfinished()

    def _start(self, scene: Scene) -> SceneEditState | None:
        """From where the edit goes on."""
        saved = self.layer.state()
        if saved is None:
            return None if self.found is None else self.found.copied()
        tensors, notes = saved
        assert self.settings.relevance is not None
        self.seconds = float(notes["seconds"])
        views = self.folder.views_to_edit(self.folder.top)
        instruction = self.layer.record["instruction"]
        return SceneEditState.from_tensors(
            tensors, scene, views, instruction, self.settings.relevance
        )

    def expected(self, film: int) -> Expected:
        """What `write` renders after the steps, and how long it may take: a view is tried out.

        Args:
            film: pictures of the film.
        """
        views, edits = self._shown_views(), len(self.folder.layers)
        look = self.folder.look(self.folder.top).to(beside(self.editor.device))
        begun = time.monotonic()
        look(views.cameras[0])
        before = time.monotonic() - begun
        # All edits' fields are rendered one after the other, the new one's too.
        after = before * (edits + 2) / (edits + 1)
        return {"views": (len(views), before + after), "film": (film, after)}

    def _shown_views(self) -> ViewSet:
        capture = self.folder.capture()
        return capture.held_out if len(capture.held_out) else capture.train

    def write(
        self, film: int, peak_mb: float, advance: AdvanceKind
    ) -> tuple[SceneFolder, dict[str, Any]]:
        """Writes the layer with sheet and film; the folder that has it, and the figures.

        Args:
            film: pictures of the film; 0: none.
            peak_mb: most memory in use, for the record.
            advance: called for every one of the "views" and of the "film" that is rendered.
        """
        state = self.state
        assert state is not None
        figures = self._pictures(state, film, advance)
        figures |= {"seconds": round(self.seconds, 1), "peak_mb": round(peak_mb)}
        folder = self.folder.with_layer(self.layer, state.scene, state.views, state.region, figures)
        return folder, figures

    def _pictures(
        self, state: SceneEditState, pictures: int, advance: AdvanceKind
    ) -> dict[str, Any]:
        """The sheet and the film of an edit, and its figures."""
        views = self._shown_views()
        old = self.folder.look(self.folder.top).to(state.scene.device)
        new = old.with_layer(state.scene, state.room)
        # What was there before the edit, with the relevance that the edit went by.
        field_of = Scene(old.scene.radiance, state.scene.relevance, background=old.scene.background)
        old, how = old.with_scene(field_of), self.settings
        before, after, masks, rooms, rows = [], [], [], [], []
        truth = truth_of(self.folder, self.layer.record["instruction"], views)
        for i in range(len(views)):
            camera = views.cameras[i]
            shown, now = old(camera), new(camera)
            cut = (how.threshold, how.stretched)
            masks.append(mask_of(shown, camera, state.region, *cut))
            rooms.append(mask_of(shown, camera, state.room, *cut))
            before.append(shown.rgb.clamp(0, 1))
            after.append(now.rgb.clamp(0, 1))
            advance("views", i + 1, len(views))
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
        asked = self.layer.record["instruction"]
        write_sheet(self.layer.folder / "sheet.png", rows, title=asked)
        if pictures:
            orbit = chosen_views(
                self.folder.capture(), "orbit", 1.0, pictures, pictures / FILM_RATE
            ).cameras
            path = self.layer.folder / "edited.mp4"
            with film(path, FILM_RATE) as add:
                for i in range(pictures):
                    add(new(orbit[i]).rgb.clamp(0, 1))
                    advance("film", i + 1, pictures)
        images, inside = torch.stack(after), torch.stack(masks)[:, 0]
        # What may change is the room: the region, and the rim that the edited field has around it.
        outside = ~torch.stack(rooms)[:, 0]
        changed = metrics.largest_difference(images, torch.stack(before), outside)
        figures: dict[str, Any] = {
            "edited_views": sum(edit is not None for edit in state.views.edits),
            "share_in_mask": round(float(inside.double().mean()), 5),
            "largest_change_outside_mask": int(changed.max()),
        }
        if truth is not None:
            iou = metrics.mean(metrics.iou(inside, truth.mask))
            figures["truth"] = {
                "iou": None if iou is None else round(iou, 4),
                "psnr_inside": metrics.squared_error(images, truth.after, truth.mask).psnr(),
                "psnr_outside": metrics.squared_error(images, truth.after, ~truth.mask).psnr(),
            }
        return figures
