"""Whole runs of the image bench at toy size: folders, seeds, killed runs, reports."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from wys.apps import cli
from wys.diffusion.clip import Clip
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings
from wys.diffusion.settings import EditorSettings
from wys.evaluation.captions import captions
from wys.evaluation.cases import Cases
from wys.evaluation.html_report import page, write_results
from wys.evaluation.image_bench import image_bench
from wys.evaluation.journal import Journal
from wys.evaluation.judges import Judges
from wys.evaluation.lpips import Lpips
from wys.evaluation.own_cases import OwnCases
from wys.evaluation.report import columns_of
from wys.evaluation.svg_plots import Axis, Series, plot, ticks
from wys.evaluation.sweep import SweepSettings, sweep
from wys.image import write_image
from wys.tabletop.pairs import make_pairs
from wys.tabletop.world import PLAIN

pytestmark = pytest.mark.filterwarnings("ignore::wys.errors.WysWarning")


@pytest.fixture(scope="module")
def quick(tiny_pipeline: Callable[..., Any]) -> Editor:
    """The tiny editor, in one step."""
    return Editor.from_pipeline(
        tiny_pipeline(), settings=EditorSettings(edit=EditSettings(steps=1))
    )


TOY = Cases(3, split="validation", size=32, batch=2)


def last_rows(steps: Any) -> list[dict[str, Any]]:
    *_, last = steps
    return last.rows


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_a_killed_run_ends_with_the_same_rows(quick: Editor, tmp_path: Path) -> None:
    def bench(journal: Journal | None, seeds: tuple[int, ...] = (0, 1)) -> Any:
        return image_bench(quick, TOY, ["wys"], seeds=seeds, journal=journal)

    whole = last_rows(bench(Journal(tmp_path / "a", {})))
    assert len((tmp_path / "a" / "cases.jsonl").read_text().splitlines()) == 2 * 2 * 3
    run = bench(Journal(tmp_path / "b", {}))
    for _ in range(3):
        next(run)
    run.close()
    half = (tmp_path / "b" / "cases.jsonl").read_bytes()
    (tmp_path / "b" / "cases.jsonl").write_bytes(half[:-7])
    resumed = last_rows(bench(Journal(tmp_path / "b", {})))
    assert timeless(resumed) == timeless(whole)
    # A run that is complete measures nothing again: not even the seconds change.
    assert last_rows(bench(Journal(tmp_path / "b", {}))) == resumed
    assert timeless(last_rows(bench(None))) == timeless(whole)


def test_doing_nothing_is_in_every_table_and_seeds_have_intervals(quick: Editor) -> None:
    rows = last_rows(image_bench(quick, TOY, ["vae-oracle"], seeds=(0, 1)))
    assert {row["method"] for row in rows} == {"noop", "vae-oracle"}
    noop = rows[0]
    assert noop["method"] == "noop" and noop["cases"] == 6 and noop["seeds"] == 2
    assert noop["psnr_inside_low"] <= noop["psnr_inside"] <= noop["psnr_inside_high"]
    assert noop["ece"] is None and noop["precision_recall"] == noop["reliability"] == []
    assert noop["clip_direction"] is None
    assert all(p["change"] is None or p["change"] < 4 / 255 for p in noop["leakage"])
    json.dumps(rows, allow_nan=False)


def test_networks_judge_beside_the_exact_measures(
    quick: Editor,
    clip_directory: Path,
    random_lpips: Callable[[str], tuple[Path, Any]],
    tmp_path: Path,
) -> None:
    judges = Judges(
        Clip.load(str(clip_directory), "cpu"), Lpips.load(random_lpips("alex")[0], "cpu")
    )
    journal = Journal(tmp_path / "run", {})
    plain = last_rows(image_bench(quick, TOY, ["ip2p"]))
    judged = last_rows(image_bench(quick, TOY, ["ip2p"], judges=judges, journal=journal))
    noop, edited = (row for row in judged if row["kind"] == "all")
    assert noop["clip_image"] == pytest.approx(1) and noop["clip_direction"] is None
    assert edited["clip_image"] < 1 and -1 <= edited["clip_direction"] <= 1
    assert noop["lpips"] > 0 and edited["lpips_low"] <= edited["lpips"] <= edited["lpips_high"]
    assert columns_of(judged)["lpips"] == "LPIPS" and "lpips" not in columns_of(plain)
    # They only look: what needs no network stays as it was.
    exact = ("psnr_inside", "psnr_outside", "ssim", "max_outside")
    assert [[r[k] for k in exact] for r in judged] == [[r[k] for k in exact] for r in plain]


def own_folder(folder: Path) -> Path:
    """Four cases: everything known, a mask only, a true edit only, nothing."""
    g = torch.Generator().manual_seed(0)
    before = torch.rand(3, 32, 48, generator=g)
    mask = torch.zeros(1, 32, 48)
    mask[:, 8:20, 10:30] = 1
    after = torch.where(mask > 0, 1 - before, before)
    for name, image in (("a", before), ("b", after), ("m", mask)):
        write_image(folder / f"{name}.png", image)
    known = [{"after": "b.png", "mask": "m.png"}, {"mask": "m.png"}, {"after": "b.png"}, {}]
    lines = [
        {"before": "a.png", "instruction": "make it red", "kind": f"k{i}", **entry}
        for i, entry in enumerate(known)
    ]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def test_missing_truth_is_null_and_never_zero(quick: Editor, tmp_path: Path) -> None:
    cases = OwnCases(own_folder(tmp_path), size=48)
    found = last_rows(image_bench(quick, cases, ["wys", "ip2p", "true-mask"]))
    rows = {(row["method"], row["kind"]): row for row in found}
    for method in ("wys", "ip2p"):
        inside = [rows[method, f"k{i}"]["psnr_inside"] is None for i in range(4)]
        outside = [rows[method, f"k{i}"]["psnr_outside"] is None for i in range(4)]
        assert inside == [False, True, False, True] and outside == [False, False, False, True]
    assert [rows["wys", f"k{i}"]["iou"] is None for i in range(4)] == [False, False, False, True]
    blind = rows["wys", "k3"]
    known = {"method", "kind", "cases", "seconds", "seeds", "max_outside"}
    assert all(value is None for key, value in blind.items() if key not in known)
    assert blind["max_outside"] == 0 and rows["ip2p", "k3"]["max_outside"] is None
    # Outside a mask whose true edit is not known the truth is the input, which noop returns.
    assert rows["noop", "k1"]["psnr_outside"] == rows["true-mask", "k1"]["psnr_outside"] == 99
    assert rows["noop", "k0"]["psnr_outside"] == 99 and rows["noop", "k0"]["psnr_inside"] < 15
    assert ("true-mask", "k3") not in rows and rows["true-mask", "all"]["cases"] == 3


def test_a_run_does_not_go_on_with_cases_that_were_changed(tmp_path: Path) -> None:
    folder = own_folder(tmp_path)
    before = OwnCases(folder).settings
    assert OwnCases(folder).settings == before
    lines = (folder / "metadata.jsonl").read_text()
    (folder / "metadata.jsonl").write_text(lines.replace("make it red", "make it blue", 1))
    asked_anew = OwnCases(folder).settings
    write_image(folder / "m.png", torch.ones(1, 32, 48))
    assert len({str(s) for s in (before, asked_anew, OwnCases(folder).settings)}) == 3


def test_curves_begin_with_doing_nothing(quick: Editor) -> None:
    settings = SweepSettings(guidance=(3.0, 1.0), image_guidance=(1.5,), thresholds=(0.0, 1.0))
    rows = last_rows(sweep(quick, TOY, settings))
    assert [(row["method"], row["sweep"], row["value"]) for row in rows] == [
        ("noop", "none", None),
        ("ip2p", "guidance", 1.0),
        ("ip2p", "guidance", 3.0),
        ("wys", "guidance", 1.0),
        ("wys", "guidance", 3.0),
        ("ip2p", "image guidance", 1.5),
        ("wys", "image guidance", 1.5),
        ("wys", "threshold", 0.0),
        ("wys", "threshold", 1.0),
    ]
    assert rows[7]["psnr_outside"] <= rows[8]["psnr_outside"]
    html = page("curves", [], rows)
    assert "wys threshold" in html and html.count("<svg") == 1
    judged = [{**row, "clip_image": 0.9, "clip_direction": 0.2} for row in rows[1:]]
    html = page("curves", [], [{**rows[0], "clip_image": 1.0, "clip_direction": None}, *judged])
    assert "as CLIP sees it" in html and html.count("<svg") == 2
    # Without true edits the papers' plane alone is left.
    blind = [{**row, "psnr_inside": None} for row in judged]
    html = page("curves", [], blind)
    assert "as CLIP sees it" in html and html.count("<svg") == 1


def test_every_edit_changes_its_caption() -> None:
    pairs = make_pairs(0, "test", 0, 18, size=32, scene_range=PLAIN)
    before, after = captions(pairs.scenes), captions(pairs.edited)
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert all("floor" in words and "background" in words for words in before)


def test_the_command_writes_a_report_that_needs_nothing_else(
    editor_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    editor = ["--editor", str(editor_directory), "--device", "cpu"]
    own = ["--data", str(own_folder(tmp_path)), "--methods", "noop", "ip2p", "vae-oracle"]
    out = tmp_path / "out"
    command = ["bench", "image", *editor, *own, "--out", str(out), "--cases", "1"]
    assert cli.main(command) == 0
    first = (out / "rows.json").read_text()
    assert cli.main(command) == 0
    assert (out / "rows.json").read_text() == first
    assert {"noop", "ip2p", "vae-oracle"} == {row["method"] for row in json.loads(first)}
    html, tables = (out / "report.html").read_text(), (out / "tables.md").read_text()
    assert "http" not in html.replace("http-equiv", "") and "<script" not in html
    assert html.count("data:image/png;base64,") >= 4 and "Best" in html
    assert tables.count("| noop |") >= 1
    capsys.readouterr()
    assert cli.main([*command[:-1], "2"]) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_reports_of_speed_and_fits_have_their_tables(tmp_path: Path) -> None:
    speed = [{"name": "edit", "seconds": 1.5, "ratio_to_diffusers": 0.8, "peak_mb": 900.0}]
    fit = [{"seconds": s, "iterations": 10 * s, "psnr": 20.0 + s, "ssim": 0.9} for s in (1, 2)]
    write_results(tmp_path, "speed", ["on cpu"], speed)
    assert "<svg" not in (tmp_path / "report.html").read_text()
    assert "| edit | 1.50 | 0.80 | 900 |" in (tmp_path / "tables.md").read_text()
    windows = [
        {"name": f"window {share} %", "seconds": s, "ratio_to_diffusers": s / 2, "floor": s / 9}
        for share, s in ((2, 0.5), (10, 1.0), (100, 2.0))
    ]
    html = page("speed", [], speed + windows)
    assert html.count("<svg") == 1
    assert all(f">{name}</text>" in html for name in ("window", "diffusers", "floor"))
    shutil.rmtree(tmp_path)
    write_results(tmp_path, "fit <a>", [], fit)
    html = (tmp_path / "report.html").read_text()
    assert html.count("<svg") == 1 and "fit &lt;a&gt;" in html


def test_plots_keep_to_their_frame() -> None:
    drawn = plot([Series("wys", [(0, 1), (1, 99)])], Axis("x"), Axis("y", 0, 10))
    assert drawn.startswith("<svg") and drawn.count("<circle") == 2
    assert "Nothing of this" in plot([Series("wys", [])], Axis("x"), Axis("y"))
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(17, 43) == [20, 25, 30, 35, 40]
