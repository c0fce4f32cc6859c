"""The help of every command, as a terminal of 80 columns shows it."""

import os
import re
import subprocess
import sys

import pytest

import wys
from wys.apps import cli
from wys.errors import WysError

MARK = "=" * 100
PROGRAM = f"""
from wys.apps import cli
from wys.errors import WysError
for command in cli.COMMANDS:
    try:
        cli.main([*command.words.split(), "--help"])
    except SystemExit as stop:
        assert stop.code == 0
    print("{MARK}")
"""


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The help of each command; in a process of its own, since boxes depend on the terminal."""
    terminal = os.environ | {"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=terminal, capture_output=True, text=True, check=True
    )
    texts = done.stdout.split(f"{MARK}\n")[:-1]
    return {c.words: text for c, text in zip(cli.COMMANDS, texts, strict=True)}


WORDS = [command.words for command in cli.COMMANDS]


@pytest.mark.parametrize("words", WORDS)
def test_no_line_is_too_long_and_none_is_empty_inside_a_box(
    helps: dict[str, str], words: str
) -> None:
    assert helps[words].startswith(f"usage: wys {words} ") and "╭─ options" in helps[words]
    for line in helps[words].splitlines():
        assert len(line.rstrip()) <= 80, line
        assert not re.fullmatch(r"│\s*│", line.rstrip()), helps[words]


@pytest.mark.parametrize("words", WORDS)
def test_the_words_are_for_people(helps: dict[str, str], words: str) -> None:
    flat = " ".join(helps[words].replace("│", " ").split())
    for clumsy in ("{None}", "(default: False)", "(default: )", "(repeatable)", "[...]"):
        assert clumsy not in flat, flat
    # Every option has a sentence.
    assert not re.search(r"--[a-z][a-z-]* (\(default|--[a-z])", flat), flat


def test_the_overview_fits_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(len(line) <= 80 for line in told.splitlines())
    assert all(f"  wys {words} " in told for words in WORDS)


def test_parsing_does_not_call() -> None:
    (command,) = [each for each in cli.COMMANDS if each.words == "scene undo"]
    # A call would look for the scene, and fail.
    assert callable(cli.parse(command, ["nowhere"]))
    with pytest.raises(WysError, match="no option --treshold"):
        cli.parse(command, ["nowhere", "--treshold", "0.4"])


def test_the_module_is_the_command() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "wys", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == f"wys {wys.__version__}"
