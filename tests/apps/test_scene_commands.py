"""The scene commands from end to end: a tiny scene of the built-in world and a tiny editor."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wys.datasets.reading import ReadSettings, read_capture
from wys.image import from_uint8, read_picture, resize, to_uint8
from wys.scene_folder import SceneFolder

pytestmark = pytest.mark.usefixtures("small")
Wys = Any  # The class of this name in conftest.py.
Contents = Callable[[Path], dict[str, bytes]]
Refused = Callable[..., None]


def read_points(path: Path) -> np.ndarray:
    """A binary PLY file by its own header."""
    head, body = path.read_bytes().split(b"end_header\n", 1)
    lines = head.decode("ascii").splitlines()
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    kinds = {"float": "<f4", "double": "<f8", "uchar": "u1"}
    rows = [line.split()[1:] for line in lines if line.startswith("property ")]
    points = np.frombuffer(body, dtype=[(name, kinds[kind]) for kind, name in rows])
    assert len(points) == count
    return points


def test_the_story_of_a_scene(
    contents: Contents,
    refused: Refused,
    wys: Wys,
    scene: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
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

    assert wys("edit", scene, instruction, "--name", "First", *wys.edit, "--film", "3") == 0
    told = capsys.readouterr().out
    assert "Against the exact truth" in told and "layers/01-first" in told
    layer = scene / "layers" / "01-first"
    assert {"sheet.png", "edited.mp4", "layer.json"} <= {p.name for p in layer.iterdir()}
    assert not (layer / "state.safetensors").exists()
    record = json.loads((layer / "layer.json").read_text())
    assert record["instruction"] == instruction and record["result"]["edited_views"] == 4
    once = contents(scene)

    # A second edit stands on the first.
    assert wys("edit", scene, "make the ball red", *wys.edit, "--method", "in2n") == 0
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


def test_a_scene_keeps_its_folder_for_itself(
    contents: Contents, refused: Refused, wys: Wys, scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(scene)
    for command in (("render", scene), ("export", scene), ("relevance", scene, "make it red")):
        refused(wys(*command, "--out", scene / ".." / scene.name), capsys, "scene's own folder")
    refused(wys("render", scene, "--what"), capsys, "--what names nothing")
    assert contents(scene) == before


def test_exported_views_are_read_back(wys: Wys, scene: Path, tmp_path: Path) -> None:
    assert wys("edit", scene, "make the ball red", *wys.edit) == 0
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

    assert wys("export", scene, "--out", tmp_path / "small", "--scale", "0.5") == 0
    small = read_capture(tmp_path / "small", ReadSettings(holdout=0)).train
    expected = to_uint8(resize(from_uint8(edited.images), (10, 10)))
    assert torch.equal(small.originals[order], expected)
    torch.testing.assert_close(
        small.cameras.intrinsics, back.cameras.resized(10, 10).intrinsics, atol=1e-4, rtol=1e-5
    )

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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fit", "absent", "--out", "OUT"), "absent does not exist"),
        (("fit", "tabletop:x", "--out", "OUT"), "tabletop:3"),
        (("fit", "tabletop:0", "--out", "OUT", "--downscale", "0.01"), "--downscale is at least 1"),
        (("fit", "tabletop:0", "--out", "OUT", "--max-views", "2"), "at least 3"),
        (("fit", "tabletop:0", "--out", "OUT", "--device", "tpu"), "the device tpu is unknown"),
        (("fit", "tabletop:0", "--out", "OUT", "--rays", "0"), "ray"),
        (("fit", "tabletop:0", "--out", "OUT", "--decay", "-1"), "at least 0"),
        (
            ("fit", "tabletop:0", "--out", "OUT", "--iterations", "9", "--seconds", "9"),
            "not both",
        ),
        (("render", "SCENE", "--out", "OUT", "--layer", "green"), "no layer 'green'"),
        (("render", "SCENE", "--out", "OUT", "--views", "absent.json"), "absent.json"),
        (("render", "SCENE", "--out", "OUT", "--what", "relevance"), "no relevance field"),
        (("render", "SCENE", "--out", "OUT", "--scale", "0"), "--scale"),
        (
            ("render", "SCENE", "--out", "OUT", "--views", "orbit", "--seconds", "1e9"),
            "pictures a second",
        ),
        (("render", "absent", "--out", "OUT"), "does not exist"),
        (("export", "SCENE", "--out", "OUT", "--layer", "green"), "no layer"),
        (("info", "OUT"), "does not exist"),
        (("relevance", "SCENE", " ", "--out", "OUT"), "instruction is empty"),
        (("edit", "SCENE", "", "--out", "OUT"), "instruction is empty"),
        (("edit", "SCENE", "make it red", "--out", "OUT", "--noise", "0.9", "0.1"), "noise"),
        (
            ("edit", "SCENE", "make it red", "--noise", "0.1", "0.9", "--passes", "1"),
            "second edit",
        ),
        (("edit", "SCENE", "make it red", "--out", "SCENE"), "already"),
        (("edit", "SCENE", "make it red", "--out", "OUT", "--threshold", "3"), "threshold"),
        (("relevance", "SCENE", "make it red", "--out", "OUT", "--draws", "0"), "draws"),
    ],
)
def test_bad_input_is_one_sentence(
    contents: Contents,
    refused: Refused,
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
