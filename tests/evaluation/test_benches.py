"""The benches on a few small cases, with a tiny random editor."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline

from wys.apps import cli
from wys.datasets.edit_cases import read_cases
from wys.diffusion.baselines import diffusers_edit, published_edit, published_relevance
from wys.diffusion.conditioning import Guidance
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings, denoise
from wys.diffusion.settings import PAPER, EditorSettings, settings_as_json
from wys.errors import WysError
from wys.evaluation import image_bench as bench
from wys.evaluation.floor import best_rate, operations
from wys.evaluation.metrics import grounding
from wys.evaluation.scores import named_objects, score
from wys.evaluation.speed_bench import SpeedSettings, jobs, speed_bench
from wys.evaluation.speed_scenes import SceneJobSettings, scene_jobs
from wys.image_edit import edit_image, relevance_map
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings, RelevanceFitSettings
from wys.relevance import RelevanceSettings
from wys.seeds import normal
from wys.tabletop.edits import KINDS
from wys.tabletop.pairs import Pairs, make_pairs
from wys.tabletop.world import PLAIN

KEYS = ["method", "kind", "iou", "ap", "grounding", "psnr_inside", "psnr_outside", "max_outside"]
RATIOS = {"ratio_to_diffusers", "ratio_to_published"}
SPEED_KEYS = {"name", "seconds", *RATIOS, "peak_mb", "floor", "share_of_floor"}
SPEED_ROWS = ["relevance", "edit", "edit guided", "edit own", "edit 4 images"]
SPEED_ROWS += ["window 2 %", "window 10 %", "window 30 %", "window 100 %"]


pytestmark = pytest.mark.filterwarnings("ignore::wys.errors.WysWarning")


@pytest.fixture(scope="module")
def editor(pipeline: StableDiffusionInstructPix2PixPipeline) -> Editor:
    """The tiny editor, in two steps."""
    return Editor.from_pipeline(pipeline, settings=EditorSettings(edit=EditSettings(steps=2)))


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return make_pairs(0, "validation", 0, 9, size=32, scene_range=PLAIN)


@pytest.fixture(scope="module")
def rows(editor: Editor) -> dict[tuple[str, str], dict]:
    """The rows of a bench of nine cases, by method and kind."""
    cases = bench.Cases(9, seed=0, split="validation", size=32, batch=5)
    steps = list(bench.image_bench(editor, cases, best=Guidance(2, 1)))
    assert [step.done for step in steps[:-1]] == list(range(1, steps[-1].count + 1))
    assert steps[-1].rows is not None
    return {(row["method"], row["kind"]): row for row in steps[-1].rows}


def test_every_method_has_a_row_for_all_and_each_kind(rows: dict) -> None:
    assert set(rows) == {(method, kind) for method in bench.METHODS for kind in ("all", *KINDS)}
    assert all(list(row)[:2] == KEYS[:2] and set(KEYS) <= set(row) for row in rows.values())
    assert json.loads(json.dumps(list(rows.values()), allow_nan=False))


def test_what_must_hold_for_any_editor(rows: dict) -> None:
    def value(method: str, key: str) -> float:
        return rows[method, "all"][key]

    assert value("wys", "max_outside") == value("paper", "max_outside") == 0
    assert value("true-mask", "max_outside") == value("noop", "max_outside") == 0
    # Nothing was done: outside it is nearly the truth, for a change of 4/255 counts as none.
    assert value("noop", "psnr_outside") > 36
    assert value("true-mask", "psnr_outside") == value("noop", "psnr_outside")
    assert value("true-mask", "psnr_inside") == pytest.approx(value("ip2p", "psnr_inside"), abs=6)
    for method in ("noop", "ip2p", "ip2p-best", "true-mask", "vae-oracle"):
        assert value(method, "iou") is value(method, "ap") is value(method, "grounding") is None
    assert 0 <= value("wys", "iou") <= 1 and 0 < value("wys", "chance") <= 1


def test_a_score_does_not_depend_on_the_batch(editor: Editor, rows: dict) -> None:
    cases = bench.Cases(9, seed=0, split="validation", size=32, batch=9)
    *_, last = bench.image_bench(editor, cases, ["wys"])
    assert last.rows is not None
    (own,) = (row for row in last.rows if (row["method"], row["kind"]) == ("wys", "all"))
    for key in ("iou", "psnr_inside", "psnr_outside"):
        assert own[key] == pytest.approx(rows["wys", "all"][key], abs=0.02)


def test_the_truth_has_the_best_possible_scores(pairs: Pairs) -> None:
    scores = score(pairs, pairs.after, 9.0, pairs.mask[:, None].float(), pairs.mask)
    row = scores.row("truth", "all")
    assert row["iou"] == row["ap"] == 1 and row["grounding"] == 1
    assert row["psnr_inside"] == row["psnr_outside"] == 99
    assert row["max_outside"] <= 4 and row["seconds"] == 1 and row["cases"] == 9
    assert scores.row("truth", "add")["grounding"] is None


def test_the_named_object_is_where_the_edit_is(pairs: Pairs) -> None:
    found = grounding(pairs.mask.float(), pairs.object_ids, named_objects(pairs))
    named = ~found.hit.isnan()
    assert named.sum() == 5 and (found.hit[named] == 1).all()


def test_best_guidance_is_told_by_an_edit_of_the_whole_image_for_each(editor: Editor) -> None:
    cases = bench.Cases(2, split="validation", size=32)
    grid = [Guidance(1, 1), Guidance(3, 1.5), Guidance(9, 1)]
    found = list(bench.best_guidance(editor, cases, grid))
    assert [guidance for guidance, _ in found] == grid
    pairs = make_pairs(0, "validation", 0, 2, size=32, scene_range=PLAIN)
    told = editor.condition(pairs.before, pairs.instructions)
    noise = normal(told.z0.shape[1:], 0, ["validation 0", "validation 1"], "edit")
    everywhere = torch.ones_like(told.z0[:, :1], dtype=torch.bool)
    for guidance, psnr in found:
        *_, last = denoise(editor, told, everywhere, noise, EditSettings(guidance, steps=2))
        error = (editor.decode(last.latents) - pairs.after).square().mean()
        assert psnr == pytest.approx(-10 * math.log10(float(error)), abs=2e-3)
    assert len({round(psnr, 2) for _, psnr in found}) == len(grid)


def test_the_baselines_agree_with_ours(editor: Editor, pairs: Pairs) -> None:
    """Same networks, same noise: the jobs that are timed are the same jobs."""
    image, words = pairs.before[:2], pairs.instructions[:2]
    z0 = editor.condition(image, words).z0
    noise = torch.randn(z0.shape, generator=torch.Generator().manual_seed(0))
    guidance = Guidance(3.0, 1.5)

    raw = published_relevance(editor, image, words, noise)
    t = editor.schedule.timestep(0.8)
    told = editor.condition(image, words)
    z = editor.schedule.add_noise(z0, noise, t)
    ours = editor.predict(z, t, told, ("full", "image")).difference()
    assert torch.allclose(raw, ours, atol=1e-4)

    start = editor.schedule.add_noise(z0, noise, editor.schedule.timesteps(3)[0])
    whole = published_edit(editor, image, words, guidance, 3, noise, threshold=0.0)
    assert torch.allclose(
        whole, diffusers_edit(editor, image, words, guidance, 3, start), atol=2e-3
    )
    kept = published_edit(editor, image, words, guidance, 3, noise, threshold=1.1)
    assert torch.equal(kept, image)


def test_the_timed_edit_runs_every_step(editor: Editor, pairs: Pairs) -> None:
    everywhere = RelevanceSettings(threshold=0.0)
    made = edit_image(
        editor,
        pairs.before[:1],
        pairs.instructions[:1],
        EditSettings(steps=2),
        relevance_settings=everywhere,
        force=True,
    )
    assert made.edited == (True,) and made.mask.at((32, 32)).all()


def test_speed_rows(editor: Editor) -> None:
    *_, last = speed_bench(editor, SpeedSettings(size=32, steps=2, repeats=1, scenes=None))
    assert last.rows is not None and last.done == last.count == 26
    assert [row["name"] for row in last.rows] == SPEED_ROWS
    for row in last.rows:
        assert set(row) == SPEED_KEYS and all(row[key] > 0 for key in SPEED_KEYS - {"name"})
    # Four images are four times the work; a map without a third branch is less than theirs.
    floor = {row["name"]: row["floor"] for row in last.rows}
    assert floor["edit 4 images"] == pytest.approx(4 * floor["edit"], rel=0.01)
    assert floor["window 2 %"] < floor["window 30 %"] <= floor["window 100 %"]


def test_the_guided_edit_makes_all_three_predictions(
    pipeline: StableDiffusionInstructPix2PixPipeline,
) -> None:
    edit = EditSettings(steps=4, guidance=Guidance(1.0, 1.0))
    one = Editor.from_pipeline(pipeline, settings=EditorSettings(edit=edit))
    tasks = jobs(one, SpeedSettings(size=32, steps=4, rows=("edit", "edit guided")))
    assert 2 < operations(tasks["edit guided"]) / operations(tasks["edit"]) < 3


def test_some_rows_are_timed_alone(editor: Editor) -> None:
    few = SpeedSettings(size=32, steps=1, repeats=1, rows=("window 10 %", "diffusers"))
    *_, last = speed_bench(editor, few)
    assert last.rows is not None and last.done == last.count == 4
    (row,) = last.rows
    assert row["name"] == "window 10 %"
    assert row["ratio_to_diffusers"] > 0 and row["ratio_to_published"] is None
    with pytest.raises(WysError, match="nothing named 'window 11 %' to time; relevance, edit"):
        jobs(editor, replace(few, rows=("window 11 %",)))


def test_scenes_are_timed_too(editor: Editor, small_field: FieldSettings) -> None:
    toy = SceneJobSettings(
        size=32,
        views=4,
        psnr=5.0,
        every=2,
        radiance=small_field,
        fit=FitSettings(rays=64),
        learning=RelevanceFitSettings(iterations=3, rays=64),
    )
    names = ("scene fit", "scene edit", "published scene edit")
    assert set(names) < set(jobs(editor, SpeedSettings(size=32, steps=1, scenes=toy)))
    assert not set(names) & set(jobs(editor, SpeedSettings(size=32, steps=1, scenes=None)))
    *_, last = speed_bench(
        editor, SpeedSettings(size=32, steps=1, repeats=1, scenes=toy, rows=names)
    )
    assert last.rows is not None
    fit, edit = last.rows
    assert (fit["name"], edit["name"]) == names[:2] and min(fit["floor"], edit["floor"]) > 0
    assert fit["ratio_to_published"] is None and edit["ratio_to_published"] > 0
    assert fit["ratio_to_diffusers"] is None and edit["ratio_to_diffusers"] is None
    with pytest.raises(WysError, match="does not reach 99 dB in 2 steps"):
        scene_jobs(editor, replace(toy, psnr=99.0, fit=FitSettings(iterations=2, rays=64)), 0)


def test_operations_are_those_that_one_counts_by_hand() -> None:
    image, kernel = torch.zeros(2, 3, 8, 8), torch.zeros(5, 3, 3, 3)
    convolve = lambda: torch.nn.functional.conv2d(image, kernel, padding=1)  # noqa: E731
    assert operations(convolve) == 2 * 2 * 8 * 8 * 5 * 3 * 9
    assert operations(lambda: torch.zeros(4, 6) @ torch.zeros(6, 7)) == 2 * 4 * 6 * 7
    assert best_rate(torch.device("cpu"), torch.float32, tries=1) > 1e8


def test_bench_commands_write_their_rows(
    editor_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    editor = ["--editor", str(editor_directory), "--device", "cpu", "--size", "32"]
    file = tmp_path / "rows.json"
    some = ["--methods", "noop", "vae-oracle", "--cases", "2", "--seed", "3"]
    assert cli.main(["bench", "image", *editor, *some, "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert {row["method"] for row in rows} == {"noop", "vae-oracle"}
    capsys.readouterr()
    assert cli.main(["bench", "table", str(file), "--kinds", "all"]) == 0
    plain = capsys.readouterr().out
    assert len(plain.splitlines()) == 4 and "[" not in plain
    assert cli.main(["bench", "table", str(file), "--kinds", "all", "--intervals"]) == 0
    noop = next(row for row in rows if (row["method"], row["kind"]) == ("noop", "all"))
    ends = f"[{noop['psnr_inside_low']:.1f}, {noop['psnr_inside_high']:.1f}]"
    assert ends in capsys.readouterr().out
    table = ["bench", "table", str(file)]
    for option, name in {"kinds": "al", "methods": "magic", "columns": "x", "by-kind": "y"}.items():
        assert cli.main([*table, f"--{option}", name]) == 2
        message = capsys.readouterr().err
        assert " has no " in message and name in message
    assert cli.main([*table, "--methods", "vae-oracle", "--by-kind", "psnr_outside"]) == 0
    assert capsys.readouterr().out.startswith("| edit | vae-oracle |\n")

    by = ["--methods", "wys", "--cases", "2", "--source"]
    assert cli.main(["bench", "image", *editor, *by, "head"]) == 2
    assert "has no relevance head" in capsys.readouterr().err
    assert cli.main(["bench", "image", *editor, "--methods", "ip2p", "--source", "head"]) == 2
    assert "--source is of the method wys" in capsys.readouterr().err
    own = Path(shutil.copytree(editor_directory, tmp_path / "own"))
    relevance = {"source": "head", "threshold": 0.9}
    (own / "wys.json").write_text(json.dumps({"version": 1, "relevance": relevance}))
    asked = [*by, "difference", "--size", "32", "--out", str(tmp_path / "by")]
    assert cli.main(["bench", "image", "--editor", str(own), "--device", "cpu", *asked]) == 0
    record = json.loads((tmp_path / "by" / "run.json").read_text())
    asked_for = json.loads(json.dumps(settings_as_json(PAPER)["relevance"]))
    assert record["settings"]["settings"]["relevance"] == asked_for

    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["bench", "image", *editor, *some, *out]) == 0
    alone = ["--steps", "1", "--repeats", "1", "--rows", "window 10 %", "window 30 %"]
    assert cli.main(["bench", "speed", *editor, *alone, *out]) == 2
    assert "holds a run with bench image" in capsys.readouterr().err
    assert cli.main(["bench", "speed", *editor, *alone, "--out", str(tmp_path / "speed")]) == 0
    assert (tmp_path / "speed" / "report.html").is_file()
    assert cli.main(["bench", "speed", *editor, "--json", str(tmp_path)]) == 2
    assert cli.main(["bench", "speed", *editor[:-1], "-4"]) == 2

    quick = ["--steps", "1", "--repeats", "1", "--no-scenes", "--json", str(file)]
    assert cli.main(["bench", "speed", *editor, *quick]) == 0
    assert [row["name"] for row in json.loads(file.read_text())] == SPEED_ROWS
    capsys.readouterr()
    assert cli.main(["bench", "table", str(file)]) == 0
    assert "share of floor" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["bench", "image", "--cases", "0"], "at least 1 case"),
        (["bench", "image", "--methods", "magic"], "no method magic"),
        (["bench", "speed", "--repeats", "0"], "at least 1 repeat"),
        (["bench", "image", "--json", "{file}/rows.json"], "cannot write"),
        (["bench", "table", "{file}"], "not valid JSON"),
        (["bench", "image", "--out", "{file}s", "--json", "{file}s/run.json"], "of --out's own"),
        (["tabletop", "--count", "0"], "--count"),
        (["tabletop", "--kinds", "explode"], "no kind explode"),
    ],
)
def test_bad_options_are_one_sentence(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("not json")
    assert cli.main([argument.format(file=file) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert words in message and len(message.splitlines()) == 1


@pytest.mark.parametrize("part", [1, 2])
def test_tabletop_writes_images_and_instructions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """One by one as together."""
    monkeypatch.setattr("wys.apps.tabletop_command.PART_PIXELS", part * 32**2)
    out = tmp_path / "pairs"
    arguments = ["--count", "2", "--size", "32", "--kinds", "recolour", "remove"]
    assert cli.main(["tabletop", "--out", str(out), *arguments]) == 0
    assert (out / "sheet.png").is_file()
    # The folder is one of cases, exactly those of the split.
    pairs = make_pairs(
        0, "validation", 0, 2, size=32, scene_range=PLAIN, kinds=("recolour", "remove")
    )
    for i, case in enumerate(read_cases(out)):
        assert (case.kind, case.instruction) == (pairs.kinds[i], pairs.instructions[i])
        assert torch.allclose(case.read_before(), pairs.before[i], atol=0.51 / 255)
        after, mask = case.read_after(), case.read_mask((32, 32))
        assert after is not None and torch.allclose(after, pairs.after[i], atol=0.51 / 255)
        assert mask is not None and torch.equal(mask, pairs.mask[i : i + 1])
        assert case.captions is not None and case.captions[0] != case.captions[1]
    assert i == 1


def test_maps_of_the_bench_are_those_of_the_editor(editor: Editor, pairs: Pairs) -> None:
    run = bench.Run(editor, pairs, tuple(map(str, range(9))), 0, editor.settings)
    made = relevance_map(editor, pairs.before, pairs.instructions, items=run.items)
    edit = run.edit(editor.settings)
    assert edit.relevance is not None
    assert torch.allclose(edit.relevance.values, made.values, atol=1e-5)
