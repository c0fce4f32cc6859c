"""The server: a viewport for each browser that connects, and one panel for all."""

from __future__ import annotations

import contextlib
import io
import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import viser
from torch import Tensor

from wys.apps.address import in_an_address
from wys.apps.view.panel import Panel
from wys.apps.view.paths import PathSettings
from wys.apps.view.photographs import HeatPoints, Photographs
from wys.apps.view.stack import Cancelled, along_axis
from wys.apps.view.studio import News, Studio
from wys.apps.view.viewpoint import Viewpoint, along
from wys.apps.view.viewport import Size, Viewport
from wys.errors import WysError
from wys.image import to_uint8

BEHIND = 0.03
"""Scene units by which pictures stand behind what they show, so that points on it are seen."""
PLAY_RATE = 10.0
"""Cameras a second while a path is played."""


@dataclass(frozen=True)
class ViewerSettings:
    """Where the viewer is found, and how fine its pictures are."""

    host: str = "127.0.0.1"
    port: int = 8080
    longest: int = 512
    """Pixels along the longer side of the finest picture."""
    out: Path = Path("out")
    """Folder for films."""


@dataclass(frozen=True)
class Screen:
    """A picture as the browser gets it."""

    rgb: Tensor
    """[h, w, 3], 8 bits."""
    depth: Tensor
    """[h, w] along the viewing axis, for what stands in front."""


class Viewer:
    """Serves a studio; `close` ends it."""

    def __init__(self, studio: Studio, settings: ViewerSettings) -> None:
        self._studio, self._settings = studio, settings
        self._viewports: dict[int, Viewport[Viewpoint, Screen]] = {}
        # The library greets on standard output; the command says where the scene is found.
        with contextlib.redirect_stdout(io.StringIO()):
            self._server = viser.ViserServer(settings.host, settings.port, "wys", verbose=False)
        self._server.gui.configure_theme(
            show_logo=False, show_share_button=False, brand_color=(191, 54, 84)
        )
        self._server.scene.set_up_direction("+z")
        self._first = Viewpoint.of(studio.capture.train.cameras[0])
        self._photo = studio.capture.train.size[1] / studio.capture.train.size[0]
        camera = self._server.initial_camera
        camera.position, camera.look_at = self._first.position, self._first.target
        camera.fov = self._first.fov
        photographs = Photographs(self._server, studio, self._go_to)
        points = HeatPoints(self._server)
        self._panel = Panel(
            self._server,
            studio,
            photographs,
            points,
            _standing,
            self._play,
            settings.out,
        )
        studio.changed = self._changed
        self._server.on_client_connect(self._connect)
        self._server.on_client_disconnect(self._disconnect)

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{in_an_address(self._settings.host)}:{self._server.get_port()}"

    def close(self) -> None:
        """Ends the server and all viewports."""
        for viewport in list(self._viewports.values()):
            viewport.close()
        self._server.stop()

    # ---------------------------------------------------------------- inside

    def _changed(self, news: News) -> None:
        self._panel.refresh()
        for viewport in list(self._viewports.values()):
            if news == "asked":
                viewport.ask()
            elif news == "stepped":
                viewport.step()

    def _connect(self, client: viser.ClientHandle) -> None:
        def show(screen: Screen) -> None:
            client.scene.set_background_image(
                screen.rgb.numpy(), format="jpeg", jpeg_quality=90, depth=screen.depth.numpy()
            )

        studio, longest = self._studio, self._settings.longest
        viewport = Viewport(self._make, show, studio.turns, studio.say, longest)
        self._viewports[client.client_id] = viewport

        def moved(camera: viser.CameraHandle) -> None:
            here = _standing(client)
            if here is not None:
                viewport.move(here, (camera.image_height, camera.image_width))

        client.camera.on_update(moved)
        # A window that is narrower than the photographs shows their whole width.
        self._go_to(client, self._first)
        moved(client.camera)

    def _disconnect(self, client: viser.ClientHandle) -> None:
        viewport = self._viewports.pop(client.client_id, None)
        if viewport is not None:
            viewport.close()

    def _make(self, view: Viewpoint, size: Size, cancelled: Cancelled) -> Screen | None:
        camera = view.camera(*size)
        shot = self._studio.shoot(camera, cancelled)
        if shot is None:
            return None
        picture = shot.picture(self._studio.mode)
        return Screen(
            to_uint8(picture).permute(1, 2, 0).contiguous(),
            along_axis(camera, shot.rendering.surface) + BEHIND,
        )

    def _go_to(self, client: viser.ClientHandle | None, view: Viewpoint) -> None:
        """Moves a client's camera."""
        if client is None:
            return
        camera, framed = client.camera, view
        if camera.image_height:
            framed = view.framing(self._photo, camera.image_width / camera.image_height)
        with client.atomic():
            camera.position = framed.position
            camera.look_at = framed.target
            camera.fov = framed.fov

    def _play(
        self,
        client: viser.ClientHandle | None,
        stops: tuple[Viewpoint, ...],
        settings: PathSettings,
    ) -> None:
        """Moves a client's camera along a path, in a thread of its own."""
        count = max(2, math.ceil(settings.seconds * PLAY_RATE * (len(stops) - 1)))
        try:
            views = along(stops, count)
        except WysError as error:
            self._studio.say(str(error))
            return

        def go() -> None:
            for view in views:
                if client is None or client.client_id not in self._viewports:
                    return
                with client.atomic():
                    client.camera.position = view.position
                    client.camera.look_at = view.target
                    client.camera.fov = view.fov
                time.sleep(1 / PLAY_RATE)

        threading.Thread(target=go, name="wys path", daemon=True).start()


def _standing(client: viser.ClientHandle | None) -> Viewpoint | None:
    """Where a client stands."""
    if client is None:
        return None
    camera = client.camera
    x, y, z = np.asarray(camera.position, dtype=float).tolist()
    a, b, c, d = np.asarray(camera.wxyz, dtype=float).tolist()
    return Viewpoint((x, y, z), (a, b, c, d), float(camera.fov))
