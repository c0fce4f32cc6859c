"""Garbled instructions keep what they are about."""

import torch

from wys.diffusion.editor import Editor
from wys.training.garbling import FILLERS, Garbler, GarblingSettings

LENGTH = 16


def rows(editor: Editor, count: int) -> torch.Tensor:
    tokenizer = editor.pipeline.tokenizer
    ids = tokenizer(["make the ball red"] * count, padding="max_length", return_tensors="pt")
    return ids.input_ids


def test_meaning_words_stay_in_order(editor: Editor) -> None:
    tokenizer = editor.pipeline.tokenizer
    garbler = Garbler(tokenizer, GarblingSettings(share=1.0))
    told = rows(editor, 200)
    garbled = garbler(told, torch.Generator().manual_seed(0))
    assert garbled.shape == told.shape and garbled.dtype == told.dtype
    ball, red = (tokenizer(w, add_special_tokens=False).input_ids for w in ("ball", "red"))
    changed = 0
    for row in garbled.tolist():
        assert row[0] == tokenizer.bos_token_id and row[-1] == tokenizer.eos_token_id
        inside = row[1 : row.index(tokenizer.eos_token_id)]
        assert set(row[1 + len(inside) :]) == {tokenizer.eos_token_id}
        text = " ".join(map(str, inside))
        first = text.find(" ".join(map(str, ball)))
        assert first >= 0 or len(inside) == LENGTH - 2
        changed += row != told[0].tolist()
    assert changed > 120
    assert len(ball) == len(red) == 1


def test_a_share_of_zero_changes_nothing(editor: Editor) -> None:
    garbler = Garbler(editor.pipeline.tokenizer, GarblingSettings(share=0.0))
    told = rows(editor, 5)
    assert torch.equal(garbler(told, torch.Generator().manual_seed(0)), told)


def test_the_draw_decides(editor: Editor) -> None:
    garbler = Garbler(editor.pipeline.tokenizer, GarblingSettings())
    told = rows(editor, 20)
    one, same, other = (garbler(told, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_fillers_name_no_property() -> None:
    from wys.tabletop.world import COLOURS, MATERIALS, SHAPES, SIZES

    assert not set(FILLERS) & {*COLOURS, *MATERIALS, *SHAPES, *SIZES}
