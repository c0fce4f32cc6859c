"""Sentences without images say what their labels say, and a text encoder learns to tell."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wys.diffusion.editor import Editor
from wys.tabletop import phrasings
from wys.tabletop.instructions import COLOUR_WORDS, SHAPE_WORDS
from wys.tabletop.world import Split
from wys.training.latents import tokenise
from wys.training.reading import (
    ASKED,
    FIELDS,
    Reader,
    draw_sentence,
    label_rows,
    read_rightly,
    reading_loss,
    split_fields,
)

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@given(st.sampled_from(SPLITS), st.integers(0, 10_000))
@settings(max_examples=200, deadline=None)
def test_a_sentence_has_the_words_for_what_it_says(split: Split, seed: int) -> None:
    sentence = draw_sentence(split, random.Random(seed))
    assert set("{}").isdisjoint(sentence.words)
    for words, names in ((COLOUR_WORDS, "colour new_colour"), (SHAPE_WORDS, "shape new_shape")):
        for name in names.split():
            said = sentence.said.get(name)
            if said is not None:
                assert any(word in sentence.words for word in words.get(said, (said,)))
    labels = dict(zip(FIELDS, sentence.labels, strict=True))
    assert ASKED[labels["asked"] - 1] == sentence.said["asked"]
    assert {name for name, label in labels.items() if label} == sentence.said.keys()


def test_everything_is_asked_for_and_held_out_sentences_stay_so() -> None:
    draw = random.Random(0)
    drawn = [draw_sentence("train", draw) for _ in range(3000)]
    for name, values in FIELDS.items():
        assert {sentence.said.get(name) for sentence in drawn} >= set(values)
    held_out = {s for light in phrasings.LIGHT.values() for s in light.test + light.validation}
    assert held_out.isdisjoint(sentence.words for sentence in drawn)


def test_right_and_wrong_answers_are_told_apart() -> None:
    labels = label_rows([draw_sentence("train", random.Random(i)) for i in range(50)])
    sure = torch.cat(
        [
            20.0 * torch.nn.functional.one_hot(labels[:, i], 1 + len(values))
            for i, values in enumerate(FIELDS.values())
        ],
        dim=1,
    )
    assert read_rightly(sure, labels) == {"asked": 1.0, "all": 1.0}
    assert float(reading_loss(sure, labels)) < 1e-6
    one_off = sure.clone()
    split_fields(one_off)["side"].neg_()  # a view: the rows say another side
    assert read_rightly(one_off, labels) == {"asked": 1.0, "all": 0.0}
    assert float(reading_loss(one_off, labels)) > 1


def test_a_text_encoder_learns_to_read(editor: Editor) -> None:
    torch.manual_seed(0)
    pipeline = editor.pipeline
    text, tokenizer = pipeline.text_encoder, pipeline.tokenizer
    reader = Reader(text.config.hidden_size, tokenizer.eos_token_id)
    draw = random.Random(0)
    sentences = [draw_sentence("train", draw) for _ in range(64)]
    tokens, labels = tokenise(tokenizer, [s.words for s in sentences]), label_rows(sentences)
    with torch.no_grad():
        states = text(tokens).last_hidden_state
    optimiser = torch.optim.Adam(reader.parameters(), lr=0.05)
    before = float(reading_loss(reader(states, tokens), labels).detach())
    for _ in range(150):
        optimiser.zero_grad()
        loss = reading_loss(reader(states, tokens), labels)
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5 * before
    with pytest.raises(RuntimeError):
        reader(states[..., :-1], tokens)
