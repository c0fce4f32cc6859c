"""`wys.json` is read strictly."""

import json
import math
from pathlib import Path

import pytest

from wys.diffusion.conditioning import Guidance
from wys.diffusion.sampler import EditSettings
from wys.diffusion.settings import PAPER, EditorSettings, read_settings, settings_as_json
from wys.diffusion.window import WindowSettings
from wys.edit_score import ScoreSettings
from wys.errors import WysError
from wys.relevance import RelevanceSettings, VerdictSettings
from wys.store import write_json

NAN = math.nan


def test_round_trip(tmp_path: Path) -> None:
    settings = EditorSettings(
        RelevanceSettings(
            timesteps=(0.6, 0.8),
            draws=4,
            normalisation="percentile",
            threshold="auto",
            verdict=VerdictSettings(nothing_below=0.3),
        ),
        EditSettings(
            Guidance(1.5, 1.0), steps=10, guided=(0.2, 0.8), window=WindowSettings(margin=0.5)
        ),
        128,
    )
    for some in (settings, PAPER):
        write_json(tmp_path / "wys.json", settings_as_json(some))
        assert read_settings(tmp_path / "wys.json") == some


def test_what_is_left_out_is_the_papers(tmp_path: Path) -> None:
    write_json(tmp_path / "wys.json", {"version": 1, "edit": {"guidance": {"text": 2}}})
    read = read_settings(tmp_path / "wys.json")
    assert read == EditorSettings(edit=EditSettings(guidance=Guidance(2.0, 1.5)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "version"),
        ([], "version"),
        ({"version": 2}, "version"),
        ({"version": 1, "sizes": 3}, "has no setting 'sizes'"),
        ({"version": 1, "edit": {"step": 3}}, "edit has no setting 'step'"),
        ({"version": 1, "edit": {"steps": "3"}}, "edit, steps does not take the value '3'"),
        ({"version": 1, "edit": {"steps": 0}}, "1 to 1000 steps"),
        ({"version": 1, "edit": 5}, "must be an object"),
        ({"version": 1, "size": True}, "does not take"),
        ({"version": 1, "relevance": {"source": "magic"}}, "does not take the value 'magic'"),
        ({"version": 1, "relevance": {"threshold": 2}}, "from 0 to 1"),
        ({"version": 1, "relevance": {"verdict": {"nothing_below": NAN}}}, "value nan"),
        ({"version": 1, "relevance": {"verdict": {"nothing_below": -1}}}, "0 or more, not -1"),
        ({"version": 1, "edit": {"window": {"margin": math.inf}}}, "does not take"),
        ({"version": 1, "edit": {"guidance": {"text": 10**400}}}, "does not take"),
        ({"version": 1, "rival": NAN}, "value nan"),
        ({"version": 1, "rival": -5}, "from 0 to 1, not -5"),
        ({"version": 1, "score": {"expected": NAN}}, "value nan"),
        ({"version": 1, "size": 1}, "16 to 16384 pixels, not at 1"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path: Path, content: object, said: str) -> None:
    (tmp_path / "wys.json").write_text(json.dumps(content))
    with pytest.raises(WysError, match=said) as caught:
        read_settings(tmp_path / "wys.json")
    assert "wys.json" in str(caught.value)


@pytest.mark.parametrize("value", [NAN, math.inf])
def test_numbers_without_measure_are_refused(value: float) -> None:
    for make in (
        lambda: VerdictSettings(nothing_below=value),
        lambda: VerdictSettings(noise_ratio=value),
        lambda: WindowSettings(margin=value),
        lambda: ScoreSettings(expected=value),
        lambda: EditorSettings(rival=value),
    ):
        with pytest.raises(WysError):
            make()
