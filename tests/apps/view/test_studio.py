"""Previews, live edits and undo, without a browser."""

import shutil
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from wys.apps.view.live import Live, Progress
from wys.apps.view.paths import PathSettings
from wys.apps.view.stack import Mode, Shot, Stack
from wys.apps.view.studio import Studio
from wys.apps.view.viewpoint import Viewpoint
from wys.camera import Camera
from wys.errors import WysError
from wys.scene_folder import SceneFolder
from wys.store import locked

Contents = Callable[[Path], dict[str, bytes]]
TEXT = "make the ball red"


def finished(studio: Studio) -> str:
    """Waits for what is being done; how it ended."""
    assert studio.live is not None
    studio.live.join(120)
    return studio.live.standing


def test_a_live_edit_is_what_the_command_makes(
    studio: Studio, wys: Any, scene: Path, tmp_path: Path, contents: Contents
) -> None:
    """Previewed, paused on the way and gone on with."""
    whole = tmp_path / "whole"
    assert wys("edit", scene, TEXT, "--out", whole, *wys.edit, "--device", "cpu") == 0
    studio.start_preview(TEXT)
    assert finished(studio) == "done" and studio.preview is not None, studio.message
    assert studio.mode == "relevance" and len(studio.preview.points) == len(studio.preview.heat)
    before = contents(scene)

    paused = threading.Event()

    def pause(_: str) -> None:
        live = studio.live
        if paused.is_set() or live is None or live.step is None:
            return
        if live.step.what == "field":
            paused.set()
            studio.changed = lambda _: None
            studio.pause()

    studio.changed = pause
    studio.start_edit(TEXT)
    assert studio.live is not None and paused.wait(120)
    assert studio.live.standing == "paused" and studio.busy
    # The edit is seen as it stands, and nothing else can be done.
    assert [layer.name for layer in studio.stack.layers] == [""]
    assert SceneFolder.open(str(scene)).unfinished is not None
    assert f'An edit is unfinished: "{TEXT}"' in Studio(scene, studio.settings).message
    studio.undo()
    assert "under way" in studio.message
    studio.resume()
    assert finished(studio) == "done", studio.message
    (name,) = studio.folder.record["layers"]
    assert [layer.name for layer in studio.stack.layers] == [name]
    mine, theirs = contents(scene / "layers" / name), contents(whole / "layers" / name)
    assert mine.keys() == theirs.keys()
    assert [file for file in mine if mine[file] != theirs[file]] == ["layer.json"]
    assert not studio.images.equal(studio.capture.train.originals)

    studio.set_strength(name, 0.5)
    studio.undo()
    assert "undone" in studio.message and not studio.stack.layers and not studio.strengths
    assert studio.images.equal(studio.capture.train.originals)
    assert contents(scene) == before


def test_a_stopped_edit_leaves_the_scene_as_it_was(
    studio: Studio, scene: Path, contents: Contents
) -> None:
    before = contents(scene)
    studio.changed = lambda _: studio.stop() if studio.live and studio.live.step else None
    studio.start_edit(TEXT)
    assert finished(studio) == "stopped" and "Stopped" in studio.message
    assert contents(scene) == before and not studio.stack.layers and not studio.busy


def test_who_shows_the_work_does_not_end_it_by_failing_to(studio: Studio, scene: Path) -> None:
    def fail(_: str) -> None:
        if threading.current_thread().name.startswith("wys "):
            raise ValueError("the panel cannot")

    studio.changed = fail
    studio.start_preview(TEXT)
    assert finished(studio) == "done", studio.message
    with locked(scene):
        pass


def test_work_that_fails_holds_nothing_afterwards() -> None:
    closed = []

    def steps() -> Generator[Progress, None, None]:
        try:
            yield Progress("steps", 1, 2)
            raise WysError("it cannot be.")
        finally:
            closed.append(len(heard))

    heard: list[int] = []
    live = Live("work", steps(), lambda: heard.append(len(closed)))
    live.start()
    live.join(20)
    assert live.standing == "failed" and closed == [1] and heard == [0, 1]


def test_a_film_shows_what_was_shown_when_it_began(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    shoot = Stack.shoot

    def watched(self: Stack, camera: Camera, mode: Mode, *rest: Any) -> Shot | None:
        modes.append(mode)
        studio.show("depth")
        return shoot(self, camera, mode, *rest)

    monkeypatch.setattr(Stack, "shoot", watched)
    views = studio.capture.train.cameras
    stops = (Viewpoint.of(views[0]), Viewpoint.of(views[1]))
    studio.start_film(stops, PathSettings(seconds=1, rate=3), tmp_path / "film")
    assert finished(studio) == "done", studio.message
    assert len(modes) > 1 and set(modes) == {"colour"}


def test_what_cannot_be_done_is_a_sentence(
    studio: Studio, scene: Path, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(scene)
    studio.start_preview("  ")
    assert finished(studio) == "failed" and "instruction is empty" in studio.message
    studio.undo()
    assert "no edit to undo" in studio.message
    studio.show("mask")
    assert "type an instruction" in studio.message
    with locked(scene):
        studio.start_edit(TEXT)
        assert finished(studio) == "failed" and "another process" in studio.message

    def given_up(*_: object, **__: object) -> None:
        raise WysError("the scene does not take the edits up; raise --every.")

    monkeypatch.setattr("wys.scene_edit.edit_image", given_up)
    studio.start_edit(TEXT)
    assert finished(studio) == "failed" and "take the edits up" in studio.message
    assert contents(scene) == before and not studio.stack.layers


def test_an_edit_that_another_program_undid_is_no_more_shown(studio: Studio, scene: Path) -> None:
    studio.start_edit(TEXT)
    assert finished(studio) == "done" and studio.stack.layers, studio.message
    SceneFolder.open(scene).without_top()
    shutil.rmtree(scene / "layers", ignore_errors=True)
    studio.start_preview(TEXT)
    assert finished(studio) == "done" and not studio.stack.layers


def test_an_edit_that_another_program_replaced_is_shown_anew(studio: Studio, scene: Path) -> None:
    """Undone elsewhere, and another one of the same name and record made."""
    studio.start_edit(TEXT)
    assert finished(studio) == "done" and studio.stack.layers, studio.message
    studio.start_preview("make the ball blue")
    assert finished(studio) == "done" and studio.preview is not None, studio.message
    camera = studio.capture.train.cameras[0]

    folder = SceneFolder.open(scene)
    top = folder.top
    assert top is not None
    other, views, region = top.scene(), folder.train_views(top), top.region()
    with torch.no_grad():
        other.radiance.colour_net[-1].bias += 2
    folder, _ = folder.without_top()
    layer = folder.begin_layer(top.name.removeprefix("01-"), top.record)
    folder = folder.with_layer(layer, other, views, region, top.record["result"])
    assert folder.record == studio.folder.record

    studio.start_preview(" ")  # Whatever ends, the folder is read anew.
    assert finished(studio) == "failed" and studio.preview is None
    shot = studio.stack.shoot(camera, "edited")
    assert shot is not None
    assert torch.equal(shot.rendering.rgb, folder.look(folder.top)(camera).rgb)


def test_one_thing_is_begun_at_a_time(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask for it at once."""
    over = threading.Event()

    class Slow(Live):
        def __init__(self, *given: Any) -> None:
            time.sleep(0.05)  # The others look meanwhile whether something is being done.
            super().__init__(*given)

    def steps(_: object) -> Generator[Progress, None, None]:
        begun.append("once")
        assert over.wait(20)
        yield Progress("work", 1, 1)

    begun: list[str] = []
    monkeypatch.setattr("wys.apps.view.studio.Live", Slow)
    monkeypatch.setattr(studio, "_preview", steps)
    monkeypatch.setattr(studio, "_edit", steps)
    asks = [studio.start_preview, studio.start_edit] * 4
    askers = [threading.Thread(target=ask, args=(TEXT,)) for ask in asks]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(20)
    assert "under way" in studio.message
    over.set()
    assert finished(studio) == "done" and begun == ["once"]


def test_a_live_generator_goes_through_its_states() -> None:
    closed = threading.Event()

    def steps() -> Generator[Progress, None, None]:
        try:
            for i in range(1_000_000):
                yield Progress("work", i, 1_000_000)
        except GeneratorExit:
            closed.set()
            raise

    live = Live("work", steps(), lambda: None)
    live.start()
    live.pause()
    assert live.standing == "paused" and not live.over
    live.resume()
    assert live.standing == "running"
    live.stop()
    live.join(20)
    assert live.standing == "stopped" and closed.is_set()


def test_an_accident_is_told_and_does_not_end_the_viewer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def steps() -> Generator[Progress, None, None]:
        yield Progress("work", 1, 2)
        raise ZeroDivisionError("one by nothing")

    live = Live("edit", steps(), lambda: None)
    live.start()
    live.join(20)
    assert live.standing == "failed" and "one by nothing" in (live.error or "")
    assert "ZeroDivisionError" in capsys.readouterr().err
