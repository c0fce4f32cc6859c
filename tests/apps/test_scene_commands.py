"""The scene commands from end to end: a tiny scene of the built-in world and a tiny editor."""

import json
import runpy
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from wys.apps import cli
from wys.datasets.reading import ReadSettings, read_capture
from wys.diffusion.editor import Editor
from wys.evaluation.scene_bench import SceneCases
from wys.image import read_picture
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import RelevanceFitSettings
from wys.nerf.region import RegionSettings
from wys.nerf.relevance_field import RelevanceFieldSettings
from wys.scene_edit import PRESETS
from wys.scene_folder import SceneFolder, locked

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = FieldSettings(
    levels=2,
    log2_size=10,
    features=2,
    coarsest=4,
    finest=16,
    width=16,
    geometry=3,
    proposal_grids=(8,),
    proposal_samples=16,
    samples=8,
    precision="float32",
)
DATA = ["tabletop:0", "--downscale", "6", "--max-views", "6", "--holdout", "3"]
FIT = ["--iterations", "12", "--rays", "64", "--device", "cpu"]
EDIT = ["--passes", "1", "--every", "2", "--steps", "2", "--film", "0", "--force"]
Wys = Callable[..., int]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, editor: Editor) -> None:
    """Fields of a size that a test can afford, and the tiny editor, loaded once."""
    monkeypatch.setattr("wys.apps.options.EditorOptions.load", lambda self: editor)
    voting = RegionSettings(resolution=24)
    presets = {name: replace(preset, voting=voting) for name, preset in PRESETS.items()}
    monkeypatch.setattr("wys.scene_edit.PRESETS", presets)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    monkeypatch.setattr("wys.nerf.field.FieldSettings", lambda: SMALL)
    fitting = partial(RelevanceFitSettings, iterations=6, rays=64)
    monkeypatch.setattr("wys.nerf.fitting.RelevanceFitSettings", fitting)
    monkeypatch.setattr("wys.scene_edit.RelevanceFitSettings", fitting)
    grids = partial(RelevanceFieldSettings, grids=(8,))
    monkeypatch.setattr("wys.nerf.scene.RelevanceFieldSettings", grids)


@pytest.fixture
def wys() -> Wys:
    """Runs `wys scene COMMAND ...`."""

    def run(command: str, *arguments: str | Path) -> int:
        return cli.main(["scene", command, *(str(argument) for argument in arguments)])

    return run


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted scene that tests copy."""
    out = tmp_path_factory.mktemp("fitted") / "scene"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wys.nerf.field.FieldSettings", lambda: SMALL)
        assert cli.main(["scene", "fit", *DATA, "--out", str(out), *FIT]) == 0
    return out


@pytest.fixture
def scene(fitted: Path, tmp_path: Path) -> Path:
    shutil.copytree(fitted, tmp_path / "scene")
    return tmp_path / "scene"


def contents(path: Path) -> dict[str, bytes]:
    """Every file, the lock aside."""
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def read_points(path: Path) -> np.ndarray:
    """A binary PLY file by its own header."""
    head, body = path.read_bytes().split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    kinds = {"float": "<f4", "uchar": "u1"}
    rows = [line.split()[1:] for line in lines if line.startswith("property ")]
    points = np.frombuffer(body, dtype=[(name, kinds[kind]) for kind, name in rows])
    assert len(points) == count
    return points


def refused(code: int, capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """Exit code 2 and one sentence on standard error that has these words."""
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip()]
    assert code == 2 and len(lines) == 1, captured.err
    assert lines[0].startswith("wys: ") and lines[0].endswith(".")
    assert all(word in lines[0] for word in words), lines[0]


def test_the_story_of_a_scene(
    wys: Wys, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert wys("info", scene) == 0
    told = capsys.readouterr().out
    assert "4 to fit, 2 held out, 21 x 21 pixels" in told and "PSNR" in told
    assert wys("info", scene, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fit"]["iterations"] == 12 and facts["layers"] == []
    instruction = facts["instructions"]["recolour"]

    before = contents(scene)
    first = tmp_path / "rendered"
    assert wys("render", scene, "--what", "colour", "depth", "opacity", "--out", first) == 0
    rendered = contents(first)
    assert len(rendered) == 6
    assert read_picture(next(first.glob("colour/*.png"))).size == (21, 21)

    look = tmp_path / "look"
    capsys.readouterr()
    assert wys("relevance", scene, instruction, "--out", look, "--points", "50") == 0
    assert "pixels" in capsys.readouterr().out
    assert contents(scene) == before
    points = read_points(look / "points.ply")
    assert len(points) == 50
    assert points.dtype.names == ("x", "y", "z", "red", "green", "blue", "relevance")
    assert (points["relevance"] > 0).all() and (points["relevance"] < 1).all()
    assert {"sheet.png", "run.json", "points.ply"} <= {p.name for p in look.iterdir()}

    assert wys("edit", scene, instruction, "--name", "First", *EDIT, "--film", "3") == 0
    told = capsys.readouterr().out
    assert "Against the exact truth" in told and "layers/01-first" in told
    layer = scene / "layers" / "01-first"
    assert {"sheet.png", "edited.mp4", "layer.json"} <= {p.name for p in layer.iterdir()}
    assert not (layer / "state.safetensors").exists()
    record = json.loads((layer / "layer.json").read_text())
    assert record["instruction"] == instruction and record["result"]["edited_views"] == 4
    once = contents(scene)

    # A second edit stands on the first.
    assert wys("edit", scene, "make the ball red", *EDIT, "--method", "in2n") == 0
    assert wys("info", scene) == 0
    told = capsys.readouterr().out
    assert "01-first" in told and "02-make-the-ball-red" in told
    for layer_name, count in (("original", 2), ("first", 2), ("02-make-the-ball-red", 2)):
        out = tmp_path / f"layer-{layer_name}"
        assert wys("render", scene, "--layer", layer_name, "--out", out) == 0
        assert len(contents(out)) == count
    assert contents(tmp_path / "layer-original").items() <= rendered.items()
    assert contents(tmp_path / "layer-first") != contents(tmp_path / "layer-original")

    capsys.readouterr()
    assert wys("undo", scene) == 0 and "1 edit left" in capsys.readouterr().out
    assert contents(scene) == once
    assert wys("undo", scene) == 0 and "as it was fitted" in capsys.readouterr().out
    assert contents(scene) == before
    again = tmp_path / "again"
    assert wys("render", scene, "--what", "colour", "depth", "opacity", "--out", again) == 0
    assert contents(again) == rendered
    refused(wys("undo", scene), capsys, "no edit to undo")


def test_exported_views_are_read_back(wys: Wys, scene: Path, tmp_path: Path) -> None:
    assert wys("edit", scene, "make the ball red", *EDIT) == 0
    assert wys("export", scene, "--out", tmp_path / "out") == 0
    back = read_capture(tmp_path / "out", ReadSettings(holdout=0)).train
    folder = SceneFolder.open(scene)
    edited, capture = folder.train_views(folder.top), folder.capture()
    order = [back.names.index(name) for name in edited.names]
    assert torch.equal(back.originals[order], edited.images)
    assert not torch.equal(edited.images, capture.train.originals)
    # Both frames are similar to the world: distances between cameras keep their proportions.
    mine, theirs = (torch.cdist(c, c) for c in (edited.cameras.centre, back.cameras.centre[order]))
    torch.testing.assert_close(mine / mine.max(), theirs / theirs.max(), atol=1e-4, rtol=1e-3)

    arguments = ("--views", "orbit", "--frames", "3", "--layer", "original")
    assert wys("export", scene, "--out", tmp_path / "orbit", *arguments) == 0
    assert len(json.loads((tmp_path / "orbit/transforms.json").read_text())["frames"]) == 3


def test_films_play_and_recorded_paths_are_read(wys: Wys, scene: Path, tmp_path: Path) -> None:
    import imageio_ffmpeg

    what = ("--what", "colour", "depth")
    out = tmp_path / "orbit"
    arguments = ("--views", "orbit", "--frames", "6", "--seconds", "2")
    assert wys("render", scene, *arguments, *what, "--out", out) == 0
    for name in ("colour", "depth"):
        frames = imageio_ffmpeg.read_frames(out / f"{name}.mp4")
        facts = next(frames)
        assert facts["fps"] == 3 and facts["size"] == (384, 384)
        assert sum(1 for _ in frames) == 6

    pose = [1.0, 0, 0, 0, 0, 0, -1, -4, 0, 1, 0, 1, 0, 0, 0, 1]
    path = {
        "render_height": 10,
        "render_width": 14,
        "seconds": 0.5,
        "camera_path": [{"camera_to_world": pose, "fov": 40.0, "aspect": 1.4}] * 2,
    }
    (tmp_path / "path.json").write_text(json.dumps(path))
    assert wys("render", scene, "--views", tmp_path / "path.json", "--out", tmp_path / "p") == 0
    facts = next(imageio_ffmpeg.read_frames(tmp_path / "p" / "colour.mp4"))
    assert facts["fps"] == 4 and facts["size"][0] > facts["size"][1]


def test_an_interrupted_fit_goes_on_exactly(
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
        assert wys("fit", *DATA, "--out", out, *FIT) == 130
    capsys.readouterr()
    assert wys("info", out) == 0 and "interrupted" in capsys.readouterr().out
    refused(wys("fit", *DATA, "--out", out, *FIT), capsys, "--resume")
    refused(wys("render", out, "--out", tmp_path / "r"), capsys, "not finished")
    assert wys("fit", *DATA, "--out", out, *FIT, "--resume") == 0
    assert (out / "radiance.safetensors").read_bytes() == (
        fitted / "radiance.safetensors"
    ).read_bytes()
    assert not (out / "fit.safetensors").exists()
    # Once more finds it done.
    assert wys("fit", *DATA, "--out", out, *FIT, "--resume") == 0
    refused(wys("fit", *DATA, "--out", out, *FIT), capsys, "holds a fitted scene")
    refused(wys("fit", "tabletop:1", "--out", out, "--resume"), capsys, "tabletop:0")


def test_an_interrupted_edit_goes_on_exactly(
    wys: Wys,
    scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from wys import scene_edit

    options = ("--name", "red", *EDIT)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert wys("edit", scene, "make the ball red", "--out", whole, *options) == 0
    assert not (scene / "layers").exists()

    original, calls = scene_edit.edit_view, []

    def killed(*arguments: object, **settings: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr("wys.apps.progress.Saving.due", lambda self: True)
        patch.setattr(scene_edit, "edit_view", killed)
        assert wys("edit", scene, "make the ball red", "--out", cut, *options) == 130
    assert SceneFolder.open(cut).unfinished is not None and not SceneFolder.open(cut).layers
    capsys.readouterr()
    refused(wys("edit", cut, "make the ball red", *options), capsys, "unfinished", "--resume")
    refused(wys("edit", cut, "remove it", *options, "--resume"), capsys, "another instruction")
    code = wys("edit", cut, "make the ball red", *options, "--seed", "5", "--resume")
    refused(code, capsys, "another seed")

    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(scene_edit, "edit_view", lambda *a, **o: calls.append(1) or original(*a, **o))
        assert wys("edit", scene, "make the ball red", "--out", cut, *options, "--resume") == 0
    assert len(calls) == 2
    mine, theirs = contents(cut / "layers/01-red"), contents(whole / "layers/01-red")
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if mine[name] != theirs[name]] == ["layer.json"]
    # Once more finds it done.
    capsys.readouterr()
    assert wys("edit", cut, "make the ball red", *options, "--resume") == 0
    assert "already" in capsys.readouterr().out


def test_an_unfinished_edit_can_be_dropped(
    wys: Wys, scene: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> torch.Tensor:
        raise KeyboardInterrupt

    before = contents(scene)
    with monkeypatch.context() as patch:
        patch.setattr("wys.scene_edit.edit_view", killed)
        assert wys("edit", scene, "make the ball red", *EDIT) == 130
    assert contents(scene) != before
    assert wys("undo", scene) == 0 and "unfinished" in capsys.readouterr().out
    assert contents(scene) == before


def test_nothing_to_edit_leaves_the_scene_as_it_is(
    wys: Wys, scene: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wys.scene_edit.verdict_of", lambda maps: "nothing to edit")
    before = contents(scene)
    options = [word for word in EDIT if word != "--force"]
    assert wys("edit", scene, "make the ball red", *options) == 0
    assert "Nothing to edit" in capsys.readouterr().out
    assert contents(scene) == before


def test_an_edit_that_is_given_up_leaves_the_scene_as_it_is(
    wys: Wys, scene: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from wys.errors import WysError

    def given_up(*_: object, **__: object) -> torch.Tensor:
        raise WysError("the scene does not take the edits up; raise --every.")

    monkeypatch.setattr("wys.scene_edit.edit_view", given_up)
    before = contents(scene)
    refused(wys("edit", scene, "make the ball red", *EDIT), capsys, "take the edits up")
    assert contents(scene) == before


def test_two_processes_do_not_change_one_scene(
    wys: Wys, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(scene):
        refused(wys("edit", scene, "make the ball red", *EDIT), capsys, "another process")
        refused(wys("undo", scene), capsys, "another process")
        assert wys("info", scene) == 0


def test_seconds_choose_the_number_of_steps(wys: Wys, tmp_path: Path) -> None:
    out, (_, _, *options) = tmp_path / "scene", FIT
    assert wys("fit", *DATA, "--out", out, *options, "--seconds", "0.2") == 0
    record = SceneFolder.open(out).record["fit"]
    assert record["settings"]["iterations"] == record["result"]["iterations"] >= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fit", "absent", "--out", "OUT"), "absent does not exist"),
        (("fit", "tabletop:x", "--out", "OUT"), "tabletop:3"),
        (("fit", "tabletop:0", "--out", "OUT", "--downscale", "0"), "--downscale"),
        (("fit", "tabletop:0", "--out", "OUT", "--max-views", "2"), "at least 3"),
        (("fit", "tabletop:0", "--out", "OUT", "--device", "tpu"), "no device tpu"),
        (("fit", "tabletop:0", "--out", "OUT", "--rays", "0"), "ray"),
        (
            ("fit", "tabletop:0", "--out", "OUT", "--iterations", "9", "--seconds", "9"),
            "not both",
        ),
        (("render", "SCENE", "--out", "OUT", "--layer", "green"), "no layer 'green'"),
        (("render", "SCENE", "--out", "OUT", "--views", "absent.json"), "absent.json"),
        (("render", "SCENE", "--out", "OUT", "--what", "relevance"), "no relevance field"),
        (("render", "SCENE", "--out", "OUT", "--scale", "0"), "--scale"),
        (("render", "absent", "--out", "OUT"), "does not exist"),
        (("export", "SCENE", "--out", "OUT", "--layer", "green"), "no layer"),
        (("info", "OUT"), "does not exist"),
        (("relevance", "SCENE", " ", "--out", "OUT"), "instruction is empty"),
        (("edit", "SCENE", "", "--out", "OUT"), "instruction is empty"),
        (("edit", "SCENE", "make it red", "--out", "OUT", "--noise", "0.9", "0.1"), "noise"),
        (("edit", "SCENE", "make it red", "--out", "SCENE"), "already"),
        (("edit", "SCENE", "make it red", "--out", "OUT", "--threshold", "3"), "threshold"),
    ],
)
def test_bad_input_is_one_sentence(
    wys: Wys,
    fitted: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    places = {"SCENE": str(fitted), "OUT": str(tmp_path / "out")}
    before = contents(fitted)
    refused(wys(*(places.get(word, word) for word in arguments)), capsys, words)
    assert not (tmp_path / "out").exists() and contents(fitted) == before


def test_a_capture_in_files_is_fitted(wys: Wys, scene: Path, tmp_path: Path) -> None:
    assert wys("export", scene, "--out", tmp_path / "photos") == 0
    out = tmp_path / "other"
    arguments = ("--out", out, "--holdout", "0", *FIT)
    assert wys("fit", tmp_path / "photos", *arguments) == 0
    facts = SceneFolder.open(out).record
    assert facts["source"] == str((tmp_path / "photos").resolve())
    assert facts["instructions"] is None and "psnr" not in facts["fit"]["result"]
    with Image.open(out / "fit.png") as sheet:
        assert sheet.height > 100


def test_the_bench_of_fits_writes_rows_and_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "fit.json"
    arguments = ["--at", "0.05", "0.1", "--rays", "64", "--json", str(rows)]
    assert cli.main(["bench", "scene-fit", *DATA, *arguments]) == 0
    found = json.loads(rows.read_text())
    assert [set(row) for row in found] == [{"seconds", "iterations", "psnr", "ssim"}] * 2
    capsys.readouterr()
    assert cli.main(["bench", "table", str(rows)]) == 0
    assert capsys.readouterr().out.startswith("| seconds | steps | PSNR (dB) | SSIM |")


def test_the_bench_of_edits_writes_rows_tables_and_sheets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = SceneCases(
        scenes=1,
        kinds=("recolour",),
        views=4,
        held_out=2,
        size=21,
        iterations=3,
        passes=0.5,
        every=1,
    )
    monkeypatch.setattr("wys.evaluation.scene_bench.QUICK", tiny)
    rows, words = tmp_path / "rows.json", ["bench", "scene-edit", "--quick"]
    only = ["--methods", "noop", "in2n", "--pictures", str(tmp_path / "sheets")]
    assert cli.main([*words, "--seed", "2", "--json", str(rows), *only]) == 0
    found = json.loads(rows.read_text())
    assert {row["method"] for row in found} == {"noop", "in2n"}
    assert {"kind", "scene", "psnr_inside", "psnr_outside", "ssim"} <= set(found[0])
    assert len(list((tmp_path / "sheets").glob("*.png"))) == 1
    capsys.readouterr()
    assert cli.main(["bench", "table", str(rows), "--kinds", "all"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith("| method | edit | scene | mask IoU |") and len(table) == 4
    refused(cli.main([*words, "--methods", "magic"]), capsys, "no method magic")
    only, out = ["--methods", "in2n", "--out", str(tmp_path / "out")], tmp_path / "out"
    assert cli.main([*words, "--seed", "2", *only]) == 0
    told = (out / "rows.json").read_text()
    assert {row["method"] for row in json.loads(told)} == {"noop", "in2n"}
    assert len((out / "cases.jsonl").read_text().splitlines()) == 2
    assert "Best" in (out / "report.html").read_text()
    assert cli.main([*words, "--seed", "2", *only]) == 0 and told == (out / "rows.json").read_text()


def test_the_demo_ends_with_a_sheet_and_a_film(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = cli.main
    smaller = {"fit": [*DATA[1:], *FIT], "edit": [*EDIT, "--film", "2"], "relevance": []}

    def main(words: tuple[str, ...]) -> int:
        return original([*words, *smaller.get(words[1], [])])

    monkeypatch.setattr(cli, "main", main)
    monkeypatch.setattr("sys.argv", ["demo_scene.py", str(tmp_path / "demo")])
    runpy.run_path(str(EXAMPLES / "demo_scene.py"), run_name="__main__")
    assert {"scene", "relevance", "sheet.png", "edited.mp4"} == {
        path.name for path in (tmp_path / "demo").iterdir()
    }
    told = capsys.readouterr().out
    assert told.count("$ wys scene") == 4 and "Against the exact truth" in told
