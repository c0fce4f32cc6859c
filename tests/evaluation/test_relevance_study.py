"""The studies of maps, verdicts, guidance and automatic edits, and what they are made of."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from wys.apps import cli
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings
from wys.diffusion.settings import EditorSettings, read_settings
from wys.evaluation.predictions import mean_raw, plain_edit, raw_maps
from wys.evaluation.verdict_study import best_split, fit_verdict, verdict_errors
from wys.image_edit import edit_image, relevance_map
from wys.masks import Mask
from wys.relevance import RelevanceMap, RelevanceSettings, Source
from wys.tabletop.pairs import Pairs, make_pairs
from wys.tabletop.world import PLAIN

pytestmark = pytest.mark.filterwarnings("ignore::wys.errors.WysWarning")
EDIT = EditSettings(steps=3)
ITEMS = ("a", "b", "c")


@pytest.fixture(scope="module")
def headed(tiny_pipeline: Callable[..., Any], tiny_locator: UNet2DConditionModel) -> Editor:
    weight = torch.randn(1, 16, 3, 3, generator=torch.Generator().manual_seed(5))
    head = {"weight": weight, "bias": torch.zeros(1)}
    settings = EditorSettings(edit=EDIT)
    device = torch.device("cpu")
    return Editor(tiny_pipeline(), device, settings=settings, head=head, locator=tiny_locator)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return make_pairs(0, "validation", 0, 3, size=32, scene_range=PLAIN)


@pytest.mark.parametrize("source", ["difference", "head", "both", "locator"])
def test_predictions_give_the_maps_of_the_editor(
    headed: Editor, pairs: Pairs, source: Source
) -> None:
    how = RelevanceSettings(source=source, timesteps=(0.5, 0.8), draws=2)
    made = relevance_map(headed, pairs.before, pairs.instructions, how, seed=3, items=ITEMS)
    maps = [raw_maps(headed, pairs, ITEMS, 3, t, k) for t in (0.5, 0.8) for k in (0, 1)]
    assert torch.allclose(mean_raw(maps, source), made.raw, atol=1e-4)
    on_the_way = RelevanceSettings(source=source, first_steps=2)
    made = relevance_map(headed, pairs.before, pairs.instructions, on_the_way, items=ITEMS)
    edit = plain_edit(headed, pairs, ITEMS, 0, EDIT, first=2)
    assert torch.allclose(mean_raw(edit.raw_maps, source), made.raw, atol=1e-4)
    everywhere = Mask.from_image(torch.ones(3, 1, 32, 32, dtype=torch.bool), (32, 32))
    whole = edit_image(headed, pairs.before, pairs.instructions, mask=everywhere, items=ITEMS)
    assert (edit.image - whole.image).abs().max() < 1e-4


def test_the_best_split() -> None:
    error, level = best_split(torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 5]))
    assert error == 0 and level == 3.5
    error, level = best_split(torch.tensor([1.0, 2, 9]), torch.tensor([4.0, 5]))
    assert error == pytest.approx(1 / 6) and level == 3


def test_fitted_verdicts_are_right_where_that_is_possible() -> None:
    raw = torch.full((9, 1, 10, 10), 0.01)
    raw[0:3, ..., :3, :3] = 0.2  # absent: a faint spot
    raw[3:6, ..., :3, :3] = 1.0
    raw[6:9, ..., :7, :] = 1.0
    kinds = ["absent"] * 3 + ["recolour"] * 3 + ["floor"] * 3
    maps = RelevanceMap(raw, raw, None, ("",) * 9, (40, 40), RelevanceSettings())
    errors = verdict_errors(maps, kinds)
    assert (errors.false_edit, errors.false_nothing, errors.nothing) == (1, 0, 0.5)
    fitted = RelevanceSettings(verdict=fit_verdict(maps, kinds))
    assert fitted.verdict.nothing_below == pytest.approx(0.6)
    errors = verdict_errors(RelevanceMap(raw, raw, None, ("",) * 9, (40, 40), fitted), kinds)
    assert errors.nothing == errors.whole == 0
    # Without cases of a kind the limits stay.
    assert fit_verdict(maps.select([3, 4]), kinds[3:5]) == maps.settings.verdict


def test_the_command_writes_rows_of_every_study(
    editor_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wys.evaluation.tune.LEVELS", ((0.8,),))
    monkeypatch.setattr("wys.evaluation.tune.SMOOTHINGS", (0.0,))
    rows_file, settings_file = tmp_path / "rows.json", tmp_path / "wys.json"
    arguments = ["--editor", str(editor_directory), "--device", "cpu", "--size", "32"]
    arguments += ["--cases", "3", "--choose-cases", "3", "--auto-cases", "1"]
    arguments += ["--json", str(rows_file), "--settings", str(settings_file)]
    assert cli.main(["bench", "relevance", *arguments]) == 0
    rows = json.loads(rows_file.read_text())
    assert all(list(row)[:2] == ["study", "variant"] for row in rows)
    studies = {row["study"] for row in rows}
    assert studies == {
        "map",
        "normalisation",
        "edges",
        "threshold",
        "verdict",
        "guidance",
        "economy",
        "score",
        "auto",
    }
    economy = [row for row in rows if row["study"] == "economy"]
    assert economy[0]["variant"] == "noop" and economy[1]["cost"] == 1
    for study in ("guidance", "economy", "auto"):
        nothing, *rest = [row for row in rows if row["study"] == study]
        assert nothing["variant"] == "noop"
        assert all(nothing["psnr_outside"] >= row["psnr_outside"] for row in rest)
    assert economy[1]["psnr_inside_low"] <= economy[1]["psnr_inside"] and economy[1]["cases"] == 3
    counts = {row["variant"].split()[0]: row["cost"] for row in economy if "step" in row["variant"]}
    costs = [counts[steps] for steps in sorted(counts, key=int)]
    assert all(less < more for less, more in itertools.pairwise(costs))
    assert all(row["cost"] <= 1 for row in economy if row["variant"].startswith("window"))
    named = {row["variant"]: row for row in rows if row["study"] == "auto"}
    best = named["best candidate"]["psnr"]
    assert best >= max(named["auto"]["psnr"], named["fixed settings"]["psnr"]) - 1e-9
    assert read_settings(settings_file).score is not None


def test_a_killed_study_goes_on_with_what_is_missing(
    editor_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wys.evaluation.tune.LEVELS", ((0.8,),))
    monkeypatch.setattr("wys.evaluation.tune.SMOOTHINGS", (0.0,))
    out = tmp_path / "out"
    command = ["bench", "relevance", "--editor", str(editor_directory), "--device", "cpu"]
    command += ["--size", "32", "--cases", "1", "--choose-cases", "1", "--out", str(out)]

    def killed(*_: object) -> list[dict[str, object]]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("wys.evaluation.relevance_study.economy_rows", killed)
        assert cli.main([*command, "--studies", "verdict", "economy"]) == 130
    # What is there is read: it cannot be made any more.
    monkeypatch.setattr("wys.evaluation.relevance_study.verdict_rows", killed)
    assert cli.main([*command, "--studies", "verdict", "economy"]) == 0
    rows = json.loads((out / "rows.json").read_text())
    assert {row["study"] for row in rows} == {"verdict", "economy"}
    # One case is of one kind: of the others no share is known.
    verdicts = [row for row in rows if row["study"] == "verdict"]
    assert all(row["false_local"] is None and row["false_edit"] is not None for row in verdicts)
    tables, page = (out / "tables.md").read_text(), (out / "report.html").read_text()
    assert "## verdict" in tables and "## economy" in tables and "<h2>economy</h2>" in page
    assert cli.main([*command[:-3], "2", *command[-2:]]) == 2


def test_bad_options_are_one_sentence(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["bench", "relevance", "--studies", "magic"]) == 2
    assert "no study magic" in capsys.readouterr().err
    assert cli.main(["bench", "relevance", "--studies", "map", "--settings", "x.json"]) == 2
    assert "study 'auto'" in capsys.readouterr().err
