"""`wys page` as a visitor meets it: the real page, the built-in editor, a real browser."""

from __future__ import annotations

import io
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from wys.apps.options import EditorOptions
from wys.apps.page import jobs
from wys.apps.page.command import PageOptions, serving

pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'wys[page]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("there is no Chromium: apt-get install chromium", allow_module_level=True)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 240_000
"""Milliseconds: a machine may be busy with something else."""
INSTRUCTION = "#instruction textarea, #instruction input"
Visitor = Callable[..., Any]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The page with the built-in editor."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    limits = PageOptions(port=port, max_megabytes=2, max_megapixels=1)
    with serving(limits, EditorOptions(device="cpu")) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visitor(browser: Any, address: str) -> Iterator[Visitor]:
    """Opens the page as one more visitor; afterwards no visitor has asked anything elsewhere."""
    contexts, elsewhere, broken = [], [], []

    def note(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            elsewhere.append(request.url)

    def come(width: int = 1280, height: int = 900) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", note)
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#stage .card")
        return page

    yield come
    for context in contexts:
        context.close()
    assert not elsewhere and not broken


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A blue ball on grey, 120 x 90, that no sample shows, lit from above."""
    y, x = (np.mgrid[:90, :120] - np.array([45, 40]).reshape(2, 1, 1)) / 20
    inside = x**2 + y**2 < 1
    height = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    light = np.clip(0.35 + 0.65 * (0.7 * height - 0.4 * x - 0.6 * y), 0.1, 1)[..., None]
    pixels = np.full((90, 120, 3), 128, np.uint8)
    pixels[inside] = (light * (60, 90, 220)).astype(np.uint8)[inside]
    path = tmp_path_factory.mktemp("photo") / "blue ball.png"
    Image.fromarray(pixels).save(path)
    return path


def told(page: Any, kind: str) -> str:
    """What the page says, once it says something of a kind."""
    return str(page.locator(f"#message .{kind}").inner_text())


def enter(page: Any, field: str, value: str) -> None:
    """Types into a part of the settings, which are opened for it.

    Gradio makes the parts of a closed accordion when it opens, and for a few hundredths of a second
    they still take back their first values, which no person is quick enough to see. What is typed
    counts once it has stood for a while.
    """
    shown = page.locator(f"{field} >> visible=true")
    if not shown.count():
        page.click("#settings button")
    for _ in range(20):
        shown.fill(value)
        shown.blur()
        page.wait_for_timeout(500)
        if shown.input_value() == value:
            return
    raise AssertionError(f"{field} does not keep {value!r}")


def downloaded(page: Any, label: str) -> bytes:
    with page.expect_download() as download:
        page.click(f"#get-{label}")
    return Path(download.value.path()).read_bytes()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def paint(page: Any) -> None:
    """Adds a stroke to the mask, near the upper right corner."""
    page.click("[data-mode=add]")
    box = page.locator("#stage canvas").bounding_box()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.3 * box["height"], steps=4)
    page.mouse.up()
    page.wait_for_selector("[data-part=undo]:enabled")


def test_the_story_of_an_edit(visitor: Visitor, photo: Path) -> None:
    page = visitor()
    page.set_input_files("#stage input[type=file]", photo)
    page.wait_for_selector("#stage [data-state=image] canvas")
    page.fill(INSTRUCTION, "make the ball red")
    begun = time.perf_counter()
    page.click("#look")
    told(page, "verdict")
    seconds = time.perf_counter() - begun
    print(f"\nfirst relevance after {seconds:.1f} s")
    assert seconds < PATIENCE / 1000

    # The threshold moves the outline in the browser, without a word to the server. What follows
    # the verdict's answer of its own accord comes first.
    page.wait_for_timeout(1000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    moved = page.evaluate("""() => {
        const slider = document.querySelector("[data-part=threshold]");
        const canvas = document.querySelector("#stage canvas");
        return [0.1, 0.5, 0.9, 0.02, 0.3].map((value) => {
            slider.value = value;
            const begun = performance.now();
            slider.dispatchEvent(new Event("input", { bubbles: true }));
            const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const sum = pixels.data.reduce((sum, value) => sum + value, 0);
            return [Number(canvas.dataset.milliseconds), Number(canvas.dataset.covered), sum];
        });
    }""")
    quickest = min(milliseconds for milliseconds, _, _ in moved)
    print(f"the outline follows the threshold in {quickest:.1f} ms")
    assert quickest < 100 and not asked
    covered = [share for _, share, _ in sorted(moved, key=lambda entry: -entry[1])]
    assert covered[0] > covered[-1]
    assert len({total for _, _, total in moved}) > 1, "the picture has changed"
    page.dispatch_event("[data-part=threshold]", "change")

    # A stroke adds to the mask where nothing was.
    paint(page)
    page.click("#edit")
    page.wait_for_selector("#figures dl")
    assert "unchanged" in page.inner_text("#figures")
    command = page.input_value("#command textarea")
    assert command.startswith("wys edit 'blue ball.png' 'make the ball red' --threshold 0.3 ")
    assert "--mask mask.png" in command and "--seed 0" in command
    told(page, "verdict")

    before, after = pixels(photo.read_bytes()), pixels(downloaded(page, "Image"))
    mask = pixels(downloaded(page, "Mask"))[..., 0] > 127
    assert mask[int(0.25 * 90), int(0.85 * 120)], "where the stroke went"
    assert (before != after)[mask].any() and (before == after)[~mask].all()
    assert json.loads(downloaded(page, "Record"))["largest_change_outside_mask"] == 0

    page.click("#use")
    page.wait_for_selector("#stage [data-state=image] canvas")
    assert page.locator("#history img").count() == 1, "what was made stays"


@pytest.fixture
def slow_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits that take long enough to be cancelled on any machine."""

    def slowly(*request: Any) -> Iterator[jobs.Progress]:
        for progress in edits(*request):
            time.sleep(0.4)
            yield progress

    edits = jobs.edits
    monkeypatch.setattr(jobs, "edits", slowly)


@pytest.mark.usefixtures("slow_edits")
def test_an_edit_can_be_cancelled_and_the_page_goes_on(visitor: Visitor) -> None:
    page = visitor()
    page.click("#stage .card:nth-child(4)")
    told(page, "verdict")
    enter(page, "#steps input", "150")
    page.click("#edit")
    page.wait_for_selector("#message progress[max='150']")
    # What would begin something else rests: the job's end would undo it.
    assert page.locator("[data-part=new]").evaluate("button => button.inert")
    page.click("#cancel")
    page.wait_for_selector("#cancel:text('Cancelling')")
    page.press(INSTRUCTION, "Enter")
    page.wait_for_selector("#message :text('Cancelled')")
    page.wait_for_selector("#edit")
    page.wait_for_selector("#result", state="hidden")
    assert not page.locator("[data-part=new]").evaluate("button => button.inert")

    # Several seeds become a gallery to choose from.
    enter(page, "#steps input", "1")
    enter(page, "#variants-count input[type=number]", "2")
    page.click("#edit")
    page.wait_for_function("document.querySelectorAll('#variants img').length === 2")
    told(page, "verdict")
    assert "--seed 0" in page.input_value("#command textarea")
    page.locator("#variants button:has(img)").nth(1).click()
    page.wait_for_function("document.querySelector('#command textarea').value.includes('--seed 1')")
    assert "--relevance relevance.safetensors" in page.input_value("#command textarea")


def test_what_was_painted_for_other_words_is_not_lost_in_silence(visitor: Visitor) -> None:
    page = visitor()
    page.click("#stage .card:nth-child(4)")
    told(page, "verdict")
    paint(page)
    page.fill(INSTRUCTION, "make the floor gray")
    page.click("#edit")
    page.wait_for_selector("#message .verdict:has-text('paint again')")
    page.wait_for_selector("#result", state="hidden")
    assert page.locator("[data-part=undo]").is_disabled()
    page.click("#edit")
    page.wait_for_selector("#figures dl")


def test_errors_are_one_sentence_and_the_page_goes_on(
    visitor: Visitor, photo: Path, tmp_path: Path
) -> None:
    page = visitor()
    page.click("#look")
    assert "instruction is empty" in told(page, "error")
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:80])
    page.set_input_files("#stage input[type=file]", tmp_path / "broken.png")
    page.wait_for_selector("#message .error:has-text('broken.png')")
    (tmp_path / "heavy.png").write_bytes(bytes(2_100_000))
    page.set_input_files("#stage input[type=file]", tmp_path / "heavy.png")
    page.wait_for_selector("#message .error:has-text('the limit is 2 MB')")
    Image.new("RGB", (1200, 1000)).save(tmp_path / "wide.png")
    page.set_input_files("#stage input[type=file]", tmp_path / "wide.png")
    page.wait_for_selector("#message .error:has-text('megapixels')")

    page.set_input_files("#stage input[type=file]", photo)
    page.wait_for_selector("#stage [data-state=image] canvas")
    page.fill(INSTRUCTION, "make the ball red")
    enter(page, "#editor :is(textarea, input)", "/no/such/editor")
    page.click("#look")
    page.wait_for_selector("#message .error:has-text('/no/such/editor')")
    enter(page, "#editor :is(textarea, input)", "")
    page.click("#look")
    told(page, "verdict")


@pytest.mark.parametrize(
    ("host", "status"), [("127.0.0.1", 200), ("LOCALHOST", 200), ("a.site", 400), ("", 400)]
)
def test_only_this_machines_names_reach_the_page(address: str, host: str, status: int) -> None:
    port = urlsplit(address).port
    connection = HTTPConnection("127.0.0.1", port)
    for path in ("/", "/config", "/gradio_api/info"):
        connection.request("GET", path, headers={"Host": f"{host}:{port}" if host else ""})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


def test_a_file_dropped_beside_the_stage_is_taken(visitor: Visitor, photo: Path) -> None:
    page = visitor()
    dropped = page.evaluate_handle(
        """(bytes) => {
            const files = new DataTransfer();
            files.items.add(new File([new Uint8Array(bytes)], "ball.png", { type: "image/png" }));
            return files;
        }""",
        list(photo.read_bytes()),
    )
    page.dispatch_event("#empty", "drop", {"dataTransfer": dropped})
    page.wait_for_selector("#stage [data-state=image] canvas")
    assert page.get_attribute("#stage canvas", "aria-label") == "The image ball.png"
    # Without a map there is nothing to move a threshold on.
    assert not page.locator("[data-part=threshold]").is_visible()
    # The columns are as wide as the page lets them be, whatever stands in them.
    assert page.locator("#body").bounding_box()["width"] > 1200


def test_two_visitors_share_nothing(visitor: Visitor, photo: Path) -> None:
    one, two = visitor(), visitor(width=390, height=844)
    one.click("#stage .card:nth-child(2)")
    two.set_input_files("#stage input[type=file]", photo)
    two.wait_for_selector("#stage [data-state=image] canvas")
    told(one, "verdict")
    assert two.input_value(INSTRUCTION) == ""
    assert two.get_attribute("#stage canvas", "aria-label") == "The image blue ball.png"
    assert "blue" not in str(one.get_attribute("#stage canvas", "aria-label"))
    one.click("#edit")
    one.wait_for_selector("#figures dl")
    told(one, "verdict")
    assert not two.locator("#result").is_visible() and two.locator("#history img").count() == 0
    # The second visitor holds a phone: nothing is wider than its screen.
    assert two.evaluate("document.documentElement.scrollWidth") <= 390
