"""What benches see of an editor is what its users see."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from wys.diffusion.editor import Editor
from wys.diffusion.settings import PAPER
from wys.evaluation.cases import Cases
from wys.evaluation.predictions import mean_raw, plain_edit, raw_maps, raw_of
from wys.image_edit import edit_image, relevance_map

pytestmark = pytest.mark.filterwarnings("ignore::wys.errors.WysWarning")
CASES = Cases(2, seed=3, split="validation", size=32, batch=2)


@pytest.fixture(scope="module")
def editor(tiny_pipeline: Callable[..., Any]) -> Editor:
    """The tiny editor in three steps."""
    settings = replace(PAPER, edit=replace(PAPER.edit, steps=3))
    return Editor.from_pipeline(tiny_pipeline(), settings=settings)


@pytest.mark.parametrize("space", ["eps", "x0"])
@pytest.mark.parametrize("first_steps", [0, 2])
@pytest.mark.parametrize("draws", [1, 3])
def test_raw_maps_are_those_that_users_get(
    editor: Editor, space: Any, first_steps: int, draws: int
) -> None:
    ((items, pairs),) = CASES.batches(editor)
    how = replace(PAPER.relevance, space=space, first_steps=first_steps, draws=draws)
    settings = replace(editor.settings, relevance=how)
    raw, spread = raw_of(editor, (items, pairs), CASES.seed, settings)
    for i, item in enumerate(items):  # Each alone, as a user edits it.
        image, words = pairs.before[i], pairs.instructions[i]
        if first_steps:
            made = edit_image(
                editor,
                image,
                words,
                settings.edit,
                relevance_settings=how,
                seed=CASES.seed,
                items=[item],
            ).relevance
        else:
            made = relevance_map(editor, image, words, how, seed=CASES.seed, items=[item])
        assert made is not None
        torch.testing.assert_close(raw[i], made.raw[0], atol=1e-4, rtol=1e-4)
        assert (spread is None) == (made.spread is None)


def test_maps_that_are_averaged_later_are_maps_of_several_draws(editor: Editor) -> None:
    ((items, pairs),) = CASES.batches(editor)
    maps = [
        raw_maps(editor, pairs, items, CASES.seed, level, draw)
        for level in (0.8, 0.5)
        for draw in range(2)
    ]
    how = replace(PAPER.relevance, timesteps=(0.8, 0.5), draws=2)
    made = relevance_map(
        editor, pairs.before, pairs.instructions, how, seed=CASES.seed, items=items
    )
    torch.testing.assert_close(mean_raw(maps, "difference"), made.raw, atol=1e-4, rtol=1e-4)


def test_predictions_on_the_way_of_an_edit_are_the_map_of_its_first_steps(editor: Editor) -> None:
    ((items, pairs),) = CASES.batches(editor)
    how = replace(PAPER.relevance, first_steps=2)
    settings = replace(editor.settings, relevance=how)
    maps = plain_edit(editor, pairs, items, CASES.seed, settings.edit, 2).raw_maps
    raw, _ = raw_of(editor, (items, pairs), CASES.seed, settings)
    torch.testing.assert_close(mean_raw(maps, "difference"), raw, atol=1e-4, rtol=1e-4)
