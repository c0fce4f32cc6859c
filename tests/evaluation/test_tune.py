"""Tuning at toy size, on the tabletop world and on cases of one's own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel

from wys.apps import cli
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings
from wys.diffusion.settings import PAPER, EditorSettings, read_settings
from wys.errors import WysError
from wys.evaluation import tune as tune_module
from wys.evaluation.cases import Cases
from wys.evaluation.own_cases import OwnCases
from wys.evaluation.tune import SOFTNESSES, THRESHOLDS, Way, masks_of, tune_map
from wys.image import write_image
from wys.image_edit import relevance_map
from wys.relevance import Source, VerdictSettings
from wys.thresholds import Threshold

pytestmark = pytest.mark.filterwarnings("ignore::wys.errors.WysWarning")


@pytest.fixture(scope="module")
def editor(pipeline: StableDiffusionInstructPix2PixPipeline) -> Editor:
    """The tiny editor, in two steps."""
    return Editor.from_pipeline(pipeline, settings=EditorSettings(edit=EditSettings(steps=2)))


def test_tuning_writes_settings_that_load(
    editor_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, grid in {
        "LEVELS": ((0.8,),),
        "SMOOTHINGS": (0.0,),
        "TEXT_SCALES": (1.5, 3.0),
        "IMAGE_SCALES": (1.0,),
        "STEPS": (1, 2),
    }.items():
        monkeypatch.setattr(f"wys.evaluation.tune.{name}", grid)
    editor = ["--editor", str(editor_directory), "--device", "cpu", "--size", "32"]
    file = tmp_path / "wys.json"
    assert cli.main(["bench", "tune", *editor, "--cases", "3", "--before", "--out", str(file)]) == 0
    settings = read_settings(file)
    assert settings.edit.guidance.text in (1.5, 3.0) and settings.edit.steps in (1, 2)
    assert settings.size == 32 and settings.relevance.first_steps == 0
    assert settings.relevance.softness in SOFTNESSES


def test_a_tuned_edit_has_more_steps_than_its_map_is_read_off(
    editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = tune_module.ways_of

    def last_of_the_first_steps(*known: Any) -> list[Way]:
        return [way for way in every(*known) if way.settings.first_steps == 2][:1]

    monkeypatch.setattr(tune_module, "ways_of", last_of_the_first_steps)
    monkeypatch.setattr(tune_module, "LEVELS", ((0.8,),))
    monkeypatch.setattr(tune_module, "TEXT_SCALES", (1.5,))
    monkeypatch.setattr(tune_module, "STEPS", (2, 3))
    *_, last = tune_module.tune(editor, Cases(2, size=32))
    assert last.settings.relevance.first_steps == 2 and last.settings.edit.steps == 3


def own_folder(folder: Path, *entries: dict[str, str]) -> Path:
    """Cases on a picture of 64 x 40: masks near its left edge and in its middle, and an after."""
    before = torch.rand(3, 40, 64, generator=torch.Generator().manual_seed(0))
    edge, middle = torch.zeros(2, 1, 40, 64)
    edge[:, :, :4] = 1
    middle[:, 10:20, 30:40] = 1
    after = torch.where(middle > 0, 1 - before, before)
    for name, image in {"a": before, "b": after, "edge": edge, "middle": middle}.items():
        write_image(folder / f"{name}.png", image)
    lines = [{"before": "a.png", "instruction": "make it red", **entry} for entry in entries]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def test_squares_are_the_middle_of_images_and_masks(editor: Editor, tmp_path: Path) -> None:
    entries = [{"mask": "middle.png"}, {"mask": "edge.png"}, {"after": "b.png"}]
    folder = own_folder(tmp_path, *entries)
    (names, squares), *rest = OwnCases(folder, size=40).squares(editor, 9)
    # What changes beside the middle square alone says nothing about it.
    assert names == ("line 1", "line 3") and not rest
    whole = OwnCases(folder).entries[0].read_before()
    assert torch.equal(squares.before[0], whole[:, :, 12:52])
    assert squares.mask[0].nonzero().amin(0).tolist() == [10, 18]
    assert torch.equal(squares.mask[0], squares.mask[1])
    assert [len(names) for names, _ in OwnCases(folder, size=40).squares(editor, 1)] == [1, 1]


@pytest.mark.parametrize(
    ("entries", "words"),
    [([{}], 'line 1: it has no "mask"'), ([{"mask": "edge.png"}], "no case of .* changes in")],
)
def test_squares_without_truth_are_refused(
    entries: list[dict[str, str]], words: str, editor: Editor, tmp_path: Path
) -> None:
    with pytest.raises(WysError, match=words):
        OwnCases(own_folder(tmp_path, *entries)).squares(editor, 1)


def test_one_s_own_cases_tune_the_map_alone(
    editor_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wys.evaluation.tune.LEVELS", ((0.8,), (0.9,)))
    monkeypatch.setattr("wys.evaluation.tune.WORTH_IOU", 0.0)
    folder, file = own_folder(tmp_path, {"mask": "middle.png"}), tmp_path / "wys.json"
    command = ["bench", "tune", "--editor", str(editor_directory), "--device", "cpu"]
    own = ["--data", str(folder), "--size", "32", "--out", str(file)]
    assert cli.main([*command, *own]) == 0
    found = read_settings(file)
    assert found.edit == PAPER.edit and found.relevance.verdict == PAPER.relevance.verdict
    assert found.relevance.first_steps == 0

    # The map that the settings say, made as an edit makes it, is cut no better by another level.
    loaded = Editor.load(str(editor_directory), device="cpu")
    ((names, squares),) = OwnCases(folder, size=32).squares(loaded, 1)
    how = found.relevance
    made = relevance_map(
        loaded, squares.before, squares.instructions, how, seed=1, items=names
    ).values

    def iou(threshold: Threshold) -> float:
        mask = masks_of(made, threshold, (32, 32))
        return float((mask & squares.mask).sum() / (mask | squares.mask).sum())

    assert iou(how.threshold) == max(iou(level) for level in THRESHOLDS) > 0

    # Tuned anew from settings that were another map's, only what fits the new one is kept.
    limits = VerdictSettings(nothing_below=0.93)
    for given, kept in ((how, limits), (replace(how, timesteps=(0.3,)), VerdictSettings())):
        given = replace(given, softness=0.2, verdict=limits)
        loaded.settings = replace(loaded.settings, relevance=given)
        steps = tune_map(loaded, [(names, squares)], 1, before=True)
        with pytest.raises(StopIteration) as end:
            while True:
                next(steps)
        again = end.value.value[0].relevance
        assert again == replace(how, softness=0.0, verdict=kept)

    assert cli.main([*command, *own, "--scenes", "2"]) == 2
    assert cli.main([*command, *own, "--batch", "0"]) == 2


def test_one_source_alone_is_tuned(
    pipeline: StableDiffusionInstructPix2PixPipeline,
    tiny_locator: UNet2DConditionModel,
    editor: Editor,
    tmp_path: Path,
) -> None:
    head = {"weight": torch.randn(1, 16, 3, 3), "bias": torch.zeros(1)}
    full = Editor(pipeline, torch.device("cpu"), head=head, locator=tiny_locator)
    squares = OwnCases(own_folder(tmp_path, {"mask": "middle.png"}), size=32).squares(full, 1)
    every = {way.settings.source for way in tune_module.ways_of(full, squares, 1, [])}
    assert every == set(get_args(Source))
    trials = list(tune_map(full, squares, 1, before=True, source="locator"))
    assert {trial.settings.relevance.source for trial in trials} == {"locator"}
    with pytest.raises(WysError, match="makes no maps of the source locator"):
        list(tune_map(editor, squares, 1, before=True, source="locator"))
