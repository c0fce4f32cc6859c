"""Lines of a run: killed anywhere, it goes on to the same rows."""

import json
from pathlib import Path

import pytest
import torch

from wys.errors import WysError
from wys.evaluation.journal import PICTURE_SIDE, Journal


def lines(count: int) -> list[dict]:
    return [{"seed": 0, "case": f"c{i}", "method": "wys", "iou": i / 3} for i in range(count)]


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_line_that_was_cut_short_is_measured_again(tmp_path: Path, cut: int) -> None:
    Journal(tmp_path, {"seed": 0}).add(lines(3))
    file = tmp_path / "cases.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    journal = Journal(tmp_path, {"seed": 0})
    assert journal.has(0, ["c0", "c1"], "wys") is (cut < 100)
    assert not journal.has(0, ["c0", "c2"], "wys") and not journal.has(1, ["c0"], "wys")
    journal.add(lines(3))
    assert file.read_bytes() == whole and len(journal.records) == 3


@pytest.mark.parametrize("text", ["one\u2028two", "one\x85two", "caf\u00e9", "\ud83d"])
def test_any_words_are_read_back(tmp_path: Path, text: str) -> None:
    Journal(tmp_path).add([{**lines(1)[0], "instruction": text}])
    (record,) = Journal(tmp_path).records
    assert record["instruction"] == text


def test_a_journal_in_memory_keeps_what_one_on_disk_does(tmp_path: Path) -> None:
    for journal in (on_disk := Journal(tmp_path), in_memory := Journal()):
        journal.add(lines(2))
        journal.add([{**line, "iou": 9} for line in lines(3)])
    assert on_disk.records == in_memory.records == Journal(tmp_path).records
    assert [record["iou"] for record in in_memory.records] == [0, 1 / 3, 9]


def test_methods_are_compared_on_the_same_cases() -> None:
    journal = Journal()
    for method, cases in (
        ("oracle", {0: "ab", 1: "ab"}),
        ("wys", {0: "ab", 2: "ab"}),
        ("paper", {0: "a"}),
        ("noop", {0: "ab"}),
    ):
        for seed, names in cases.items():
            journal.add([{"seed": seed, "case": name, "method": method} for name in names])

    def compared(methods: list[str], *seeds: int) -> list[tuple[str, int]]:
        found = journal.comparable(methods, seeds)
        return list(dict.fromkeys((record["method"], record["seed"]) for record in found))

    # In the order asked for, then what was measured on the same cases before.
    assert compared(["noop", "wys"], 0) == [("noop", 0), ("wys", 0), ("oracle", 0)]
    assert compared(["paper"], 0) == [("paper", 0), ("oracle", 0), ("wys", 0), ("noop", 0)]
    assert compared(["oracle"], 0, 1) == [("oracle", 0), ("oracle", 1)]
    assert compared(["wys"], 0, 2) == [("wys", 0), ("wys", 2)]


def test_another_run_cannot_go_on_here(tmp_path: Path) -> None:
    Journal(tmp_path, {"seed": 0, "best": (1, None)})
    Journal(tmp_path, {"seed": 0, "best": (1, None)})
    with pytest.raises(WysError, match=r"seed 0, and this one has 1; choose another --out"):
        Journal(tmp_path, {"seed": 1, "best": (1, None)})
    for damage in (b"{}\n", b"\xff\n", b"[" * 9999 + b"\n"):
        (tmp_path / "cases.jsonl").write_bytes(damage)
        with pytest.raises(WysError, match="line 1 is damaged"):
            Journal(tmp_path, {"seed": 0, "best": (1, None)})


def test_what_is_made_once_is_read_from_then_on(tmp_path: Path) -> None:
    assert Journal(tmp_path).once("best", lambda: [1.5, 1]) == [1.5, 1]

    def never() -> None:
        raise AssertionError("made again")

    assert Journal(tmp_path).once("best", never) == [1.5, 1]
    assert json.loads((tmp_path / "run.json").read_text())["once"] == {"best": [1.5, 1]}


def test_pictures_are_small_and_stay_in_the_folder(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run")
    journal.keep_picture("../a b", "wys", torch.rand(3, 300, 600))
    shown = journal.picture("../a b", "wys")
    assert shown is not None and max(shown.shape) == PICTURE_SIDE
    assert all(tmp_path / "run" in path.parents for path in tmp_path.rglob("*.png"))
    assert journal.picture("other", "wys") is None
    assert Journal().picture("other", "wys") is None
