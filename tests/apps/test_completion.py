"""The completion scripts, asked by the shells that read them."""

import contextlib
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from wys.apps import cli
from wys.apps.completion import command_lines


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the three scripts, as the command prints them."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert cli.main(["completion", shell]) == 0
        (folder / shell).write_text(printed.getvalue())
    return folder


def run(shell: str, program: str) -> str:
    """What a shell prints; skips where it is not installed."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [shell, *flags, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return done.stdout


BASH = """source {script}
ask() {{ COMP_WORDS=(wys "$@"); COMP_CWORD=$#; _wys; echo "${{COMPREPLY[*]}}"; }}
"""

ASKED = {
    ("sc",): "scene",
    ("scene", ""): "fit render info relevance edit undo export",
    ("scene", "re"): "render relevance",
    ("scene", "fit", "--down"): "--downscale",
    ("edit", "photo.png", "make it red", "--guid"): "--guidance-text --guidance-image --guided",
    ("edit", "photo.png", "make it red", "--dtype", "f"): "fp32 fp16",
    ("scene", "render", "fox", "--what", ""): "colour depth opacity relevance",
    ("scene", "render", "fox", "--views", "o"): "orbit",
    ("completion", ""): "bash zsh fish",
    # Nothing of its own: bash offers files.
    ("edit", ""): "",
    ("edit", "--out", ""): "",
    ("edit", "--zoom", ""): "",
    ("paint", "--"): "",
}


def test_bash_completes_commands_options_and_values(scripts: Path) -> None:
    asks = [f"ask {' '.join(repr(word) for word in words)}" for words in ASKED]
    answers = run("bash", BASH.format(script=scripts / "bash") + "\n".join(asks))
    assert dict(zip(ASKED, answers.splitlines(), strict=True)) == ASKED


def test_bash_offers_every_command_and_every_option(scripts: Path) -> None:
    lines = command_lines()
    asks = ["ask ''", *(f"ask {' '.join(line.words)} --" for line in lines)]
    answers = run("bash", BASH.format(script=scripts / "bash") + "\n".join(asks)).splitlines()
    first = {command.words.split()[0] for command in cli.COMMANDS}
    assert set(answers[0].split()) == first | {"--help", "--version"}
    for line, answer in zip(lines, answers[1:], strict=True):
        assert answer.split() == [option.name for option in line.options]
        assert "--help" in answer


def test_the_script_is_registered_for_wys_and_falls_back_to_files(scripts: Path) -> None:
    registered = run("bash", f"source {scripts / 'bash'}; complete -p wys")
    assert registered.split() == ["complete", "-o", "default", "-F", "_wys", "wys"]


def test_fish_completes_with_what_each_is_for(scripts: Path) -> None:
    def complete(line: str) -> dict[str, str]:
        told = run("fish", f"source {scripts / 'fish'}; complete -C '{line}'")
        return dict(
            entry.split("\t") if "\t" in entry else (entry, "") for entry in told.split("\n")
        )

    assert complete("wys scene r") | {"": ""} == {
        "render": "render a scene as pictures or films",
        "relevance": "show where it would change a scene",
        "": "",
    }
    assert "--guidance-text" in complete("wys edit photo.png --guid")
    assert set(complete("wys edit photo.png --dtype f")) - {""} == {"fp16", "fp32"}
    assert set(complete("wys completion ")) - {""} == {"bash", "zsh", "fish"}


ZSH = """
compdef() { print registered $@ }
_describe() { print -l -- ${(P)2} }
_arguments() { print -l -- "$@" }
source %s
ask() { local -a words=("$@"); local CURRENT=$#; _wys }
"""


def test_zsh_hands_the_options_to_its_own_parser(scripts: Path) -> None:
    start = ZSH % (scripts / "zsh")
    assert run("zsh", start).strip() == "registered _wys wys"
    families = run("zsh", f"{start} ask wys ''")
    assert "edit:edit an image, only where the instruction says" in families
    assert "undo:take the last edit of a scene away" in run("zsh", f"{start} ask wys scene ''")
    specs = run("zsh", f"{start} ask wys scene render fox ''").splitlines()
    assert any(
        spec.startswith("*--what[") and spec.endswith("(colour depth opacity relevance)")
        for spec in specs
    )
    assert "*:argument:_files" in specs
    assert "*--zoom[" in run("zsh", f"{start} ask wys edit photo.png ''")


def test_help_texts_do_not_carry_their_defaults_into_the_scripts() -> None:
    for line in command_lines():
        for option in line.options:
            assert option.help and "(default" not in option.help and "(required" not in option.help


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "tcsh"]) == 2
    assert "'tcsh' is none of {bash,zsh,fish}" in capsys.readouterr().err
