"""A scene that is looked at and edited: everything the viewer does, without a browser.

One thing is done at a time (a preview, an edit, a film), in a thread of its own, whichever threads
users ask from. What a user asks for and cannot have is a sentence in `message`, and the viewer goes
on.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wys import scene_settings
from wys.apps.options import EditorOptions, check_instruction
from wys.apps.progress import progress_of_kinds
from wys.apps.scene_data import surface_points
from wys.apps.scene_edit_job import EditJob, begin_layer, edit_record
from wys.apps.scene_options import Method, SceneGuideOptions, SceneMapOptions
from wys.apps.scene_results import VERDICTS, spread_indices
from wys.apps.view.live import Live, Progress
from wys.apps.view.paths import PathSettings, film, free_name
from wys.apps.view.stack import Cancelled, Mode, Place, Shot, ShownLayer, Stack
from wys.apps.view.turns import Turns, by_turns
from wys.apps.view.viewpoint import Viewpoint
from wys.camera import Camera
from wys.devices import beside, find_device
from wys.diffusion.editor import Editor
from wys.errors import WysError
from wys.evaluation.peak_memory import PeakMemory
from wys.image import heat_map
from wys.nerf.region import Region
from wys.scene_edit import SceneEditStep, locate, no_place, verdict_of
from wys.scene_folder import SceneFolder
from wys.scene_layer import layer_name
from wys.scene_settings import SceneEditSettings
from wys.scene_state import SceneEditState
from wys.seeds import generator
from wys.store import locked

WORDS = {"relevance": "maps", "field": "relevance", "edit": "photographs", "fit": "field"}
"""What the phases of an edit are called."""
POINT_VIEWS = 8
"""Training views whose surfaces make the cloud of a preview."""
COLD = 0.2
"""Relevance below which the cloud has no points: nearly black, they would only hide the scene."""
Steps = Generator[Progress, None, None]
News = Literal["told", "stepped", "asked"]
"""There is something else to tell; the field is another; the user wants another picture."""


@dataclass(frozen=True)
class StudioSettings:
    """How edits are made here, as `wys scene edit` takes it from its options."""

    editor: EditorOptions
    how: SceneMapOptions
    guide: SceneGuideOptions
    method: Method = "wys"
    film: int = 60
    """Pictures of each edit's film; 0: none."""


@dataclass(frozen=True)
class Preview:
    """What a preview found."""

    instruction: str
    layers: tuple[str, ...]
    """The stamps of the edits that the scene had then."""
    state: SceneEditState
    points: Float[Tensor, "n 3"]
    """Some of the surfaces, in the scene frame."""
    heat: Float[Tensor, "n 3"]
    """Their relevance as colours."""


class Studio:
    """The scene of a folder, what is shown of it, and what is being done to it.

    Args:
        path: the scene's folder.
        settings: how edits are made.
        changed: called, from any thread, when there is news.

    Raises:
        WysError: the folder holds no fitted scene.
    """

    def __init__(
        self,
        path: Path,
        settings: StudioSettings,
        changed: Callable[[News], None] = lambda news: None,
    ) -> None:
        self.path, self.settings, self.changed = path, settings, changed
        self.turns = Turns()
        self.mode: Mode = "colour"
        self.strengths: dict[str, float] = {}
        self.live: Live | None = None
        self._beginning = threading.Lock()  # Held from the look at whether it is busy.
        self.preview: Preview | None = None
        self._editor: Editor | None = None
        self._device = beside(find_device(settings.editor.device))
        self.folder = SceneFolder.open(path)
        self.capture = self.folder.capture()
        self.stack = Stack(self.folder.scene(None).to(self._device))
        self.images = self.capture.train.originals
        self._reload()
        self.message = self._greeting()

    # ---------------------------------------------------------------- what is seen

    @property
    def busy(self) -> bool:
        """Whether something is being done, or pauses."""
        return self.live is not None and not self.live.over

    @property
    def instructions(self) -> dict[str, str]:
        """Instructions that the scene came with."""
        return dict(self.folder.record["instructions"] or {})

    def shoot(self, camera: Camera, cancelled: Cancelled = lambda: False) -> Shot | None:
        """What one camera sees of it; for the holder of a turn."""
        return self.stack.with_strengths(self.strengths).shoot(camera, self.mode, cancelled)

    def show(self, mode: Mode) -> None:
        """Chooses what pictures show."""
        self.mode = mode
        if mode in ("relevance", "mask") and self.stack.place is None:
            self.message = "Nothing was asked yet: type an instruction and preview it."
        self._tell("asked")

    def set_strength(self, name: str, strength: float) -> None:
        """Shows an edit in part; nothing is written."""
        self.strengths = {**self.strengths, name: strength}
        self._tell("asked")

    # ---------------------------------------------------------------- what is done

    def start_preview(self, instruction: str) -> None:
        """Looks for where an instruction matters."""
        self._begin("preview", lambda: self._preview(instruction))

    def start_edit(self, instruction: str) -> None:
        """Edits the scene; the edit becomes a layer of its folder, as by `wys scene edit`."""
        self._begin("edit", lambda: self._edit(instruction))

    def start_film(self, stops: tuple[Viewpoint, ...], settings: PathSettings, out: Path) -> None:
        """Renders a recorded path as it is shown now."""
        self._begin("film", lambda: self._film(stops, settings, out))

    def pause(self) -> None:
        """Rests after the step that is being made."""
        if self.live is not None:
            self.live.pause()
            self._tell("asked")

    def resume(self) -> None:
        """Goes on where it paused."""
        if self.live is not None:
            self.live.resume()
            self._tell("asked")

    def stop(self) -> None:
        """Ends what is being done; an edit that was begun is gone then."""
        if self.live is not None:
            self.live.stop()

    def undo(self) -> None:
        """Takes the last edit away, as `wys scene undo` does."""
        try:
            with self._beginning:
                self._undo()
        except WysError as error:
            self.message = str(error)
        self._tell("asked")

    def say(self, message: str) -> None:
        """Tells the user something."""
        self.message = message
        self._tell("told")

    # ---------------------------------------------------------------- inside

    def _greeting(self) -> str:
        """What to do first."""
        try:
            begun = self.folder.unfinished
        except WysError as error:
            return str(error)
        if begun is None:
            return "Type an instruction, then preview where it matters."
        return (
            f'An edit is unfinished: "{begun.record["instruction"]}". Type that and press Edit '
            "to go on with it, or undo it."
        )

    def _tell(self, news: News) -> None:
        """Who shows the work does not end it by failing to."""
        try:
            self.changed(news)
        except Exception:
            traceback.print_exc()

    def _begin(self, name: str, steps: Callable[[], Steps]) -> None:
        try:
            with self._beginning:
                self._check_idle()
                self.message = f"The {name} begins."
                self.live = live = Live(name, self._told(steps()), self._on_live)
        except WysError as error:
            self.say(str(error))
            return
        self._tell("told")
        live.start()

    def _check_idle(self) -> None:
        """Raises WysError where something is being done."""
        if self.live is not None and not self.live.over:
            raise WysError(f"The {self.live.name} is under way; wait for its end, or stop it.")

    def _told(self, steps: Steps) -> Steps:
        """The steps; whatever ends them, the scene is shown as its folder holds it then."""
        try:
            yield from steps
        except GeneratorExit:
            self.message = "Stopped; the scene is as it was."
            raise
        finally:
            self._reload()

    def _on_live(self) -> None:
        live = self.live
        if live is None or live.over:
            if live is not None and live.error is not None:
                self.message = live.error
            self._tell("asked")
        else:
            moved = live.step is not None and live.step.what == WORDS["fit"]
            self._tell("stepped" if moved else "told")

    def _reload(self) -> None:
        """Reads the layers of the folder as it is now; strengths stay."""
        folder, old = SceneFolder.open(self.path), {x.stamp: x for x in self.stack.layers}
        layers = []
        for layer in folder.layers:
            # Another program may have undone an edit and made another one of the same name.
            stamp = layer.stamp
            known = old.get(stamp)
            if known is None:
                region, how = layer.region(), layer.record["settings"]
                place = Place(
                    layer.scene().to(self._device),
                    region,
                    how["threshold"],
                    how.get("stretched", False),
                )
                room = None if region is None else region.room
                known = ShownLayer(layer.name, place, room, stamp=stamp)
            layers.append(known)
        if self.preview is not None and self.preview.layers != tuple(x.stamp for x in layers):
            self.preview = None
        seen = None
        if self.preview is not None:
            state = self.preview.state
            how = self._edit_settings()
            seen = Place(state.scene, state.region, how.threshold, how.stretched)
        names = {layer.name for layer in layers}
        self.strengths = {n: value for n, value in self.strengths.items() if n in names}
        self.images = folder.train_views(folder.top).images
        self.folder, self.stack = folder, Stack(self.stack.base, tuple(layers), seen)

    def _undo(self) -> None:
        self._check_idle()
        with locked(self.path):
            _, sentence = SceneFolder.open(self.path).undone()
        self._reload()
        self.message = sentence

    def _loaded(self) -> Editor:
        """The editor, loaded when it is needed first."""
        if self._editor is None:
            self.say("Loading the editor.")
            self._editor = self.settings.editor.load()
        return self._editor

    def _edit_settings(self) -> SceneEditSettings:
        own, given = self._loaded().settings, self.settings
        preset = scene_settings.PRESETS[given.method]
        return given.guide.settings(own, given.how.settings(own, preset))

    def _preview(self, instruction: str) -> Steps:
        check_instruction(instruction)
        self.preview = None
        settings = self._edit_settings()
        folder, seed = SceneFolder.open(self.path), self.settings.how.seed
        stamps = tuple(layer.stamp for layer in folder.layers)
        look = folder.look(folder.top).to(self._device)
        state = SceneEditState.begin(look.scene, folder.views_to_edit(folder.top))
        steps = locate(
            self._loaded(), state, instruction, settings, seed=seed, force=self.settings.guide.force
        )
        self.message = f'Where does "{instruction}" matter?'
        for step in by_turns(steps, self.turns):
            state = step.state
            yield Progress(WORDS[step.phase], step.index, step.count)
        verdict = verdict_of([found for found in state.maps if found is not None])
        points, heat = self._cloud(state)
        self.preview = Preview(instruction, stamps, state, points, heat)
        self.mode = "relevance"
        reason = no_place(verdict, state.region)
        self.message = reason or f"{VERDICTS[verdict]} Edit, if the heat is in the right place."

    def _cloud(self, state: SceneEditState) -> tuple[Tensor, Tensor]:
        """Points on what some views show, and their relevance as colours."""
        cameras = state.views.cameras[torch.tensor(spread_indices(len(state.views), POINT_VIEWS))]
        shots = []
        for i in range(len(cameras.intrinsics)):
            with self.turns.turn():
                shots.append(self.stack.shoot(cameras[i], "edited"))
        shown = [shot.rendering for shot in shots if shot is not None]
        points, _ = surface_points(shown, cameras)
        # What lies far behind the scene would only hide it.
        points = points[points.norm(dim=1) < 1.5]
        chosen = torch.randperm(len(points), generator=generator(0, len(points), "points"))
        points, field = points[chosen[:30_000]], state.scene.relevance
        assert field is not None
        with torch.no_grad():
            values = field(points.to(state.scene.device)).cpu()
        warm = values >= COLD
        return points[warm], heat_map(values[warm][None, None])[:, 0].T

    def _edit(self, instruction: str) -> Steps:
        check_instruction(instruction)
        given, settings = self.settings, self._edit_settings()
        editor = self._loaded()
        record = edit_record(
            instruction, given.editor, editor, given.how, given.guide, given.method, settings
        )
        with locked(self.path):
            folder = SceneFolder.open(self.path)
            known = self._known(instruction, folder, settings)
            layer = begin_layer(folder, layer_name(instruction), record, resume=True)
            if layer.name in folder.record["layers"]:
                raise WysError(f"the scene has this edit already: {layer.name}.")
            job = EditJob(folder, layer, editor, settings, given.guide.force, known)
            self.preview = None
            self.mode, self.message = "colour", f'"{instruction}"'
            shown, below = _LiveLayer(settings), self.stack.layers
            try:
                with PeakMemory(editor.device) as memory:
                    for step in by_turns(job.steps(), self.turns):
                        if step.phase in WORDS:
                            self.stack = Stack(self.stack.base, (*below, *shown.of(step)))
                            self.images = step.state.views.images
                            yield Progress(WORDS[step.phase], step.index, step.count)
            except GeneratorExit:
                folder.drop_unfinished()
                raise
            if job.state is None:
                self.message = job.reason or ""
                return
            self.say("Writing the edit, its sheet and its film.")
            with progress_of_kinds("writing", ("views", "film")) as advance:
                _, figures = job.write(given.film, memory.megabytes, advance)
        self.message = _told_edit(layer.name, figures)

    def _known(
        self, instruction: str, folder: SceneFolder, settings: SceneEditSettings
    ) -> SceneEditState | None:
        """What the last preview found, where the edit would find the same."""
        seen = self.preview
        if seen is None or seen.instruction != instruction or settings.maps != "before":
            return None
        if seen.layers != tuple(layer.stamp for layer in folder.layers):
            return None
        return seen.state

    def _film(self, stops: tuple[Viewpoint, ...], settings: PathSettings, out: Path) -> Steps:
        size = self.capture.train.size
        to_world = self.capture.scene_from_world
        # Who turns layers on and off meanwhile does not change the film.
        stack, mode = self.stack.with_strengths(self.strengths), self.mode

        def shoot(camera: Camera) -> Float[Tensor, "3 h w"]:
            with self.turns.turn():
                shot = stack.shoot(camera, mode)
            assert shot is not None
            return shot.picture(mode)

        name = free_name(out)
        for index, count in film(stops, settings, size, to_world, shoot, out, name):
            yield Progress("pictures", index, count)
        self.message = f"The film and its cameras are {name}.mp4 and {name}.json in {out}."

    def photographs(self, edited: bool) -> UInt8[Tensor, "n 3 h w"]:
        """The training photographs, or what the edits made of them."""
        return self.images if edited else self.capture.train.originals


class _LiveLayer:
    """An edit that is being made, as a layer."""

    def __init__(self, settings: SceneEditSettings) -> None:
        self._settings = settings
        self._region: Region | None = None
        self._room: Region | None = None

    def of(self, step: SceneEditStep) -> list[ShownLayer]:
        """As it stands; none while nothing is known of it."""
        state = step.state
        if step.phase == "relevance":
            return []
        if state.region is not self._region:
            self._region, self._room = state.region, state.room
        how = self._settings
        place = Place(state.scene, state.region, how.threshold, how.stretched)
        return [ShownLayer("", place, self._room)]


def _told_edit(name: str, figures: dict[str, Any]) -> str:
    """The outcome of an edit in a sentence."""
    return (
        f"{name}: {figures['edited_views']} photographs edited in {figures['seconds']:g} s; the "
        f"mask covers {figures['share_in_mask']:.1%} of the held-out views."
    )
