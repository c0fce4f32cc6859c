"""`wys view`: look at a scene in the browser, edit it there, and watch."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import tyro

from wys.apps.address import check_address
from wys.apps.options import EditorOptions
from wys.apps.scene_options import Method, SceneGuideOptions, SceneMapOptions, ScenePath
from wys.errors import WysError

EditorGroup = tyro.conf.OmitArgPrefixes[EditorOptions]
MapGroup = Annotated[tyro.conf.OmitArgPrefixes[SceneMapOptions], tyro.conf.arg(name="map")]
EditGroup = Annotated[tyro.conf.OmitArgPrefixes[SceneGuideOptions], tyro.conf.arg(name="edit")]


def view(
    scene: ScenePath,
    port: int = 8080,
    host: str = "127.0.0.1",
    size: int = 512,
    out: Path = Path("out"),
    method: Method = "wys",
    film: int = 60,
    editor: EditorGroup = EditorOptions(),  # noqa: B008
    how: MapGroup = SceneMapOptions(),  # noqa: B008
    guide: EditGroup = SceneGuideOptions(),  # noqa: B008
) -> None:
    """Look at a scene in the browser, preview an instruction, edit and watch.

    Edits become layers of its folder, as by 'wys scene edit'. Ctrl-C ends it.

    Args:
        scene: Folder of the scene.
        port: Where the browser finds it; the next free one if it is taken.
        host: 127.0.0.1: this machine only; 0.0.0.0: whoever can reach it may edit.
        size: Longer side of the finest pictures, in pixels.
        out: Folder for recorded films and camera paths.
        method: wys; paper; or for comparison published, in2n (no relevance), per-frame.
        film: Pictures of each edit's film; 0: none.
    """
    if not 0 <= port < 65536 or not 32 <= size <= 4096:
        raise WysError("--port is below 65536, --size from 32 to 4096.")
    try:
        import viser  # noqa: F401
    except ImportError as error:
        raise WysError(
            "the viewer needs viser; install it with pip install 'wys[view]'."
        ) from error
    from wys.apps.progress import err
    from wys.apps.scene_results import check_film
    from wys.apps.view.studio import Studio, StudioSettings
    from wys.apps.view.viewer import Viewer, ViewerSettings
    from wys.scene_settings import PRESETS

    check_film(film)
    how.check(PRESETS[method])
    guide.check(PRESETS[method])
    check_address(host, 0)  # Where the port is taken the next free one will do.
    with err.status("opening the scene"):
        studio = Studio(scene, StudioSettings(editor, how, guide, method, film))
        viewer = Viewer(studio, ViewerSettings(host, port, size, out))
    print(f"{scene} is at {viewer.address}; Ctrl-C ends it.", flush=True)
    try:
        threading.Event().wait()
    finally:
        viewer.close()
