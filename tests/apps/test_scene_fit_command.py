"""`wys scene fit` on tiny photographs: budgets, captures in files, and going on after a kill."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from wys.scene_folder import SceneFolder

pytestmark = pytest.mark.usefixtures("small")
Wys = Any  # The class of this name in conftest.py.
Refused = Callable[..., None]


def test_an_interrupted_fit_goes_on_exactly(
    refused: Refused,
    wys: Wys,
    fitted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "scene"
    from wys.nerf.fitting import Fitter

    original = Fitter.step

    def killed(self: Fitter, *arguments: object, **options: object) -> dict[str, float]:
        if self.iteration == 7:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Fitter, "step", killed)
        assert wys("fit", *wys.data, "--out", out, *wys.fit) == 130
    capsys.readouterr()
    assert wys("info", out) == 0 and "interrupted" in capsys.readouterr().out
    refused(wys("fit", *wys.data, "--out", out, *wys.fit), capsys, "--resume")
    refused(wys("render", out, "--out", tmp_path / "r"), capsys, "not finished")
    assert wys("fit", *wys.data, "--out", out, *wys.fit, "--resume") == 0
    assert (out / "radiance.safetensors").read_bytes() == (
        fitted / "radiance.safetensors"
    ).read_bytes()
    assert not (out / "fit.safetensors").exists()
    # Once more finds it done.
    assert wys("fit", *wys.data, "--out", out, *wys.fit, "--resume") == 0
    refused(wys("fit", *wys.data, "--out", out, *wys.fit), capsys, "holds a fitted scene")
    refused(wys("fit", "tabletop:1", "--out", out, "--resume"), capsys, "tabletop:0")


def test_an_interrupted_fit_goes_on_after_its_photographs_were_moved(
    refused: Refused,
    wys: Wys,
    scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from wys.nerf.fitting import Fitter

    def killed(*_: object, **__: object) -> dict[str, float]:
        raise KeyboardInterrupt

    photos, moved, out = tmp_path / "photos", tmp_path / "moved", tmp_path / "out"
    assert wys("export", scene, "--out", photos) == 0
    shutil.copytree(photos, moved)
    with monkeypatch.context() as patch:
        patch.setattr(Fitter, "step", killed)
        assert wys("fit", photos, "--out", out, "--holdout", "0", *wys.fit) == 130
    capsys.readouterr()
    # While both are there the others may be other photographs.
    refused(wys("fit", moved, "--out", out, "--resume"), capsys, "was fitted to", "not to")
    shutil.rmtree(photos)
    refused(wys("fit", "tabletop:0", "--out", out, "--resume"), capsys, "was fitted to")
    assert wys("fit", moved, "--out", out, "--resume", "--device", "cpu") == 0
    assert f"warning: {out} was fitted to {photos}" in capsys.readouterr().err
    assert SceneFolder.open(out).fitted


def test_seconds_choose_the_number_of_steps(wys: Wys, tmp_path: Path) -> None:
    out, (_, _, *options) = tmp_path / "scene", wys.fit
    assert wys("fit", *wys.data, "--out", out, *options, "--seconds", "0.2") == 0
    record = SceneFolder.open(out).record["fit"]
    assert record["settings"]["iterations"] == record["result"]["iterations"] >= 1


def test_a_place_that_cannot_be_is_refused_before_anything_is_read(
    refused: Callable[..., None],
    wys: Wys,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("nothing is to be read")

    monkeypatch.setattr("wys.apps.scene_data.read_data", read)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("stays")
    refused(wys("fit", *wys.data, *wys.fit, "--out", tmp_path / "full"), capsys, "not empty")
    code = wys("fit", *wys.data, "--iterations", "0", "--out", tmp_path / "new")
    refused(code, capsys, "at least 1 iteration")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    refused(wys("fit", *wys.data, *wys.fit, "--out", "."), capsys, "cannot be replaced")


@pytest.mark.parametrize(
    "words",
    [("--decay", "nan"), ("--downscale", "inf"), ("--seconds", "inf"), ("--max-views", "3")],
)
def test_numbers_that_are_none_are_refused(
    refused: Callable[..., None],
    wys: Wys,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, str],
) -> None:
    code = wys("fit", "tabletop:0", *words, "--out", tmp_path / "new")
    refused(code, capsys)
    assert not (tmp_path / "new").exists()


def test_a_capture_in_files_is_fitted(wys: Wys, scene: Path, tmp_path: Path) -> None:
    assert wys("export", scene, "--out", tmp_path / "photos") == 0
    out = tmp_path / "other"
    arguments = ("--out", out, "--holdout", "0", *wys.fit)
    assert wys("fit", tmp_path / "photos", *arguments) == 0
    facts = SceneFolder.open(out).record
    assert facts["source"] == str((tmp_path / "photos").resolve())
    assert facts["instructions"] is None and "psnr" not in facts["fit"]["result"]
    with Image.open(out / "fit.png") as sheet:
        assert sheet.height > 100
