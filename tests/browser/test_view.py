"""`wys view` in a real browser, on a tiny scene with a tiny editor."""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wys.apps import cli
from wys.apps.options import EditorOptions
from wys.apps.scene_options import SceneGuideOptions, SceneMapOptions
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

    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_text("2 photographs edited").wait_for()
    assert len(studio.stack.layers) == 1
    page.get_by_role("button", name="Undo the last").click()
    page.get_by_text("is undone").wait_for()
    assert not studio.stack.layers
