"""The tokenizer: every text has a code and comes back."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from wys.store import read_json
from wys.training.latents import tokenise
from wys.training.tokenizer import END, START, build_tokenizer, learn_merges, word_counts

WORDS = ["make", "the", "zebra", "purple", "qwx", "7", "sphere"]
INSTRUCTIONS = ["make the red cube blue", "remove the metal sphere", "turn the cube into a sphere"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> CLIPTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    return build_tokenizer(INSTRUCTIONS * 5, folder, vocabulary=700, length=16)


def test_known_words_are_one_token(tokenizer):
    ids = tokenizer("Remove the RED sphere").input_ids
    assert len(ids) == 6
    assert tokenizer.convert_ids_to_tokens(ids[:3]) == [START, "remove</w>", "the</w>"]


def test_marks_and_filling_are_those_of_clip(tokenizer):
    row = tokenise(tokenizer, ["remove"])[0].tolist()
    end = tokenizer.convert_tokens_to_ids(END)
    assert row[0] == tokenizer.convert_tokens_to_ids(START)
    assert len(row) == tokenizer.model_max_length == 16
    assert row[2:] == [end] * 14
    assert len(tokenizer) == len(tokenizer.get_vocab()) == end + 1


@settings(max_examples=60)
@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=12))
def test_nothing_is_unknown(tokenizer, text):
    end = tokenizer.convert_tokens_to_ids(END)
    assert end not in tokenizer(text, add_special_tokens=False).input_ids


@given(words=st.lists(st.sampled_from(WORDS), max_size=5))
def test_round_trip(tokenizer, words):
    text = " ".join(words)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text


def test_merges_take_the_most_frequent_pair_first():
    merges = learn_merges(word_counts(["ab ab ab", "cb"]), 10)
    assert merges == [("a", "b</w>"), ("c", "b</w>")]


def test_the_older_files_give_the_same_tokenizer(tokenizer):
    folder = Path(tokenizer.name_or_path)
    vocabulary = read_json(folder / "vocab.json")
    assert vocabulary == tokenizer.get_vocab()
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    again = CLIPTokenizer(vocab=vocabulary, merges=[tuple(line.split(" ")) for line in lines])
    text = "turn the spherical thing into a cube"
    assert again(text).input_ids == tokenizer(text).input_ids
