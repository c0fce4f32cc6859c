"""The training command: what it is refused for before any work."""

from pathlib import Path
from typing import Any

import pytest

from wys.apps import cli
from wys.store import locked
from wys.training import recipe


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trainings that the command began; none of them does anything."""
    found: list[Any] = []
    monkeypatch.setattr(recipe, "train", lambda *_, **options: found.append(options))
    return found


def test_a_folder_is_trained_in_by_one_process(begun: list[Any], tmp_path: Path, capsys) -> None:
    assert cli.main(["train", "--out", str(tmp_path)]) == 0
    assert begun[0]["processes"] == 2
    with locked(tmp_path):
        assert cli.main(["train", "--out", str(tmp_path)]) == 2
    assert "another process" in capsys.readouterr().err
    assert len(begun) == 1


@pytest.mark.parametrize("wrong", [("--workers", "-1"), ("--processes", "0")])
def test_numbers_of_processes_that_there_are_not(
    wrong: tuple[str, str], tmp_path: Path, capsys
) -> None:
    assert cli.main(["train", "--out", str(tmp_path), *wrong]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_another_network_is_refused_before_any_triplet_is_made(tmp_path: Path, capsys) -> None:
    editor = tmp_path / "editor"
    for part in ("unet", "text_encoder", "tokenizer", "vae"):
        (editor / part).mkdir(parents=True)
    (editor / "unet" / "config.json").write_text('{"block_out_channels": [320, 640]}')
    out = tmp_path / "out"
    assert cli.main(["train", "--out", str(out), "--start", str(editor)]) == 2
    assert "block_out_channels [320, 640], not [64, 128, 192]" in capsys.readouterr().err
    assert not (out / "data").exists()
