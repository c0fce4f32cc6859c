"""The training command: what it is refused for before any work."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from wys.apps import cli
from wys.store import locked
from wys.training import recipe
from wys.training.presets import CPU, VIEWS


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The trainings that the command began; none of them does anything."""
    found: list[Any] = []
    monkeypatch.setattr(recipe, "run_stages", lambda run: found.append(vars(run)))
    return found


def write_triplets(folder: Path) -> None:
    """Twelve triplets of one's own."""
    lines = []
    for i in range(12):
        for name in (f"{i}a.png", f"{i}b.png"):
            Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(folder / name)
        pair = {"before": f"{i}a.png", "after": f"{i}b.png", "instruction": "make it red"}
        lines.append(json.dumps(pair) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))


def spoil_line(folder: Path) -> None:
    with (folder / "metadata.jsonl").open("a") as file:
        file.write("{")


def spoil_image(folder: Path) -> None:
    path = folder / "7b.png"
    path.write_bytes(path.read_bytes()[:50])


def spoil_size(folder: Path) -> None:
    Image.new("RGB", (9, 8)).save(folder / "0a.png")


# Whether a folder is a source of triplets is asked of its properties, which read it.
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "metadata.jsonl").unlink(), "has no metadata.jsonl"),
        (spoil_line, "line 13 is not valid JSON"),
        (spoil_image, "7b.png"),
        (spoil_size, "differ in size"),
    ],
)
def test_triplets_that_cannot_be_read_are_refused_with_nothing_written(
    spoil: Callable[[Path], None], words: str, tmp_path: Path, capsys
) -> None:
    own, out = tmp_path / "own", tmp_path / "out"
    own.mkdir()
    write_triplets(own)
    spoil(own)
    for length in ((), ("--images", "96")):
        assert cli.main(["train", "--out", str(out), "--data", str(own), *length]) == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert len(told) == 1 and words in told[0], told
        assert not out.exists()


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


def test_the_length_is_the_users_the_datas_or_the_presets(
    begun: list[Any], tmp_path: Path, capsys
) -> None:
    write_triplets(tmp_path)
    own = ("--data", str(tmp_path))
    for options in ((), ("--images", "5000"), own, (*own, "--images", "5000")):
        assert cli.main(["train", "--out", str(tmp_path / "out"), *options]) == 0
    lengths = [each["recipe"].denoiser.images for each in begun]
    # One of the twelve is held out.
    expected = (CPU.denoiser.images, 5000, 11 * VIEWS, 5000)
    assert lengths == pytest.approx(expected, abs=48)
    out = tmp_path / "none"
    assert cli.main(["train", "--out", str(out), "--images", "10"]) == 2
    assert capsys.readouterr().err.startswith("wys: an editor is trained on at least 96 images")
    assert not out.exists()


def test_the_built_in_editor_is_known_by_its_name(begun: list[Any], tmp_path: Path) -> None:
    assert cli.main(["train", "--out", str(tmp_path), "--start", "builtin"]) == 0
    assert (begun[0]["start"] / "model_index.json").is_file()
