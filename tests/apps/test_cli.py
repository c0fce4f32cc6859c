"""The command line from end to end, with a tiny random editor."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from wys.apps import cli, results
from wys.apps.options import EditorOptions
from wys.image import read_mask, read_picture

FILES = {"edited.png", "relevance.png", "mask.png", "sheet.png", "run.json"}
MAP = "relevance.safetensors"
Wys = Callable[..., int]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A lossless picture with transparency, 60 x 44."""
    pixels = np.random.default_rng(0).integers(0, 256, (44, 60, 4), dtype=np.uint8)
    pixels[..., 3] = np.where(pixels[..., 3] < 60, pixels[..., 3], 255)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def wys(editor_directory: Path) -> Wys:
    """Runs `wys COMMAND IMAGE INSTRUCTION ...` with the tiny editor, on the CPU, in two steps."""
    # The command switches the libraries' progress bars off before they are imported.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()

    def run(command: str, *arguments: str | Path) -> int:
        words = [str(argument) for argument in arguments]
        own = {"--editor": str(editor_directory), "--device": "cpu"}
        own |= {"--steps": "2"} if command == "edit" else {}
        extra = [part for name in own if name not in words for part in (name, own[name])]
        return cli.main([command, *words, *extra])

    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_map_on_the_way_and_an_automatic_choice(
    wys: Wys, photo: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    words = [photo, "make the ball red", "--out", out]
    on_the_way = ["--first-steps", "1", "--steps", "3", "--exclude", "0,0,20,44"]
    assert wys("edit", *words, *on_the_way, "--force") == 0
    assert files(out) == FILES | {MAP}
    run = json.loads((out / "run.json").read_text())
    assert run["settings"]["relevance"]["first_steps"] == 1
    assert run["edited"] and run["largest_change_outside_mask"] == 0
    assert not read_mask(out / "mask.png")[..., :20].any()
    assert wys("edit", *words, "--first-steps", "2", "--steps", "2") == 2
    assert "is over before" in capsys.readouterr().err

    assert wys("edit", *words, "--auto", "--force", "--soft", "0") == 0
    run = json.loads((out / "run.json").read_text())
    tried, chosen = run["auto"]["candidates"], run["auto"]["chosen"]
    assert tried[chosen]["score"] == max(entry["score"] for entry in tried)
    assert run["settings"]["edit"]["guidance"]["text"] == tried[chosen]["text"]
    assert run["settings"]["edit"]["guidance"]["soft"] == 0
    assert run["largest_change_outside_mask"] == 0
    # Where nothing may change there is nothing to choose, and no threshold to tell.
    assert wys("edit", *words, "--auto", "--exclude", "0,0,60,44") == 0
    run = json.loads((out / "run.json").read_text())
    assert not run["edited"] and run["auto"]["threshold"] is None
    capsys.readouterr()
    assert wys("edit", *words, "--auto", "--zoom") == 2
    assert "leave out --mask and --zoom" in capsys.readouterr().err


def test_the_story_of_an_edit(wys: Wys, photo: Path, tmp_path: Path, capsys) -> None:
    look, out = tmp_path / "look", tmp_path / "out"
    assert wys("relevance", photo, "make the ball red", "--out", look) == 0
    assert files(look) == (FILES - {"edited.png"}) | {MAP}
    assert "The mask covers" in capsys.readouterr().out

    arguments = ("--out", out, "--relevance", look, "--threshold", "0.4", "--force")
    assert wys("edit", photo, "make the ball red", *arguments) == 0
    assert files(out) == FILES | {MAP}
    assert "none outside the mask" in capsys.readouterr().out

    before, after = read_picture(photo), read_picture(out / "edited.png")
    mask = read_mask(out / "mask.png")
    assert after.alpha is not None and before.alpha is not None
    assert torch.equal(before.alpha, after.alpha)
    different = (before.rgb != after.rgb).any(dim=0, keepdim=True)
    assert different.any() and not (different & ~mask).any()

    record = json.loads((out / "run.json").read_text())
    assert record["largest_change_outside_mask"] == 0
    assert record["share_changed"] == pytest.approx(different.double().mean().item())
    assert record["share_in_mask"] == pytest.approx(mask.double().mean().item())
    assert record["settings"]["relevance"]["threshold"] == 0.4
    assert record["settings"]["edit"]["steps"] == 2
    assert record["instruction"] == "make the ball red" and record["seed"] == 0
    assert {"torch", "diffusers", "wys"} <= set(record["versions"])
    assert record["seconds"]["total"] >= record["seconds"]["edit"] > 0
    assert record["peak_mb"] > 50

    assert wys("edit", photo, "make the ball red", *arguments[2:], "--out", tmp_path / "again") == 0
    for name in ("edited.png", "mask.png", "relevance.png", "sheet.png"):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_another_seed_gives_another_edit(wys: Wys, photo: Path, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        arguments = ("--force", "--seed", seed, "--out", tmp_path / seed)
        assert wys("edit", photo, "make the ball red", *arguments) == 0
    first, second = (read_picture(tmp_path / seed / "edited.png").rgb for seed in ("1", "2"))
    assert not torch.equal(first, second)


def test_boxes_and_masks_decide_what_may_change(wys: Wys, photo: Path, tmp_path: Path) -> None:
    drawn = np.zeros((44, 60), dtype=np.uint8)
    drawn[4:20, 8:30] = 255
    Image.fromarray(drawn).save(tmp_path / "drawn.png")
    boxes = ("--include", "40,30,50,40", "--exclude", "8,4,12,20")
    out = tmp_path / "out"
    assert (
        wys("edit", photo, "remove it", "--mask", tmp_path / "drawn.png", *boxes, "--out", out) == 0
    )
    expected = torch.from_numpy(drawn > 0)[None]
    expected[:, 30:40, 40:50] = True
    expected[:, 4:20, 8:12] = False
    assert torch.equal(read_mask(out / "mask.png"), expected)


def test_options_that_a_drawn_mask_makes_idle_are_told(
    wys: Wys, photo: Path, tmp_path: Path, capsys
) -> None:
    Image.new("L", (60, 44), 255).save(tmp_path / "all.png")
    out = tmp_path / "out"
    own = ("remove it", "--mask", tmp_path / "all.png", "--out", out)

    def told(command: str, *options: str) -> list[str]:
        assert wys(command, photo, *own, *options) == 0
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith("wys:")]

    begin = "wys: warning: --mask decides what may change: "
    assert told("edit", "--seed", "1", "--grow", "1") == []
    assert told("edit", "--threshold", "0.3") == [f"{begin}--threshold has no effect."]
    first = (out / "edited.png").read_bytes()
    both = ("--softness", "0.1", "--threshold", "0.9", "--draws", "2", "--smoothing", "1")
    assert told("edit", *both) == [
        f"{begin}--threshold and --softness have no effect, and --draws and --smoothing shape only "
        "the map that is shown."
    ]
    # It is as it was told.
    assert (out / "edited.png").read_bytes() == first
    # Soft guidance follows the map inside the mask, and a look is for the map.
    assert told("edit", "--draws", "2", "--soft", "1") == []
    assert told("relevance", "--draws", "2") == []
    assert told("relevance", "--softness", "0.1") == [f"{begin}--softness has no effect."]


def test_a_box_that_reaches_beyond_the_image_is_cut_with_a_warning(
    wys: Wys, photo: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    boxes = ("--include", "50,40,70,90", "--include", "0,0,60,44", "--exclude", "0,0,61,40")
    assert wys("relevance", photo, "remove it", *boxes, "--out", out) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("wys:")]
    assert told == [
        f"wys: warning: {box} reaches beyond the 60 x 44 image and is cut to {cut}."
        for box, cut in (
            ("--include 50,40,70,90", "50,40,60,44"),
            ("--exclude 0,0,61,40", "0,0,60,40"),
        )
    ]
    expected = torch.zeros(1, 44, 60, dtype=torch.bool)
    expected[:, 40:] = True
    assert torch.equal(read_mask(out / "mask.png"), expected)


@pytest.mark.parametrize("command", ["edit", "relevance"])
def test_a_box_outside_the_image_is_refused_before_an_editor_is_loaded(
    wys: Wys, photo: Path, tmp_path: Path, capsys, command: str
) -> None:
    out = tmp_path / "out"
    for option, box in (("--include", "60,0,90,9"), ("--exclude", "0,44,9,50")):
        code = wys(command, photo, "remove it", option, box, "--editor", "none/such", "--out", out)
        check_refused(code, capsys, out, f"{option} {box} holds no pixel of the 60 x 44 image")


def test_nothing_to_edit_writes_every_file_and_says_so(
    wys: Wys, photo: Path, tmp_path: Path, editor_directory: Path, capsys
) -> None:
    quiet = tmp_path / "quiet"
    quiet.mkdir()
    for part in editor_directory.iterdir():
        (quiet / part.name).symlink_to(part)
    verdict = {"nothing_below": 1e9}
    settings = {"version": 1, "relevance": {"verdict": verdict}, "size": 32}
    (quiet / "wys.json").write_text(json.dumps(settings))
    out = tmp_path / "out"
    assert wys("edit", photo, "make the ball red", "--editor", quiet, "--out", out) == 0
    assert "Nothing to edit" in capsys.readouterr().out
    assert files(out) == FILES | {MAP}
    assert torch.equal(read_picture(out / "edited.png").rgb, read_picture(photo).rgb)
    record = json.loads((out / "run.json").read_text())
    assert record["verdict"] == "nothing to edit" and record["share_changed"] == 0
    assert wys("edit", photo, "make the ball red", "--editor", quiet, "--out", out, "--force") == 0
    assert json.loads((out / "run.json").read_text())["share_changed"] > 0


def test_a_long_instruction_is_cut_with_a_warning(
    wys: Wys, photo: Path, tmp_path: Path, capsys
) -> None:
    words = "make the ball red " * 9
    assert wys("relevance", photo, words, "--out", tmp_path / "out") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("wys:")]
    assert len(lines) == 1 and "warning" in lines[0] and "cut" in lines[0]


def corrupt_image(folder: Path) -> Path:
    (folder / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    return folder / "corrupt.png"


def truncated_image(folder: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
        folder / "whole.png"
    )
    (folder / "half.png").write_bytes((folder / "whole.png").read_bytes()[:4000])
    return folder / "half.png"


def huge_image(folder: Path) -> Path:
    """30,000 x 30,000 pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(90_000))) + chunk(b"IEND", b"")
    )
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return folder / "huge.png"


def text_file(folder: Path) -> Path:
    (folder / "text.png").write_text("not an image")
    return folder / "text.png"


def check_refused(code: int, capsys, out: Path, *words: str) -> None:
    """Exit code 2, one sentence on standard error that has these words, and nothing written."""
    captured = capsys.readouterr()
    assert code == 2
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("wys: ") and lines[0].endswith(".")
    assert all(word in lines[0] for word in words), lines[0]
    assert "Traceback" not in captured.err and not out.exists()


def odd_image(folder: Path) -> Path:
    """One of those on which Pillow's decoders fail by other errors than OSError."""
    path = folder / "odd.dds"
    header = struct.pack("<4s18I", b"DDS ", 124, 0x1007, 8, 8, *[0] * 14)
    path.write_bytes(header + struct.pack("<2I", 32, 0) + bytes(200))
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (odd_image, "cannot read the image"),
        (corrupt_image, "corrupt.png"),
        (truncated_image, "half.png"),
        (huge_image, "too large"),
        (text_file, "text.png"),
        (lambda folder: folder / "absent.png", "does not exist"),
    ],
)
@pytest.mark.parametrize("command", ["edit", "relevance"])
def test_bad_images_are_refused(
    wys: Wys, tmp_path: Path, capsys, make: Callable[[Path], Path], words: str, command: str
) -> None:
    out = tmp_path / "out"
    check_refused(wys(command, make(tmp_path), "make it red", "--out", out), capsys, out, words)


def test_an_empty_instruction_is_refused(wys: Wys, photo: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    check_refused(wys("edit", photo, "  ", "--out", out), capsys, out, "instruction is empty")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--include", "1,2,3"), "is no box"),
        (("--exclude", "5,5,5,9"), "is empty"),
        (("--include", "900,900,950,950"), "no pixel"),
        (("--threshold", "1.5"), "threshold"),
        (("--draws", "0"), "draw"),
        (("--grow", "-3"), "grow"),
        (("--grow", "nan"), "grow"),
        (("--grow", "1e12"), "up to the 60 of the image"),
        (("--feather", "inf"), "feathered"),
        (("--smoothing", "nan"), "smoothed by 0 to 16"),
        (("--negative", "\udcff"), "--negative is no valid UTF-8"),
        (("--edit-size", "99999999999"), "16 to 16384 pixels"),
        (("--steps", "1000000000000"), "1 to 1000 steps"),
        (("--guidance-text", "nan"), "finite"),
        (("--editor", "absent/editor/directory"), "editor"),
        (("--relevance", "absent"), "does not exist"),
        (("--device", "tpu"), "device"),
    ],
)
def test_bad_options_are_refused(
    wys: Wys, photo: Path, tmp_path: Path, capsys, arguments: tuple[str, str], words: str
) -> None:
    out = tmp_path / "out"
    check_refused(wys("edit", photo, "make it red", *arguments, "--out", out), capsys, out, words)


@pytest.mark.parametrize(
    "arguments",
    [("--threshold", "1.5"), ("--draws", "0"), ("--steps", "0"), ("--guidance-text", "nan")],
)
def test_numbers_out_of_range_are_refused_before_an_editor_is_loaded(
    wys: Wys,
    photo: Path,
    tmp_path: Path,
    capsys,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, str],
) -> None:
    monkeypatch.setattr(EditorOptions, "load", None)
    out = tmp_path / "out"
    check_refused(wys("edit", photo, "make it red", *arguments, "--out", out), capsys, out)


def test_a_mask_or_map_of_another_size_is_refused(
    wys: Wys, photo: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    Image.new("L", (30, 30), 255).save(tmp_path / "small.png")
    code = wys("edit", photo, "make it red", "--mask", tmp_path / "small.png", "--out", out)
    check_refused(code, capsys, out, "30 x 30", "60 x 44")
    assert wys("relevance", tmp_path / "small.png", "make it red", "--out", tmp_path / "map") == 0
    capsys.readouterr()
    code = wys("edit", photo, "make it red", "--relevance", tmp_path / "map", "--out", out)
    check_refused(code, capsys, out, "60 x 44")


def test_a_finished_map_follows_what_needs_no_predictions(
    wys: Wys, photo: Path, tmp_path: Path, capsys
) -> None:
    look, fresh, out = tmp_path / "look", tmp_path / "fresh", tmp_path / "out"
    assert wys("relevance", photo, "make the ball red", "--out", look) == 0
    shaped = ("--softness", "0.2", "--smoothing", "1", "--normalisation", "percentile", "--force")
    assert wys("edit", photo, "make the ball red", "--out", fresh, *shaped) == 0
    again = ("--relevance", look, *shaped)
    assert wys("edit", photo, "make the ball red", "--out", out, *again) == 0
    for name in ("mask.png", "relevance.png", "edited.png"):
        assert (out / name).read_bytes() == (fresh / name).read_bytes(), name
    assert (out / "mask.png").read_bytes() != (look / "mask.png").read_bytes()
    capsys.readouterr()
    code = wys(
        "edit", photo, "make the ball red", *again, "--draws", "3", "--out", tmp_path / "none"
    )
    check_refused(code, capsys, tmp_path / "none", "cannot follow --draws")


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_damaged_checkpoint_is_refused(
    wys: Wys, photo: Path, tmp_path: Path, editor_directory: Path, capsys, damage: str
) -> None:
    broken = tmp_path / "broken"
    subprocess.run(["cp", "-r", editor_directory, broken], check=True)
    weights = next((broken / "unet").glob("*.safetensors"))
    if damage == "missing":
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:-100])
    out = tmp_path / "out"
    code = wys("edit", photo, "make it red", "--editor", broken, "--out", out)
    check_refused(code, capsys, out, "unet", "no" if damage == "missing" else "short")


def test_an_unwritable_output_is_refused_before_the_work(
    wys: Wys, photo: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    code = wys("edit", photo, "make it red", "--out", tmp_path / "file" / "out")
    check_refused(code, capsys, tmp_path / "file" / "out", "cannot write")


def test_a_full_disk_leaves_nothing_behind(
    wys: Wys, photo: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wys.relevance_file.write_relevance", full)
    out = tmp_path / "out"
    code = wys("edit", photo, "make it red", "--out", out)
    check_refused(code, capsys, out, "No space left")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_polite_kill_leaves_nothing(
    wys: Wys, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def killed(*_: object, **__: object) -> None:
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(5)

    number = getattr(signal, name)
    # Tests that were started to survive a hang-up ignore it.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        monkeypatch.setattr("wys.image_edit.relevance_map", killed)
        with pytest.raises(SystemExit) as end:
            wys("edit", photo, "make it red", "--out", tmp_path / "out")
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert end.value.code == 128 + number
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: you tried")])
def test_a_processor_without_memory_is_one_sentence(
    wys: Wys, photo: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("wys.image_edit.relevance_map", full)
    out = tmp_path / "out"
    check_refused(wys("edit", photo, "make it red", "--out", out), capsys, out, "out of memory")


def test_a_look_after_an_edit_leaves_no_old_edit(
    wys: Wys, photo: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    assert wys("edit", photo, "make it red", "--out", out, "--force") == 0
    (out / "mine.txt").write_text("stays")
    assert wys("relevance", photo, "make it red", "--out", out) == 0
    assert files(out) == (FILES - {"edited.png"}) | {MAP, "mine.txt"}
    # A map of another picture is used, but not without a word.
    Image.new("RGB", (60, 44)).save(tmp_path / "black.png")
    again = ("--relevance", out, "--out", tmp_path / "again")
    assert wys("edit", tmp_path / "black.png", "make it red", *again) == 0
    assert "made of another image" in capsys.readouterr().err
    # What cannot help is not advised.
    assert wys("edit", photo, "make it red", *again, "--force", "--exclude", "0,0,60,44") == 0
    assert "its mask is empty" in capsys.readouterr().out


def test_nothing_that_a_run_reads_or_did_not_write_is_lost(
    wys: Wys, photo: Path, tmp_path: Path, capsys
) -> None:
    out = tmp_path / "out"
    assert wys("edit", photo, "make it red", "--out", out, "--force") == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    own = out / "edited.png"
    for command in (
        ("relevance", own, "make it night", "--out", out),
        ("edit", own, "make it night", "--out", out),
        ("edit", photo, "make it red", "--mask", out / "mask.png", "--grow", "2", "--out", out),
    ):
        capsys.readouterr()
        assert wys(*command) == 2
        assert "choose another --out" in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # Run by run in one folder is what people do.
    assert wys("edit", photo, "make it blue", "--out", out, "--force") == 0

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "sheet.png").write_bytes(b"mine")
    assert wys("edit", photo, "make it red", "--out", foreign) == 2
    assert "no run.json" in capsys.readouterr().err
    assert (foreign / "sheet.png").read_bytes() == b"mine" and len(list(foreign.iterdir())) == 1


def test_sheet_and_map_say_what_each_is_of(
    wys: Wys, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    drawn = results.labelled_sheet

    def spied(*cells: Any, title: str, **options: Any) -> torch.Tensor:
        titles.append(title)
        return drawn(*cells, title=title, **options)

    monkeypatch.setattr(results, "labelled_sheet", spied)
    look, edit = tmp_path / "look", tmp_path / "edit"
    assert wys("relevance", photo, "make it red", "--out", look) == 0
    other = ("--relevance", look, "--out", edit, "--auto", "--force")
    assert wys("edit", photo, "make it blue", *other) == 0
    assert titles == ["make it red", "make it blue"]
    made, _ = results.load_map(edit / MAP)
    assert made.instructions == ("make it red",)


def test_an_interrupt_is_130_and_leaves_nothing(
    wys: Wys, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wys.image_edit.relevance_map", interrupted)
    assert wys("edit", photo, "make it red", "--out", tmp_path / "out") == 130
    assert not (tmp_path / "out").exists()


def test_unknown_commands_and_versions(capsys) -> None:
    assert cli.main(["paint"]) == 2
    assert "no command 'paint'" in capsys.readouterr().err
    assert cli.main(["bench"]) == 2
    assert "bench image" in capsys.readouterr().out
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("wys ")


def test_help_reads_well_in_80_columns(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([]) == 0
    helps = [capsys.readouterr().out]
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit) as stop:
            cli.main([*command.words.split(), "--help"])
        assert stop.value.code == 0
        helps.append(capsys.readouterr().out)
        assert helps[-1].startswith(f"usage: wys {command.words}")
    for text in helps:
        assert all(len(line.rstrip()) <= 80 for line in text.splitlines()), text
        assert "{None}" not in text


def test_the_command_prints_one_line_for_a_mistake(
    photo: Path, tmp_path: Path, editor_directory: Path
) -> None:
    arguments = [photo, "make it red", "--editor", editor_directory, "--threshold", "7"]
    done = subprocess.run(
        [sys.executable, "-m", "wys.apps.cli", "edit", *arguments, "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("wys: a threshold is")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from wys.apps.cli import main; main(['--help'])\n"
        "assert not {'torch', 'diffusers', 'tyro'} & set(sys.modules)\n"
        "try: main(['edit', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'diffusers'} & set(sys.modules)\n"
    )
    environment = dict(os.environ)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(("where", "expected"), [("> /dev/full", 2), (">&-", 0)])
def test_an_output_that_takes_nothing_leaves_no_trace(where: str, expected: int) -> None:
    command = ["bash", "-c", f"{sys.executable} -m wys --version {where}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == expected and "Traceback" not in done.stderr
    assert ("No space left" in done.stderr) is (expected == 2)


@pytest.mark.parametrize("arguments", ["", "bench", "edit --help"])
def test_a_reader_that_stops_early_is_no_fault(arguments: str) -> None:
    command = f"{sys.executable} -m wys {arguments} | exec true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert not done.stderr and int(done.stdout) in (0, 2, 141)
