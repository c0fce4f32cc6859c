"""Figures, names and the equivalent command."""

import shlex
from pathlib import Path

import pytest

from wys.apps.options import EditorOptions
from wys.apps.page.words import Figures, edit_command, file_name, percent, verdict_in_words
from wys.diffusion.sampler import EditSettings


def test_the_command_names_what_decides_the_result() -> None:
    command = edit_command(
        "my photo.png",
        "make it 'old'",
        editor=EditorOptions(editor="some/editor", vae_tiling=True),
        settings=EditSettings(steps=7),
        threshold=0.42,
        seed=3,
        map_file="relevance.safetensors",
        mask_file="mask.png",
        zoom=True,
        force=True,
    )
    words = shlex.split(command)
    assert words[:4] == ["wys", "edit", "my photo.png", "make it 'old'"]
    options = " ".join(words[4:])
    for part in (
        "--threshold 0.42",
        "--seed 3",
        "--guidance-text 7.5 --guidance-image 1.5 --steps 7",
        "--relevance relevance.safetensors",
        "--mask mask.png",
        "--zoom --force",
        "--editor some/editor --vae-tiling",
    ):
        assert part in options


def test_names_and_words_that_look_like_options_are_none() -> None:
    command = edit_command(
        "-x.png",
        "--seed 5",
        editor=EditorOptions(),
        settings=EditSettings(),
        threshold="auto",
        seed=0,
    )
    assert shlex.split(command)[2:4] == ["./-x.png", " --seed 5"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("photo.png", "photo.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\pictures\\a b.JPG", "a b.JPG"),
        ("", "image"),
        ("..", "image"),
        ("a\nb.png", "ab.png"),
        (f"{'n' * 300}.png", f"{'n' * 60}.png"),
    ],
)
def test_file_names_are_safe(given: str, kept: str) -> None:
    assert file_name(given) == kept
    assert Path(kept).name == kept


def test_figures_in_words() -> None:
    rows = dict(Figures(mask=0.25, changed=0.0004, outside=0, seconds=1.234).rows())
    assert rows == {
        "In the mask": "25.0%",
        "Changed": "< 0.1%",
        "Outside the mask": "unchanged",
        "Time": "1.2 s",
    }
    assert percent(0) == "0.0%"


def test_the_verdicts_say_what_can_be_done() -> None:
    assert verdict_in_words("local") == "A local edit."
    assert "whole image" in verdict_in_words("whole image")
    assert "brush" in verdict_in_words("nothing to edit")
