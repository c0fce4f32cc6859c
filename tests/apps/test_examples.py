"""The examples and the demo run as they stand, here with the tiny editor."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.filterwarnings("ignore::wys.errors.WysWarning")
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("0*.py")), ids=lambda path: path.stem)
def test_example_writes_a_picture(
    path: Path, tmp_path: Path, editor_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = "--checkpoint" if "checkpoint" in path.stem else "--editor"
    arguments = [path.name, option, str(editor_directory), "--out", str(tmp_path / "out")]
    if "scene" in path.stem:
        arguments += ["--iterations", "20", "--passes", "0.2"]
    monkeypatch.setattr("sys.argv", arguments)
    runpy.run_path(str(path), run_name="__main__")
    assert list((tmp_path / "out").glob("*.png"))


@pytest.mark.filterwarnings("ignore::wys.errors.WysWarning")
def test_the_demo_edits_every_sample(
    tmp_path: Path, editor_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--editor", str(editor_directory), "--device", "cpu", "--steps", "1", "--force"]
    monkeypatch.setattr("sys.argv", ["demo.py", str(tmp_path / "demo"), *options])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(EXAMPLES / "demo.py"), run_name="__main__")
    assert stop.value.code == 0
    assert (tmp_path / "demo" / "sheet.png").is_file()
    assert len(list((tmp_path / "demo").glob("*_*/edited.png"))) == 5
