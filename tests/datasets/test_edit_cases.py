"""Folders of cases: every layout is read as its makers wrote it, and what is wrong is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wys.datasets.edit_cases import EditCase, decode_runs, read_cases
from wys.errors import WysError
from wys.image import write_image


def grey(path: Path, height: int, width: int, value: float = 0.5) -> str:
    write_image(path, torch.full((3, height, width), value))
    return path.name


def test_one_line_needs_an_image_and_an_instruction_only(tmp_path: Path) -> None:
    grey(tmp_path / "a.png", 6, 8)
    grey(tmp_path / "b.png", 6, 8)
    said = {"caption_before": "a house", "caption_after": "a red house", "kind": "colour"}
    lines = [
        {"before": "a.png", "instruction": "make it red"},
        {"before": "a.png", "instruction": "x", "after": "b.png", "mask": "b.png", **said},
        {"before": "a.png", "instruction": "y\u2028z", "caption_after": "one is not enough"},
    ]
    text = "\r\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8", newline="")
    first, second, third = read_cases(tmp_path)
    assert (first.after, first.mask, first.captions, first.kind) == (None, None, None, "own")
    assert first.read_after() is None and first.read_mask((6, 8)) is None
    assert second.captions == ("a house", "a red house") and second.kind == "colour"
    mask = second.read_mask((6, 8))
    assert mask is not None and mask.shape == (1, 6, 8) and mask.all()
    assert third.captions is None and third.instruction == "y\u2028z"
    with pytest.raises(WysError, match="differ in size"):
        second.read_mask((6, 9))


def test_a_mark_before_utf_8_is_passed_over(tmp_path: Path) -> None:
    grey(tmp_path / "a.png", 6, 8)
    line = json.dumps({"before": "a.png", "instruction": "make it red"})
    (tmp_path / "metadata.jsonl").write_text(line, encoding="utf-8-sig")
    assert read_cases(tmp_path)[0].instruction == "make it red"


def test_no_kind_is_called_as_all_cases_are(tmp_path: Path) -> None:
    grey(tmp_path / "a.png", 6, 8)
    line = json.dumps({"before": "a.png", "instruction": "make it red", "kind": "all"})
    (tmp_path / "metadata.jsonl").write_text(line)
    with pytest.raises(WysError, match='line 1: the kind "all" stands for all cases'):
        read_cases(tmp_path)


def magicbrush(folder: Path) -> None:
    """One session of two turns; the masks are half as large as the images."""
    images = folder / "images" / "139306"
    images.mkdir(parents=True)
    for name in ("input", "output1", "output2"):
        grey(images / f"139306-{name}.png", 8, 8)
    for turn in (1, 2):
        pixels = np.full((4, 4, 4), 255, dtype=np.uint8)
        pixels[:, turn - 1, 3] = 0
        Image.fromarray(pixels).save(images / f"139306-mask{turn}.png")
    turns = [
        {
            "input": f"139306-{given}.png",
            "mask": f"139306-mask{turn}.png",
            "output": f"139306-output{turn}.png",
            "instruction": f"turn {turn}",
        }
        for turn, given in ((1, "input"), (2, "output1"))
    ]
    (folder / "edit_turns.json").write_text(json.dumps(turns))
    said = {"139306-input.png": "a dog", "139306-output1.png": "a cat"}
    (folder / "global_descriptions.json").write_text(json.dumps({"139306": said}))


def test_magicbrush_masks_are_holes_of_any_size(tmp_path: Path) -> None:
    magicbrush(tmp_path)
    first, second = read_cases(tmp_path)
    assert first.name == "139306-output1.png" and first.instruction == "turn 1"
    assert first.captions == ("a dog", "a cat") and second.captions is None
    assert second.before.name == "139306-output1.png"
    assert second.after is not None and second.after.name == "139306-output2.png"
    for turn, case in enumerate((first, second)):
        mask = case.read_mask((8, 8))
        assert mask is not None
        assert mask[0].nonzero()[:, 1].unique().tolist() == [2 * turn, 2 * turn + 1]
    grey(tmp_path / "images" / "139306" / "139306-mask1.png", 4, 4)
    with pytest.raises(WysError, match="no transparent part"):
        first.read_mask((8, 8))


def pie_bench(folder: Path, **entry: object) -> None:
    (folder / "annotation_images" / "0_random_140").mkdir(parents=True, exist_ok=True)
    grey(folder / "annotation_images" / "0_random_140" / "000000000000.jpg.png", 512, 512)
    whole = {
        "image_path": "0_random_140/000000000000.jpg.png",
        "original_prompt": "a slanted mountain bicycle",
        "editing_prompt": "a slanted [rusty] mountain bicycle",
        "editing_instruction": "Make the frame of the bike rusty",
        "editing_type_id": "0",
        "blended_word": "bicycle bicycle",
        "mask": [512 * 10 + 20, 5, 512 * 11 + 500, 20],
        **entry,
    }
    (folder / "mapping_file.json").write_text(json.dumps({"000000000000": whole}))


def test_pie_bench_has_runs_for_masks_and_no_truth(tmp_path: Path) -> None:
    pie_bench(tmp_path)
    (case,) = read_cases(tmp_path)
    assert case.name == "000000000000" and case.after is None and case.kind == "type 0"
    assert case.captions == ("a slanted mountain bicycle", "a slanted rusty mountain bicycle")
    mask = case.read_mask((512, 512))
    assert mask is not None and mask[0, 10, 20:25].all() and not mask[0, 10, 25:511].any()
    # A run goes on in the next row.
    assert mask[0, 11, 500:].all() and mask[0, 12, :8].all() and not mask[0, 12, 8:511].any()
    with pytest.raises(WysError, match="512 x 512"):
        case.read_mask((256, 256))


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 30)), max_size=6))
def test_runs_mark_their_pixels_and_the_border(runs: list[tuple[int, int]]) -> None:
    marked = {i for start, length in runs for i in range(start, min(start + length, 100))}
    marked |= {i for i in range(100) if i // 10 in (0, 9) or i % 10 in (0, 9)}
    found = decode_runs([n for run in runs for n in run], side=10)
    assert set(found.flatten().nonzero()[:, 0].tolist()) == marked


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.jsonl", "\n", "lists no case"),
        ("metadata.jsonl", '{"before": "a.png"}', 'line 1 has no "instruction"'),
        ("metadata.jsonl", '{"before": "no.png", "instruction": "x"}', "does not exist"),
        ("metadata.jsonl", '{"before": 5, "instruction": "x"}', '"before" must be words, not 5'),
        ("metadata.jsonl", "[" * 100_000, "line 1 is not valid JSON"),
        ("edit_turns.json", "{}", "holds no list"),
        ("edit_turns.json", '[{"input": "1-input.png"}]', 'entry 1 has no "mask"'),
        ("mapping_file.json", "[]", "holds no object"),
        ("mapping_file.json", '{"7": {"image_path": "a"}}', 'entry 7 has no "editing_instruction"'),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(WysError, match=words):
        read_cases(tmp_path)


def test_a_folder_without_a_layout_and_damaged_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(WysError, match="holds no cases"):
        read_cases(tmp_path)
    pie_bench(tmp_path, mask=[1, 2, 3])
    with pytest.raises(WysError, match="starts and lengths"):
        read_cases(tmp_path)
    pie_bench(tmp_path, mask=None)
    assert isinstance(read_cases(tmp_path)[0], EditCase) and read_cases(tmp_path)[0].mask is None
