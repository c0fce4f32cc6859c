"""The option groups against the settings that they stand for."""

from dataclasses import MISSING, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wys.apps.options import EditorOptions, GuideOptions, MapOptions, parse_box
from wys.diffusion import loading
from wys.diffusion.editor import Editor
from wys.errors import WysError


def test_editor_options_are_those_of_the_loader() -> None:
    ours = {f.name: f.default for f in fields(EditorOptions) if f.name != "editor"}
    theirs = {f.name: f.default for f in fields(loading.EditorOptions)}
    assert ours == theirs and MISSING not in ours.values()


def test_options_that_are_not_given_leave_the_editors_settings(editor: Editor) -> None:
    settings = MapOptions().settings(editor)
    assert GuideOptions().settings(settings) == editor.settings
    changed = MapOptions(draws=3, threshold="auto").settings(editor)
    assert changed.relevance.draws == 3 and changed.relevance.threshold == "auto"
    assert changed.relevance.timesteps == editor.settings.relevance.timesteps
    guided = GuideOptions(guidance_text=2.0).settings(changed).edit.guidance
    assert guided.text == 2.0 and guided.image == editor.settings.edit.guidance.image


@given(st.tuples(*[st.integers(0, 999)] * 2, *[st.integers(1, 999)] * 2))
def test_boxes_are_read_as_they_are_written(numbers: tuple[int, int, int, int]) -> None:
    x, y, width, height = numbers
    box = (x, y, x + width, y + height)
    assert parse_box(",".join(map(str, box))) == box


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d", "1,2,3,4,5", "-1,0,3,3", "3,3,3,9"])
def test_what_is_no_box_is_refused(text: str) -> None:
    with pytest.raises(WysError):
        parse_box(text)
