"""The panel beside the viewport, in the order of the story: look, instruct, edit, layers, path."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import viser

from wys.apps.view.live import Live
from wys.apps.view.paths import PathSettings
from wys.apps.view.photographs import HeatPoints, Photographs
from wys.apps.view.stack import Mode
from wys.apps.view.studio import Studio
from wys.apps.view.viewpoint import Viewpoint

MODES: dict[str, Mode] = {
    "Colour": "colour",
    "Original": "original",
    "Edited": "edited",
    "Relevance": "relevance",
    "Mask": "mask",
    "Depth": "depth",
}
"""What the modes are called."""


class Panel:
    """Buttons and what they do; all else is the studio's.

    Args:
        standing: where a client stands.
        play: moves a client's camera along a path.
        out: folder for films.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        studio: Studio,
        photographs: Photographs,
        points: HeatPoints,
        standing: Callable[[viser.ClientHandle | None], Viewpoint | None],
        play: Callable[[viser.ClientHandle | None, tuple[Viewpoint, ...], PathSettings], None],
        out: Path,
    ) -> None:
        self._studio, self._gui = studio, server.gui
        self._photographs, self._points = photographs, points
        self._standing, self._play, self._out = standing, play, out
        self._stops: tuple[Viewpoint, ...] = ()
        self._rows: dict[str, tuple[viser.GuiCheckboxHandle, viser.GuiSliderHandle[int]]] = {}
        self._changing_rows = threading.Lock()  # News come from many threads.
        self._message = self._gui.add_markdown(studio.message)
        self._look()
        self._instruct()
        self._edit()
        self._layers()
        self._path()
        self.refresh()

    # ---------------------------------------------------------------- the five parts

    def _look(self) -> None:
        with self._gui.add_folder("Look"):
            self._mode = self._gui.add_dropdown("Show", tuple(MODES), initial_value="Colour")
            photos = self._gui.add_checkbox(
                "Photos", False, hint="Show the training cameras; click one to look through it."
            )
            edited = self._gui.add_checkbox(
                "Edited photos", True, hint="What the edits made of the photographs."
            )

        @self._mode.on_update
        def _(_: Any) -> None:
            self._studio.show(MODES[self._mode.value])

        edited.visible = False

        @photos.on_update
        @edited.on_update
        def _(event: Any) -> None:
            edited.visible = photos.value
            here = self._standing(event.client)
            self._photographs.show(photos.value, edited.value, here)
            if event.target is photos:
                self._photographs.seek(event.client, here)

    def _instruct(self) -> None:
        known = self._studio.instructions
        with self._gui.add_folder("Instruct"):
            self._words = self._gui.add_text(
                "Do", next(iter(known.values()), ""), hint='Such as "make the red cube blue".'
            )
            self._preview = self._gui.add_button("Preview", color="gray", icon=viser.Icon.FLAME)
            self._cloud = self._gui.add_checkbox(
                "Heat as points", False, hint="Relevance on the surfaces, in 3D."
            )

        @self._preview.on_click
        def _(_: Any) -> None:
            self._studio.start_preview(self._words.value)

        @self._cloud.on_update
        def _(_: Any) -> None:
            self._points.show(self._studio.preview, self._cloud.value)

    def _edit(self) -> None:
        with self._gui.add_folder("Edit"):
            self._go = self._gui.add_button("Edit", icon=viser.Icon.WAND)
            self._pause = self._gui.add_button("Pause", color="gray", icon=viser.Icon.PLAYER_PAUSE)
            self._stop = self._gui.add_button(
                "Stop",
                color="gray",
                icon=viser.Icon.PLAYER_STOP,
                hint="Drops what is being made; Pause keeps it.",
            )
            self._bar = self._gui.add_progress_bar(0.0)
            self._told = self._gui.add_markdown("")

        @self._go.on_click
        def _(_: Any) -> None:
            self._studio.start_edit(self._words.value)

        @self._pause.on_click
        def _(_: Any) -> None:
            live = self._studio.live
            if live is not None and live.standing == "paused":
                self._studio.resume()
            else:
                self._studio.pause()

        @self._stop.on_click
        def _(_: Any) -> None:
            self._studio.stop()

    def _layers(self) -> None:
        self._folder = self._gui.add_folder("Layers")
        with self._folder:
            self._none = self._gui.add_markdown("No edits yet.")
            self._undo = self._gui.add_button(
                "Undo the last",
                color="gray",
                icon=viser.Icon.ARROW_BACK_UP,
                hint="Takes the last edit out of the scene's folder, for good.",
            )
            # Layers stand above the button, whenever they come.
            self._undo.order = 1e9

        @self._undo.on_click
        def _(_: Any) -> None:
            self._studio.undo()

    def _path(self) -> None:
        with self._gui.add_folder("Path", expand_by_default=False):
            add = self._gui.add_button("Add this camera", color="gray", icon=viser.Icon.CAMERA_PLUS)
            remove = self._gui.add_button(
                "Remove the last", color="gray", icon=viser.Icon.CAMERA_MINUS
            )
            seconds = self._gui.add_slider("Seconds each", 0.5, 10.0, 0.5, 2.0)
            play = self._gui.add_button("Play", color="gray", icon=viser.Icon.PLAYER_PLAY)
            save = self._gui.add_button("Save film", icon=viser.Icon.MOVIE)
            self._count = self._gui.add_markdown("No cameras yet.")

        @add.on_click
        def _(event: Any) -> None:
            here = self._standing(event.client)
            if here is not None:
                self._stops = (*self._stops, here)
                self._count_stops()

        @remove.on_click
        def _(_: Any) -> None:
            self._stops = self._stops[:-1]
            self._count_stops()

        @play.on_click
        def _(event: Any) -> None:
            self._play(event.client, self._stops, PathSettings(seconds.value))

        @save.on_click
        def _(_: Any) -> None:
            self._studio.start_film(self._stops, PathSettings(seconds.value), self._out)

    # ---------------------------------------------------------------- as things stand

    def refresh(self) -> None:
        """Tells how things stand now."""
        studio, live = self._studio, self._studio.live
        busy = studio.busy
        self._message.content = studio.message
        if MODES[self._mode.value] != studio.mode:
            self._mode.value = next(name for name, mode in MODES.items() if mode == studio.mode)
        for button in (self._preview, self._go, self._undo):
            button.disabled = busy
        for button in (self._pause, self._stop):
            button.visible = busy
        paused = live is not None and live.standing == "paused"
        self._pause.label = "Resume" if paused else "Pause"
        self._pause.icon = viser.Icon.PLAYER_PLAY if paused else viser.Icon.PLAYER_PAUSE
        self._bar.visible = self._told.visible = busy
        if live is not None and live.step is not None and busy:
            self._bar.value = 100.0 * live.step.index / max(1, live.step.count)
            self._told.content = _in_words(live)
        self._points.show(studio.preview, self._cloud.value)
        self._refresh_layers()
        self._photographs.refresh()

    def _refresh_layers(self) -> None:
        with self._changing_rows:
            names = self._studio.folder.record["layers"]
            for name in [name for name in self._rows if name not in names]:
                for handle in self._rows.pop(name):
                    handle.remove()
            for name in names:
                if name not in self._rows:
                    self._rows[name] = self._row(name)
        self._none.visible = not names
        self._undo.visible = bool(names) or self._studio.folder.begun is not None

    def _row(self, name: str) -> tuple[viser.GuiCheckboxHandle, viser.GuiSliderHandle[int]]:
        with self._folder:
            on = self._gui.add_checkbox(name, True)
            strength = self._gui.add_slider(
                "Strength %", 0, 100, 1, 100, hint="How much of it is shown; nothing is written."
            )

        @on.on_update
        @strength.on_update
        def _(_: Any) -> None:
            strength.disabled = not on.value
            self._studio.set_strength(name, strength.value / 100 if on.value else 0.0)

        return on, strength

    def _count_stops(self) -> None:
        count = len(self._stops)
        self._count.content = (
            f"{count} camera{'' if count == 1 else 's'}." if count else "No cameras yet."
        )


def _in_words(live: Live) -> str:
    """How far something is."""
    assert live.step is not None
    paused = "paused: " if live.standing == "paused" else ""
    return f"{paused}{live.step.what} {live.step.index} of {live.step.count}"
