"""The record of a scene: what it holds comes back, and damage is named."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from wys.errors import WysError
from wys.scene_record import FORMAT, read_record

SIMILARITY = [[0.0, -0.3, 0, 1], [0.3, 0, 0, 2], [0, 0, 0.3, 3], [0, 0, 0, 1]]
FIT = {"field": {}, "settings": {}, "seed": 0, "result": None}
FIGURES = {"iterations": 4, "seconds": 1.5, "psnr": 20.0, "ssim": 0.5}
RECORD: dict[str, Any] = {
    "format": FORMAT,
    "source": "photos",
    "size": [12, 14],
    "background": "scene",
    "unbounded": True,
    "scene_from_world": SIMILARITY,
    "applied": {"transform": SIMILARITY, "scale": 0.5},
    "train": [{"name": "0001"}],
    "held_out": [],
    "instructions": None,
    "fit": FIT,
    "layers": ["01-red"],
}


def written(folder: Path, **entries: object) -> Path:
    path = folder / "scene.json"
    path.write_text(json.dumps({**RECORD, **entries}))
    return path


def similarity(row: int, column: int, value: float) -> list[list[float]]:
    """With another entry."""
    rows = [list(each) for each in SIMILARITY]
    rows[row][column] = value
    return rows


@pytest.mark.parametrize(
    "result", [None, FIGURES, {"iterations": 4, "seconds": 1, "device": "cpu"}]
)
def test_a_record_comes_back(tmp_path: Path, result: object) -> None:
    fit = {**FIT, "result": result}
    assert read_record(written(tmp_path, fit=fit)) == {**RECORD, "fit": fit}


def test_older_records_have_nothing_applied(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(json.dumps({k: v for k, v in RECORD.items() if k != "applied"}))
    assert read_record(path) == {**RECORD, "applied": None}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", 3),
        ("size", [12]),
        ("size", [12, "x"]),
        ("size", [-64, 64]),
        ("size", [64, 0]),
        ("size", [10**30, 1]),
        ("background", "sky"),
        ("unbounded", "no"),
        ("scene_from_world", [[1, 0], [0, 1]]),
        ("scene_from_world", "here"),
        ("scene_from_world", similarity(2, 2, 0.0)),
        ("scene_from_world", similarity(0, 1, math.nan)),
        ("scene_from_world", similarity(1, 3, math.inf)),
        ("scene_from_world", similarity(3, 0, 1.0)),
        ("applied", [1]),
        ("applied", {"transform": [[1, 0], [0, 1]], "scale": 1}),
        ("applied", {"transform": SIMILARITY, "scale": 0}),
        ("applied", {"transform": SIMILARITY, "scale": 10**400}),
        ("train", None),
        ("train", []),
        ("train", [{"name": "../../elsewhere"}]),
        ("held_out", {}),
        ("held_out", [{}]),
        ("instructions", []),
        ("fit", {"result": None}),
        ("fit", {**FIT, "result": {}}),
        ("fit", {**FIT, "result": {**FIGURES, "seconds": "long"}}),
        ("fit", {**FIT, "result": {"iterations": 4, "seconds": 1, "psnr": 20.0}}),
        ("layers", "one"),
        ("layers", [1]),
        ("layers", [".."]),
    ],
)
def test_an_entry_of_another_kind_is_named(tmp_path: Path, key: str, value: object) -> None:
    path = written(tmp_path, **{key: value})
    with pytest.raises(WysError, match=rf"scene\.json is damaged: its '{key}' is not valid"):
        read_record(path)
