"""What is typed wrong is one sentence that names the option, whatever the mistake."""

import shlex

import pytest
import tyro

from wys.apps import cli


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            "edit a.png x --threshold foo",
            "--threshold takes FLOAT|auto|triangle|entropy, not 'foo'",
        ),
        ("edit a.png x --threshold=foo --seed 1", "entropy, not 'foo'"),
        (
            "edit a.png x --source foo",
            "--source takes {difference,head,both,locator}, not 'foo'",
        ),
        ("edit a.png x --draws 1.5", "--draws takes N, not '1.5'"),
        ("edit a.png x --grow wide", "--grow takes FLOAT, not 'wide'"),
        ("edit a.png x --timesteps a b", "--timesteps takes FRACTION..., not 'a b'"),
        ("edit a.png x --guided 1 --seed 2", "--guided takes LOW HIGH, not '1'"),
        ("edit a.png x --mask", "--mask takes FILE"),
        ("edit a.png x --dtype fp8", "--dtype takes {auto,fp32,fp16,bf16}, not 'fp8'"),
        ("edit a.png", "INSTRUCTION is missing"),
        ("edit a.png --x -y", "INSTRUCTION is missing"),
        ("edit", "IMAGE and INSTRUCTION are missing"),
        ("edit a.png x y", "'y' is one word too many"),
        ("edit a.png x --treshold=0.4", "no option --treshold (did you mean --threshold?)"),
        ("train --ouy runs", "no option --ouy (did you mean --out?)"),
        ("edit a.png x --colour red", "no option --colour;"),
        ("train --out runs --images many", "--images takes N, not 'many'"),
        ("scene render s --what foo", "--what takes {colour,depth,opacity,relevance}"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: str, words: str, capsys) -> None:
    assert cli.main(shlex.split(arguments)) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("wys: ") and words in line and "None" not in line, line
    command = "wys scene render" if "scene" in arguments else f"wys {arguments.split()[0]}"
    assert line.endswith(f"; '{command} --help' lists what there is.") and not captured.out


def test_what_tyro_tells_otherwise_stays_its_own(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.delattr(tyro._errors, "on_parse_error")
    with pytest.raises(SystemExit) as stop:
        cli.main(["edit", "a.png", "x", "--threshold", "foo"])
    assert stop.value.code == 2 and "--threshold" in capsys.readouterr().err
