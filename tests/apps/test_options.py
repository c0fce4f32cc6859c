"""The option groups against the settings that they stand for."""

from dataclasses import MISSING, fields, replace
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wys.apps.options import (
    SOURCES,
    EditorOptions,
    GuideOptions,
    MapOptions,
    MapSource,
    parse_box,
)
from wys.apps.scene_options import SceneMapOptions
from wys.diffusion import loading
from wys.diffusion.editor import Editor
from wys.diffusion.settings import PAPER
from wys.errors import WysError
from wys.image import resize
from wys.image_edit import relevance_map
from wys.relevance import Source, VerdictSettings
from wys.scene_settings import OWN


def test_editor_options_are_those_of_the_loader() -> None:
    ours = {f.name: f.default for f in fields(EditorOptions) if f.name != "editor"}
    theirs = {f.name: f.default for f in fields(loading.EditorOptions)}
    assert ours == theirs and MISSING not in ours.values()


def test_options_that_are_not_given_leave_the_editors_settings(editor: Editor) -> None:
    settings = MapOptions().settings(editor.settings)
    assert GuideOptions().settings(settings) == editor.settings
    changed = MapOptions(draws=3, threshold="auto").settings(editor.settings)
    assert changed.relevance.draws == 3 and changed.relevance.threshold == "auto"
    assert changed.relevance.timesteps == editor.settings.relevance.timesteps
    guided = GuideOptions(guidance_text=2.0).settings(changed).edit.guidance
    assert guided.text == 2.0 and guided.image == editor.settings.edit.guidance.image


def test_draws_and_timesteps_ask_for_a_map_before_the_edit() -> None:
    own = replace(PAPER, relevance=replace(PAPER.relevance, first_steps=2))
    assert MapOptions().settings(own).relevance.first_steps == 2
    assert MapOptions(draws=4).settings(own).relevance.first_steps == 0
    assert MapOptions(draws=4, first_steps=0).settings(own).relevance.first_steps == 0
    with pytest.raises(WysError, match="leave out --first-steps"):
        MapOptions(draws=4, first_steps=1).check()
    scene = SceneMapOptions(timesteps=(0.5,)).settings(own, OWN).relevance
    assert scene is not None and scene.first_steps == 0


def test_another_source_does_not_take_over_what_it_cannot_use() -> None:
    head = replace(
        PAPER.relevance,
        source="head",
        normalisation="absolute",
        threshold=0.6,
        verdict=VerdictSettings(nothing_below=0.9),
    )
    own = replace(PAPER, relevance=head)
    assert MapOptions(source="head").settings(own).relevance == head
    other = MapOptions(source="difference", draws=2).settings(own).relevance
    assert other == replace(PAPER.relevance, source="difference", draws=2)
    scene = SceneMapOptions(source="difference").settings(own, OWN).relevance
    assert scene == PAPER.relevance
    # One probability's settings are good for another's.
    located = replace(own, relevance=replace(head, source="locator", draws=2))
    plain = replace(located.relevance, source="head", verdict=VerdictSettings())
    assert MapOptions(source="head").settings(located).relevance == plain
    assert SceneMapOptions(source="head").settings(located, OWN).relevance == plain


def test_all_sources_can_be_asked_for() -> None:
    assert get_args(MapSource) == get_args(Source)
    assert "{" + ",".join(get_args(Source)) + "}" == SOURCES


def test_a_finished_map_takes_the_papers_scaling_on(editor: Editor) -> None:
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    own = replace(
        PAPER.relevance,
        timesteps=(0.6,),
        normalisation="absolute",
        scale=3.0,
        softness=0.1,
        threshold=0.7,
    )
    made = relevance_map(editor, images, "make it red", own)
    shown = resize(images, editor.fit((32, 32)))
    assert MapOptions().on(made, shown).settings == own
    again = MapOptions(preset="paper", threshold=0.4).on(made, shown)
    # How it was made stays; how it is scaled and cut is the paper's.
    assert again.settings == replace(PAPER.relevance, timesteps=(0.6,), threshold=0.4)
    expected = relevance_map(editor, images, "make it red", again.settings)
    torch.testing.assert_close(again.values, expected.values)


def test_the_threshold_of_a_scene_is_that_of_its_maps_alone() -> None:
    given = SceneMapOptions(threshold=0.7).settings(PAPER, OWN)
    assert given.threshold == 0.7
    assert given.relevance is not None and given.relevance.threshold == 0.7
    assert given.voting == OWN.voting


@given(st.tuples(*[st.integers(0, 999)] * 2, *[st.integers(1, 999)] * 2))
def test_boxes_are_read_as_they_are_written(numbers: tuple[int, int, int, int]) -> None:
    x, y, width, height = numbers
    box = (x, y, x + width, y + height)
    assert parse_box(",".join(map(str, box))) == box


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d", "1,2,3,4,5", "-1,0,3,3", "3,3,3,9"])
def test_what_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(WysError):
        parse_box(text)
