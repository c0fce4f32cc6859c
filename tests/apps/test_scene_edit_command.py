"""`wys scene edit` with a tiny editor: kills, refusals, and nothing to edit."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from wys.apps import progress
from wys.errors import WysError
from wys.nerf.region import Region
from wys.scene_folder import SceneFolder
from wys.scene_layer import Layer
from wys.store import locked

pytestmark = pytest.mark.usefixtures("small")
Wys = Any  # The class of this name in conftest.py.
Contents = Callable[[Path], dict[str, bytes]]
Refused = Callable[..., None]


def test_an_interrupted_edit_goes_on_exactly(
    contents: Contents,
    refused: Refused,
    wys: Wys,
    scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from wys import scene_edit

    options = ("--name", "red", "--at-once", "1", *wys.edit)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert wys("edit", scene, "make the ball red", "--out", whole, *options) == 0
    assert not (scene / "layers").exists()

    original, calls = scene_edit.edit_image, []

    def killed(*arguments: object, **settings: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("wys.apps.progress.Saving.due", lambda self: True)
        patch.setattr(scene_edit, "edit_image", killed)
        assert wys("edit", scene, "make the ball red", "--out", cut, *options) == 130
    assert SceneFolder.open(cut).unfinished is not None and not SceneFolder.open(cut).layers
    capsys.readouterr()
    refused(wys("edit", cut, "make the ball red", *options), capsys, "unfinished", "--resume")
    refused(wys("edit", cut, "remove it", *options, "--resume"), capsys, "another instruction")
    code = wys("edit", cut, "make the ball red", *options, "--seed", "5", "--resume")
    refused(code, capsys, "another seed")
    code = wys("edit", cut, "make the ball red", *options, "--edit-size", "64", "--resume")
    refused(code, capsys, "another editor")

    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            scene_edit, "edit_image", lambda *a, **o: calls.append(1) or original(*a, **o)
        )
        assert wys("edit", scene, "make the ball red", "--out", cut, *options, "--resume") == 0
    assert len(calls) == 2
    mine, theirs = contents(cut / "layers/01-red"), contents(whole / "layers/01-red")
    assert mine.keys() == theirs.keys()
    # The record may tell of other seconds.
    assert {name for name in mine if mine[name] != theirs[name]} <= {"layer.json"}
    # Once more finds it done.
    capsys.readouterr()
    assert wys("edit", cut, "make the ball red", *options, "--resume") == 0
    assert "already" in capsys.readouterr().out


def test_an_unfinished_edit_can_be_dropped(
    contents: Contents,
    wys: Wys,
    scene: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: object, **__: object) -> torch.Tensor:
        raise KeyboardInterrupt

    before = contents(scene)
    with monkeypatch.context() as patch:
        patch.setattr("wys.scene_edit.edit_image", killed)
        assert wys("edit", scene, "make the ball red", *wys.edit) == 130
    assert contents(scene) != before
    assert wys("undo", scene) == 0 and "unfinished" in capsys.readouterr().out
    assert contents(scene) == before


def test_an_unfinished_edit_whose_record_is_damaged_is_told_and_can_be_dropped(
    contents: Contents,
    refused: Refused,
    wys: Wys,
    scene: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(scene)
    layer = scene / "layers" / "01-red"
    layer.mkdir(parents=True)
    (layer / "layer.json").write_text("{")
    assert wys("info", scene) == 0 and "01-red (damaged)" in capsys.readouterr().out
    assert wys("info", scene, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["unfinished"] == {"name": "01-red", "damaged": True}
    refused(wys("edit", scene, "make it red", *wys.edit), capsys, "takes the edit away")
    assert wys("undo", scene) == 0 and "01-red is gone" in capsys.readouterr().out
    assert contents(scene) == before


def test_nothing_to_edit_leaves_the_scene_as_it_is(
    contents: Contents,
    wys: Wys,
    scene: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wys.scene_edit.verdict_of", lambda maps: "nothing to edit")
    before = contents(scene)
    options = [word for word in wys.edit if word != "--force"]
    assert wys("edit", scene, "make the ball red", *options) == 0
    assert "Nothing to edit" in capsys.readouterr().out
    assert contents(scene) == before


def test_an_edit_that_is_given_up_leaves_the_scene_as_it_is(
    contents: Contents,
    refused: Refused,
    wys: Wys,
    scene: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def given_up(*_: object, **__: object) -> torch.Tensor:
        raise WysError("the scene does not take the edits up; raise --every.")

    monkeypatch.setattr("wys.scene_edit.edit_image", given_up)
    before = contents(scene)
    refused(wys("edit", scene, "make the ball red", *wys.edit), capsys, "take the edits up")
    assert contents(scene) == before


def test_a_full_disk_leaves_the_last_state(
    refused: Refused,
    wys: Wys,
    scene: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved, save = [], Layer.save_state

    def full(self: Layer, *arguments: Any) -> None:
        if saved:
            raise WysError("cannot write state.safetensors: No space left on device; make room.")
        saved.append(save(self, *arguments))

    with monkeypatch.context() as patch:
        patch.setattr("wys.apps.progress.Saving.due", lambda self: True)
        patch.setattr(Layer, "save_state", full)
        refused(wys("edit", scene, "make the ball red", *wys.edit), capsys, "No space left")
    begun = SceneFolder.open(scene).unfinished
    assert begun is not None and begun.state() is not None
    assert wys("edit", scene, "make the ball red", *wys.edit, "--resume") == 0


def test_views_that_do_not_agree_on_a_place(
    contents: Contents,
    wys: Wys,
    scene: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is edited; forced, the relevance field says where."""
    nowhere = Region(torch.zeros(24, 24, 24, dtype=torch.bool), 1.25)
    monkeypatch.setattr("wys.scene_edit.verdict_of", lambda maps: "local")
    monkeypatch.setattr("wys.scene_edit.agreed_region", lambda *_: nowhere)
    before = contents(scene)
    options = [word for word in wys.edit if word != "--force"]
    assert wys("edit", scene, "make the ball red", *options) == 0
    assert "too few agree on where it stands" in capsys.readouterr().out
    assert contents(scene) == before
    assert wys("edit", scene, "make the ball red", *wys.edit, "--threshold", "0.0") == 0
    top = SceneFolder.open(scene).top
    assert top is not None and top.record["result"]["share_in_mask"] == 1


@pytest.mark.parametrize("method", ["paper", "published", "in2n", "per-frame"])
def test_every_method_goes_on_after_a_stop(
    contents: Contents,
    wys: Wys,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    from wys import scene_edit

    options = ("--method", method, "--name", "red", *wys.edit)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert wys("edit", scene, "make the ball red", "--out", whole, *options) == 0
    step, calls = scene_edit.Fitter.step, []

    def killed(self: Any, *arguments: Any, **settings: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step(self, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("wys.apps.progress.Saving.due", lambda self: True)
        patch.setattr(scene_edit.Fitter, "step", killed)
        assert wys("edit", scene, "make the ball red", "--out", cut, *options) == 130
    assert wys("edit", scene, "make the ball red", "--out", cut, *options, "--resume") == 0
    mine, theirs = contents(cut / "layers/01-red"), contents(whole / "layers/01-red")
    assert mine.keys() == theirs.keys()
    assert {name for name in mine if mine[name] != theirs[name]} <= {"layer.json"}
    # And what it left can be read: another edit stands on it.
    assert wys("edit", cut, "make the ball blue", *wys.edit) == 0


def test_a_copy_is_of_its_scene_and_goes_with_an_edit_that_comes_to_nothing(
    contents: Contents,
    refused: Refused,
    wys: Wys,
    scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, copy, other = contents(scene), tmp_path / "copy", tmp_path / "other"
    with monkeypatch.context() as patch:
        patch.setattr("wys.scene_edit.verdict_of", lambda maps: "nothing to edit")
        options = [word for word in wys.edit if word != "--force"]
        assert wys("edit", scene, "make the ball red", "--out", copy, *options) == 0
    assert not copy.exists()
    assert wys("fit", "tabletop:1", "--out", other, *wys.data[1:], *wys.fit) == 0
    capsys.readouterr()
    for place in (other, scene):
        code = wys("edit", scene, "make the ball red", "--out", place, "--resume", *wys.edit)
        refused(code, capsys, "is no copy of")
    assert contents(scene) == before


@pytest.mark.parametrize("film", [1, -3])
def test_a_film_that_cannot_be_is_refused_at_once(
    refused: Refused, wys: Wys, scene: Path, capsys: pytest.CaptureFixture[str], film: int
) -> None:
    code = wys("edit", scene, "make the ball red", *wys.edit, "--film", str(film))
    refused(code, capsys, "--film is at least 2 pictures, or 0")
    assert SceneFolder.open(scene).unfinished is None


def test_two_processes_do_not_change_one_scene(
    refused: Refused, wys: Wys, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(scene):
        refused(wys("edit", scene, "make the ball red", *wys.edit), capsys, "another process")
        refused(wys("undo", scene), capsys, "another process")
        assert wys("info", scene) == 0


def test_nothing_changes_outside_the_room_of_an_edit(
    wys: Wys, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figure of what changes elsewhere goes by what the edited field may show, rim and all."""
    inside = torch.zeros(24, 24, 24, dtype=torch.bool)
    inside[9:15, 9:15, 9:15] = True
    monkeypatch.setattr("wys.scene_edit.verdict_of", lambda maps: "local")
    monkeypatch.setattr("wys.scene_edit.agreed_region", lambda *_: Region(inside, 1.25))
    assert wys("edit", scene, "make the ball red", *wys.edit, "--rate", "3") == 0
    folder = SceneFolder.open(scene)
    top = folder.top
    assert top is not None and top.record["result"]["largest_change_outside_mask"] == 0
    camera = folder.capture().held_out.cameras[0]
    before, after = folder.look(None)(camera), folder.look(top)(camera)
    rim = ~Region(inside, 1.25).seen_by(camera, before.depth)[0]
    assert (before.rgb - after.rgb).abs()[:, rim].max() > 1 / 255


def test_the_bar_counts_views_and_film_from_the_start(
    wys: Wys, scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(progress, "err", console)
    original, expected, steps = progress.bar_of_kinds, {}, []

    def watched(what: str, kinds: Any, known: Any = None) -> Any:
        bar, advance = original(what, kinds, known)
        expected.update(known)
        assert tuple(kinds)[-2:] == ("views", "film")

        def counted(*step: Any) -> None:
            steps.append(step)
            advance(*step)

        return bar, counted

    monkeypatch.setattr(progress, "bar_of_kinds", watched)
    assert wys("edit", scene, "make the ball red", *wys.edit, "--film", "3") == 0
    views = len(SceneFolder.open(scene).capture().held_out)
    counts = {kind: count for kind, (count, _) in expected.items()}
    assert counts == {"views": views, "film": 3}
    assert all(seconds > 0 for _, seconds in expected.values())
    assert ("views", views, views) in steps and steps[-1] == ("film", 3, 3)
