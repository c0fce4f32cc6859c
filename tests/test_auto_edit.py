"""Choosing an edit without the truth: candidates are ordinary edits, the score is arithmetic."""

import math
from dataclasses import astuple, replace

import pytest
import torch

from wys.auto_edit import AutoEdit, AutoSettings, auto_edit
from wys.diffusion.conditioning import Guidance
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings
from wys.edit_score import SIGNS, ScoreSettings, edit_score, edit_signs, fit_score
from wys.errors import WysError
from wys.image_edit import edit_image, relevance_map
from wys.masks import Box
from wys.relevance import RelevanceMap, RelevanceSettings, VerdictSettings

TEXTS = ["make the ball red", "remove it", "paint the cube blue"]
HOW = RelevanceSettings(verdict=VerdictSettings(nothing_below=0, noise_ratio=0))
EDIT = EditSettings(guidance=Guidance(2.0, 1.0), steps=2)
AUTO = AutoSettings(text_factors=(1.0, 2.0), threshold_steps=(-0.2, 0.0), seeds=2)


@pytest.fixture
def made(editor: Editor, images: torch.Tensor) -> RelevanceMap:
    return relevance_map(editor, images, TEXTS, HOW, seed=4)


@pytest.fixture
def found(editor: Editor, images: torch.Tensor, made: RelevanceMap) -> AutoEdit:
    steps = list(auto_edit(editor, images, made, EDIT, AUTO, seed=4))
    assert [step.done for step in steps] == [1, 2, 3, 4]
    assert all(step.result is None for step in steps[:-1])
    assert steps[-1].result is not None
    return steps[-1].result


def test_candidates_are_ordinary_edits(
    editor: Editor, images: torch.Tensor, made: RelevanceMap, found: AutoEdit
) -> None:
    assert len(found.candidates) == len(found.edits) == 8
    assert found.signs.shape == (3, 8, 6) and found.scores.shape == (3, 8)
    for index in (1, 6):
        candidate = found.candidates[index]
        alone = edit_image(
            editor,
            images,
            TEXTS,
            replace(EDIT, guidance=Guidance(candidate.text, 1.0)),
            relevance=made,
            mask=made.mask(0.5 + candidate.threshold_step),
            seed=candidate.seed,
        )
        assert (alone.image - found.edits[index].image).abs().max() < 1e-4


def test_the_best_is_the_one_with_the_highest_score(found: AutoEdit) -> None:
    for i, best in enumerate(found.best):
        index = found.choice[i]
        assert found.scores[i, index] == found.scores[i].max()
        assert torch.equal(best.image[0], found.edits[index].image[i])
        assert best.instructions == (TEXTS[i],)
        assert best.largest_change_outside.tolist() == [0]


def test_nothing_to_edit_and_corrections(
    editor: Editor, images: torch.Tensor, made: RelevanceMap
) -> None:
    one = AutoSettings((1.0,), (0.0,), 1)
    limits = replace(made.settings, verdict=VerdictSettings(nothing_below=1e6))
    nothing = replace(made, settings=limits)
    *_, last = auto_edit(editor, images, nothing, EDIT, one)
    assert last.result is not None and torch.equal(last.result.best[0].image, images[:1])
    # What is included by hand is edited whatever the map says, here as in a single edit.
    part = Box(8, 8, 24, 24)
    *_, last = auto_edit(
        editor, images, nothing, EDIT, one, correct=lambda mask: mask.including(part)
    )
    assert last.result is not None
    alone = edit_image(
        editor, images, TEXTS, EDIT, relevance=nothing, correct=lambda mask: mask.including(part)
    )
    assert alone.edited == (True, True, True)
    for i, best in enumerate(last.result.best):
        assert torch.equal(best.mask.at((48, 32)), alone.mask.select([i]).at((48, 32)))
        assert int(best.mask.at((48, 32)).sum()) == 16 * 16 and best.changed_share > 0
    box = Box(0, 0, 16, 48)
    *_, last = auto_edit(
        editor, images, nothing, EDIT, one, force=True, correct=lambda mask: mask.excluding(box)
    )
    assert last.result is not None
    for i, best in enumerate(last.result.best):
        assert torch.equal(best.image[..., :16], images[i : i + 1, ..., :16])
        assert not torch.equal(best.image, images[i : i + 1])
    with pytest.raises(WysError, match="at least"):
        AutoSettings(seeds=0)


@pytest.mark.parametrize("first_steps", [0, 1])
def test_what_is_left_to_do_is_asked_at_the_noise_of_the_map(
    first_steps: int, editor: Editor, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that an edit that did nothing leaves all of it."""
    how = replace(HOW, first_steps=first_steps)
    several = replace(EDIT, steps=4)
    made = relevance_map(editor, images, TEXTS, how, edit=several)
    asked: list[RelevanceSettings] = []

    def watched(*given: object, **named: object) -> RelevanceMap:
        asked.append(given[3])
        return relevance_map(*given, **named)

    monkeypatch.setattr("wys.auto_edit.relevance_map", watched)
    list(auto_edit(editor, images, made, several, AutoSettings((1.0,), (0.0,), 1)))
    begins = editor.schedule.timesteps(4)[0] / len(editor.schedule.abar)
    assert [each.timesteps for each in asked] == [(begins,) if first_steps else how.timesteps]


def test_signs_by_hand() -> None:
    original = torch.zeros(1, 3, 6, 6)
    region = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
    region[..., 2:4, 2:4] = True
    edited = torch.where(region, 0.5, original)
    plain = torch.full_like(original, 0.1)
    before, after = torch.full((1, 1, 3, 3), 0.8), torch.full((1, 1, 3, 3), 0.2)
    likely = torch.full((1, 1, 2, 2), 0.75)
    maps = (likely, before, after)
    signs = edit_signs(original, edited, plain, original, plain, region, *maps)[0]
    # Of 36 pixels the 4 in the region are 0.5 from the input and 0.4 from what they should become.
    squared = (4 * (0.75 * 0.4**2 + 0.25 * 0.5**2) + 32 * 0.75 * 0.1**2) / 36
    expected = {"expected": 10 * math.log10(squared), "residue": 0.25, "change": 0.5}
    expected |= {"seam": 0.5, "leak": 0.1, "disagreement": 0.5}
    assert dict(zip(SIGNS, signs.tolist(), strict=True)) == pytest.approx(expected)
    empty = torch.zeros_like(region)
    signs = edit_signs(original, original, plain, original, plain, empty, *maps)[0]
    nothing = 10 * math.log10(0.75 * 0.1**2)
    assert signs.tolist() == pytest.approx([nothing, 1, 0, 0, 0.1, 0])
    weights = ScoreSettings(6, 1, 2, 3, 4, 5)
    assert edit_score(signs, weights).item() == pytest.approx(-1.4 - 6 * nothing)


def test_the_expected_error_is_least_where_a_pixel_is_changed_if_it_is_likelier_to_change() -> None:
    generator = torch.Generator().manual_seed(0)
    original, plain = torch.rand(2, 1, 3, 8, 8, generator=generator)
    likely = torch.rand(1, 1, 8, 8, generator=generator)
    errors = {}
    for threshold in (0.1, 0.3, 0.5, 0.7, 0.9):
        region = likely >= threshold
        edited = torch.where(region, plain, original)
        maps = (likely, likely, likely)
        signs = edit_signs(original, edited, plain, edited, plain, region, *maps)[0]
        errors[threshold] = signs[0].item()
    assert min(errors, key=lambda threshold: errors[threshold]) == 0.5


def test_fitting_recovers_the_weights_and_ignores_each_images_level() -> None:
    generator = torch.Generator().manual_seed(0)
    signs = torch.rand(6, 12, 6, generator=generator)
    truth = ScoreSettings(1.5, 3.0, -1.0, 0.0, 2.0, 5.0)
    level = 10 * torch.rand(6, 1, generator=generator)
    found = fit_score(signs, level - edit_score(signs, truth), ridge=1e-6)
    assert astuple(found) == pytest.approx(astuple(truth), abs=5e-3)
    constant = torch.cat([signs[..., :5], torch.ones(6, 12, 1)], dim=-1)
    assert fit_score(constant, level.expand(6, 12)).disagreement == 0
    # Held by a heavy ridge they stay what they are without a fit.
    stiff = fit_score(signs, level - edit_score(signs, truth), ridge=1e9)
    assert astuple(stiff) == pytest.approx(astuple(ScoreSettings()), abs=1e-3)
