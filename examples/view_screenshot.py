"""Pictures of `wys view` at work, such as docs/images/view.png.

Needs the extra `view`, playwright, and a chromium:

    wys scene fit tabletop:5 --out demo-scene/scene
    python examples/view_screenshot.py demo-scene/scene pictures

The scene is copied first, without its edits. Writes, in a window as on a desk and as on a phone,
what is seen at first, after a preview, during an edit and after it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from wys.apps.options import EditorOptions
from wys.apps.scene_options import SceneGuideOptions, SceneMapOptions
from wys.apps.view.studio import Studio, StudioSettings
from wys.apps.view.viewer import Viewer, ViewerSettings
from wys.scene_folder import SceneFolder, copy_scene

CHROMIUM = "/usr/bin/chromium"
FLAGS = [  # WebGL without a graphics card.
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-dev-shm-usage",
]
WINDOWS = {"desk": (1280, 800), "phone": (390, 844)}


def opened(browser: Browser, address: str, size: tuple[int, int]) -> Page:
    """A window with the viewer in it."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(600_000)
    page.goto(address)
    page.get_by_text("Instruct").first.wait_for()
    # The library's hint about software WebGL is not what the picture is about.
    close = page.locator(".mantine-Notification-closeButton")
    page.wait_for_timeout(3000)
    for _ in range(close.count()):
        close.first.click()
    return page


def until(page: Page, condition: Callable[[], bool]) -> None:
    """Waits while the browser goes on."""
    while not condition():
        page.wait_for_timeout(250)


def main(scene: Path, out: Path) -> None:
    """Writes OUT/{first,preview,during,edited}-{desk,phone}.png."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        copy = copy_scene(SceneFolder.open(scene), Path(folder) / "scene")
        while copy.layers:
            copy, _ = copy.undone()
        guide = SceneGuideOptions(passes=1)
        # One draw: a picture needs less time, and need not be as sure as an edit.
        given = StudioSettings(EditorOptions(), SceneMapOptions(draws=1), guide, film=0)
        studio = Studio(copy.path, given)
        viewer = Viewer(studio, ViewerSettings(port=0))
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        pages = {name: opened(browser, viewer.address, size) for name, size in WINDOWS.items()}
        desk = pages["desk"]

        def shoot(when: str, seconds: float) -> None:
            desk.wait_for_timeout(1000 * seconds)
            for name, page in pages.items():
                page.screenshot(path=out / f"{when}-{name}.png")
            print(f"{when}: {studio.message}", flush=True)

        desk.get_by_text("Photos", exact=True).click()
        shoot("first", 10)
        desk.get_by_role("button", name="Preview").click()
        until(desk, lambda: studio.preview is not None and not studio.busy)
        shoot("preview", 15)
        desk.get_by_role("button", name="Edit", exact=True).click()

        def half() -> bool:
            step = studio.live.step if studio.live is not None else None
            return step is not None and step.what == "field" and 2 * step.index > step.count

        until(desk, lambda: half() or not studio.busy)
        shoot("during", 0)
        until(desk, lambda: not studio.busy)
        shoot("edited", 30)
        browser.close()
        viewer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "pictures"))
