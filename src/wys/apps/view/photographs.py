"""Things in space: the training cameras with their photographs, and relevance as points."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import viser
from torch import Tensor

from wys.apps.view.studio import Preview, Studio
from wys.apps.view.viewpoint import Viewpoint

FRUSTUM = 0.12
"""Size of a camera's frustum; what it measures follows from its shape."""
POINT = 0.008
"""Side of a point, in scene units."""


class Photographs:
    """A frustum for each training view, made when it is asked for first.

    Args:
        look_through: moves a client to where a photograph was taken.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        studio: Studio,
        look_through: Callable[[viser.ClientHandle | None, Viewpoint], None],
    ) -> None:
        self._server, self._studio, self._look_through = server, studio, look_through
        self._frustums: list[viser.CameraFrustumHandle] = []
        self._shown: list[Tensor] = []
        self._visible, self._edited = False, True
        # Clients ask, and so does every step of an edit, each in a thread of its own.
        self._changing = threading.Lock()

    def show(self, visible: bool, edited: bool, here: Viewpoint | None) -> None:
        """Whether there are frustums, which pictures they have, and where the user stands."""
        with self._changing:
            self._visible, self._edited = visible, edited
            if visible and not self._frustums:
                self._make()
            self._leave_free(here)
            self._refresh()

    def seek(self, client: viser.ClientHandle | None, here: Viewpoint | None) -> None:
        """Has a client that stands here step back where it has no photograph in sight."""
        if client is None or here is None or not client.camera.image_height:
            return
        places = [tuple(map(float, f.position)) for f in self._frustums if f.visible]
        window = client.camera.image_width / client.camera.image_height
        view = here.stepping_back(places, window)
        if view != here:
            with client.atomic():
                client.camera.position = view.position
                client.camera.look_at = here.target

    def _leave_free(self, here: Viewpoint | None) -> None:
        """From its own place a photograph would hide all that is rendered."""
        for frustum in self._frustums:
            far = here is None or math.dist(frustum.position, here.position) > 2 * FRUSTUM
            frustum.visible = self._visible and far

    def refresh(self) -> None:
        """Puts the pictures in that have changed."""
        with self._changing:
            self._refresh()

    def _refresh(self) -> None:
        if not self._visible:
            return
        images = self._studio.photographs(self._edited)
        for i, (frustum, image) in enumerate(zip(self._frustums, images, strict=True)):
            if not self._shown[i].equal(image):
                frustum.image = image.permute(1, 2, 0).numpy()
                self._shown[i] = image

    def _make(self) -> None:
        views = self._studio.capture.train
        self._shown = list(self._studio.photographs(self._edited))
        for i, name in enumerate(views.names):
            view = Viewpoint.of(views.cameras[i])
            frustum = self._server.scene.add_camera_frustum(
                f"/photographs/{name}",
                fov=view.fov,
                aspect=views.size[1] / views.size[0],
                scale=FRUSTUM,
                thickness=1.5,
                thickness_units="screen",
                color=(255, 140, 40),
                image=self._shown[i].permute(1, 2, 0).numpy(),
                wxyz=view.wxyz,
                position=view.position,
            )
            frustum.on_click(self._clicked(view))
            self._frustums.append(frustum)

    def _clicked(self, view: Viewpoint) -> Callable[[Any], None]:
        def go(event: Any) -> None:
            self._leave_free(view)
            self._look_through(event.client, view)

        return go


class HeatPoints:
    """The relevance of a preview on the surfaces of the scene."""

    def __init__(self, server: viser.ViserServer) -> None:
        self._server = server
        self._shown: Preview | None = None
        self._cloud: viser.PointCloudHandle | None = None

    def show(self, preview: Preview | None, visible: bool) -> None:
        """The points of a preview, where there is one and they are wanted."""
        wanted = preview if visible else None
        if wanted is self._shown:
            return
        self._shown = wanted
        if self._cloud is not None:
            self._cloud.remove()
            self._cloud = None
        if wanted is not None and len(wanted.points):
            self._cloud = self._server.scene.add_point_cloud(
                "/relevance",
                wanted.points.numpy(),
                wanted.heat.numpy(),
                point_size=POINT,
                point_shading="flat",
            )
