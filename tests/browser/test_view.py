"""`wys view` in a real browser, on a tiny scene with a tiny editor."""

import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from wys.apps import cli
from wys.apps.options import EditorOptions
from wys.apps.scene_options import SceneGuideOptions, SceneMapOptions
from wys.datasets.camera_path import read_camera_path
from wys.diffusion.editor import Editor
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import RelevanceFitSettings
from wys.nerf.region import RegionSettings
from wys.scene_settings import PRESETS

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
]
PATIENCE = 240.0
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("viser", reason="viser is not installed")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")


@pytest.fixture
def studio(
    editor: Editor, small_field: FieldSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A tiny scene of the built-in world, fitted in a second."""
    from wys.apps.view.studio import Studio, StudioSettings

    monkeypatch.setattr(
        "wys.nerf.field.FieldSettings", partial(FieldSettings, **asdict(small_field))
    )
    monkeypatch.setattr(EditorOptions, "load", lambda self: editor)
    preset = replace(PRESETS["wys"], voting=RegionSettings(resolution=24))
    monkeypatch.setattr("wys.scene_settings.PRESETS", {"wys": preset})
    fitting = partial(RelevanceFitSettings, iterations=6, rays=64)
    monkeypatch.setattr("wys.scene_edit.RelevanceFitSettings", fitting)
    options = "--downscale 6 --max-views 6 --holdout 3 --iterations 12 --rays 64 --device cpu"
    scene = tmp_path / "scene"
    assert cli.main(["scene", "fit", "tabletop:0", "--out", str(scene), *options.split()]) == 0
    guide = SceneGuideOptions(passes=0.5, every=1, steps=2, force=True)
    given = StudioSettings(EditorOptions(device="cpu"), SceneMapOptions(), guide, film=0)
    return Studio(scene, given)


@pytest.fixture
def page(studio: Any, tmp_path: Path) -> Iterator[Any]:
    """The viewer in a browser; whatever it asks of another machine fails the test."""
    from wys.apps.view.viewer import Viewer, ViewerSettings

    viewer = Viewer(studio, ViewerSettings(port=0, longest=96, out=tmp_path / "out"))
    asked: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": 900, "height": 700})
        page.set_default_timeout(1000 * PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(viewer.address)
        yield page
        browser.close()
    viewer.close()
    local = (viewer.address, viewer.address.replace("http", "ws"), "data:", "blob:")
    assert [url for url in asked if not url.startswith(local)] == []


def until(page: Any, condition: Callable[[], bool], what: str) -> None:
    """Waits while the browser goes on."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        page.wait_for_timeout(100)


def seen(page: Any) -> np.ndarray:
    """What the left part of the window shows, coarsely."""
    shot = page.screenshot(clip={"x": 0, "y": 250, "width": 500, "height": 400})
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB").resize((25, 20)), float)


def outlined(page: Any) -> int:
    """Pixels left of the panel that are as orange as the lines of the photographs' frustums."""
    shot = page.screenshot(clip={"x": 0, "y": 0, "width": 560, "height": 700})
    r, g, b = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"), int).transpose(2, 0, 1)
    return int(((r > 200) & (g > 90) & (g < 190) & (b < 100)).sum())


def test_a_scene_is_looked_at_and_edited(page: Any, studio: Any) -> None:
    page.get_by_text("Type an instruction").wait_for()
    until(page, lambda: seen(page).std() > 2, "the viewport shows nothing")

    for name in ("Depth", "Original"):
        before = seen(page)
        page.locator("input.mantine-Select-input:visible").first.click()
        page.get_by_role("option", name=name).click()
        until(page, lambda n=name: studio.mode == n.lower(), "the mode is not switched")
        until(page, lambda b=before: np.abs(seen(page) - b).mean() > 1, f"{name} looks the same")

    page.get_by_role("button", name="Preview").click()
    until(page, lambda: studio.preview is not None and not studio.busy, studio.message)
    assert studio.mode == "relevance"

    # No step can be made before the button is pressed.
    with studio.turns.turn():
        page.get_by_role("button", name="Edit", exact=True).click()
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Resume").wait_for()
    page.get_by_text("paused: ").wait_for()
    rests = studio.live.step
    page.wait_for_timeout(1000)
    assert studio.live.standing == "paused" and studio.live.step is rests
    page.get_by_role("button", name="Resume").click()
    page.get_by_text("2 photographs edited").wait_for()
    assert len(studio.stack.layers) == 1

    (name,) = (layer.name for layer in studio.stack.layers)
    track = page.locator(".mantine-Slider-track").first.bounding_box()
    page.mouse.click(track["x"] + track["width"] / 2, track["y"] + track["height"] / 2)
    until(page, lambda: 0.4 < studio.strengths.get(name, 1) < 0.6, "the strength stays")
    page.get_by_text(name, exact=True).last.click()
    until(page, lambda: studio.strengths[name] == 0, "the layer stays on")

    page.get_by_role("button", name="Undo the last").click()
    page.get_by_text("is undone").wait_for()
    assert not studio.stack.layers


def test_a_photograph_is_looked_through_and_a_path_filmed(
    page: Any, studio: Any, tmp_path: Path
) -> None:
    from wys.apps.view.photographs import FRUSTUM
    from wys.apps.view.viewpoint import Viewpoint, rotation

    page.get_by_text("Type an instruction").wait_for()
    until(page, lambda: seen(page).std() > 2, "the viewport shows nothing")
    page.wait_for_timeout(2000)
    first, *others = (Viewpoint.of(camera) for camera in studio.capture.train.cameras)
    window, aspect = 900 / 700, studio.capture.train.size[1] / studio.capture.train.size[0]
    here = first.stepping_back([view.position for view in others], window)
    assert here != first, "from its own place a camera has no other in sight"

    def place(view: Viewpoint) -> tuple[float, float]:
        """Where the middle of a photograph stands on the screen."""
        # The library keeps the volume of frustums, whatever their shape.
        depth = FRUSTUM / (math.tan(view.fov / 2) ** 2 * aspect / 3) ** (1 / 3)
        middle = np.array(view.position) + rotation(view.wxyz)[:, 2].numpy() * depth
        x, y, z = rotation(here.wxyz).numpy().T @ (middle - np.array(here.position))
        scale = 350 / math.tan(here.fov / 2) / z
        return 450 + scale * x, 350 + scale * y

    # The library's hint about software WebGL is orange too.
    for hint in page.locator(".mantine-Notification-closeButton").all():
        hint.click()
    until(page, lambda: outlined(page) == 0, "there is orange before there are photographs")
    page.get_by_text("Photos", exact=True).click()
    until(page, lambda: outlined(page) > 100, "no photograph is in sight")
    page.wait_for_timeout(2000)
    wanted = next(v for v in others if 20 < place(v)[0] < 540 and 20 < place(v)[1] < 680)
    page.mouse.move(*place(wanted))
    page.wait_for_timeout(500)
    page.mouse.click(*place(wanted))
    until(page, lambda: outlined(page) == 0, "the click does nothing")
    page.wait_for_timeout(2000)

    page.get_by_text("Path", exact=True).click()
    page.get_by_role("button", name="Add this camera").click()
    page.get_by_text("1 camera.").wait_for()
    page.mouse.move(300, 500)
    page.mouse.down()
    page.mouse.move(380, 490, steps=4)
    page.mouse.up()
    page.wait_for_timeout(2000)
    page.get_by_role("button", name="Add this camera").click()
    page.get_by_text("2 cameras.").wait_for()
    page.get_by_role("button", name="Save film").click()
    page.get_by_text("The film and its cameras").wait_for()
    path = read_camera_path(tmp_path / "out" / "camera_path.json", studio.capture.scene_from_world)
    places = path.cameras.world_from_camera[:, :3, 3]
    assert places[0].tolist() == pytest.approx(wanted.position, abs=1e-3)
    assert math.dist(places[0].tolist(), places[-1].tolist()) > 0.05
    assert len(imageio.imread(tmp_path / "out" / "camera_path.mp4")) == len(places)
