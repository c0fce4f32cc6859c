"""The README's picture of `wys page`: a sample, its relevance map and its edit, in a real browser.

python examples/page_screenshot.py [FILE]

Needs Playwright and the system's Chromium.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from wys.apps.options import EditorOptions
from wys.apps.page.command import PageOptions, serving

SAMPLE = 4
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


def main(out: Path, port: int = 7899) -> None:
    """Writes the picture."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no Chromium: apt-get install chromium")
    with serving(PageOptions(port=port), EditorOptions()) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 830})
        page.set_default_timeout(120_000)
        page.goto(address)
        page.click(f"#stage .card:nth-child({SAMPLE})")
        page.wait_for_selector("#message .verdict")
        page.click("#edit")
        page.wait_for_selector("#message .verdict:has-text('Done')")
        page.evaluate("window.scrollTo(0, 0)")
        page.wait_for_timeout(1500)
        out.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=out)
        browser.close()
    # A palette of 256 colours is enough for a page, and a third of the size.
    with Image.open(out) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(out, optimize=True)
    print(f"{out} ({out.stat().st_size / 1000:.0f} kB)")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images/page.png"))
