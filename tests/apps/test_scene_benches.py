"""The benches of scenes and the demo, from end to end on a tiny scene."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wys.apps import cli
from wys.evaluation.scene_bench import SceneCases

pytestmark = pytest.mark.usefixtures("small")
Wys = Any  # The class of this name in conftest.py.
Refused = Callable[..., None]
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_bench_of_fits_writes_rows_and_tables(
    wys: Wys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "fit.json"
    arguments = ["--at", "0.05", "0.1", "--rays", "64", "--decay", "0", "--json", str(rows)]
    assert cli.main(["bench", "scene-fit", *wys.data, *arguments]) == 0
    found = json.loads(rows.read_text())
    assert [set(row) for row in found] == [{"seconds", "iterations", "psnr", "ssim"}] * 2
    capsys.readouterr()
    assert cli.main(["bench", "table", str(rows)]) == 0
    assert capsys.readouterr().out.startswith("| seconds | steps | PSNR (dB) | SSIM |")


def test_the_bench_of_edits_writes_rows_tables_and_sheets(
    refused: Refused,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
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
    wys: Wys, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = cli.main
    smaller = {
        "fit": [*wys.data[1:], *wys.fit],
        "edit": [*wys.edit, "--film", "2"],
        "relevance": [],
    }

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
