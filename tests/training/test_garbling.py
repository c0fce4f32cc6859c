"""Garbled instructions keep what they are about."""

from collections.abc import Iterable

import pytest
import torch
from transformers import CLIPTokenizer

from wys.diffusion.editor import Editor
from wys.diffusion.loading import builtin_directory
from wys.tabletop.synonyms import SYNONYMS
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
    garbler = Garbler(editor.pipeline.tokenizer, GarblingSettings(share=0.0, synonyms=0.0))
    told = rows(editor, 5)
    assert torch.equal(garbler(told, torch.Generator().manual_seed(0)), told)


def test_the_draw_decides(editor: Editor) -> None:
    garbler = Garbler(editor.pipeline.tokenizer, GarblingSettings())
    told = rows(editor, 20)
    one, same, other = (garbler(told, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.fixture(scope="module")
def words_of_the_builtin() -> CLIPTokenizer:
    """A tokenizer of words, with room for whole sentences."""
    return CLIPTokenizer.from_pretrained(builtin_directory() / "tokenizer")


def test_synonyms_take_the_place_of_verbs_and_of_nothing_else(
    words_of_the_builtin: CLIPTokenizer,
) -> None:
    tokenizer = words_of_the_builtin
    garbler = Garbler(tokenizer, GarblingSettings(share=0.0, synonyms=1.0))
    told = tokenizer(
        ["please get rid of the red cube", "make the red cube blue"],
        padding="max_length",
        return_tensors="pt",
    ).input_ids
    retold = garbler(told, torch.Generator().manual_seed(3))
    first, second = tokenizer.batch_decode(retold, skip_special_tokens=True)
    assert torch.equal(retold[1], told[1]) and second == "make the red cube blue"
    verb = first.removeprefix("please ").removesuffix(" the red cube")
    assert verb in SYNONYMS["get rid of"]


def test_random_words_stand_around_a_sentence_and_cut_none_short(
    words_of_the_builtin: CLIPTokenizer,
) -> None:
    tokenizer = words_of_the_builtin
    only_around = GarblingSettings(share=1.0, fillers=0.0, strewn=0.0, around=1.0, synonyms=0.0)
    garbler = Garbler(tokenizer, only_around)
    draw = torch.Generator().manual_seed(0)
    longer = 0
    for sentence in ("make the ball red", "make the ball red " * 6):
        told = tokenizer([sentence] * 50, padding="max_length", return_tensors="pt").input_ids
        words = told[0, 1 : told[0].tolist().index(tokenizer.eos_token_id)].tolist()
        for row in garbler(told, draw).tolist():
            at = [i for i in range(1, len(row)) if row[i : i + len(words)] == words]
            assert at
            longer += at[0] > 1 and row[at[0] + len(words)] != tokenizer.eos_token_id
    assert longer > 40


def test_synonyms_are_told_by_training_sentences_and_keep_the_held_out_ones_out() -> None:
    from wys.tabletop import phrasings
    from wys.tabletop.phrasings import LIGHT, Phrasings

    known = [*vars(phrasings).values(), *LIGHT.values()]
    families = [family for family in known if isinstance(family, Phrasings)]

    def words(sentences: Iterable[str]) -> set[str]:
        return {word for sentence in sentences for word in sentence.split()}

    train = [sentence for family in families for sentence in family.train]
    kept = words(s for f in families for s in (*f.test, *f.validation)) - words(train)
    assert {"could", "image"} <= kept
    others = [other for group in SYNONYMS.values() for other in group]
    assert not words(others) & kept
    for phrase in SYNONYMS:
        assert any(f" {phrase} " in f" {sentence} " for sentence in train), phrase


def test_fillers_name_no_property() -> None:
    from wys.tabletop.world import COLOURS, MATERIALS, SHAPES, SIZES

    assert not set(FILLERS) & {*COLOURS, *MATERIALS, *SHAPES, *SIZES}
