"""Names of objects against a plain oracle, phrasings by split."""

import random
import string
from dataclasses import astuple
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wys.tabletop import phrasings
from wys.tabletop.edits import ChangeLight, Recolour, Remove
from wys.tabletop.instructions import (
    POSITIONS,
    Description,
    Thing,
    describe,
    instruction,
    matching,
    phrase,
    plainly,
    refers_to,
    things,
)
from wys.tabletop.phrasings import (
    AFTER,
    ASIDES,
    BEFORE,
    UNHEARD_AFTER,
    UNHEARD_BEFORE,
    Phrasings,
)
from wys.tabletop.sampling import sample_cameras, sample_scenes
from wys.tabletop.world import COLOURS, FULL, MATERIALS, SHAPES, SIZES, Split

scenes_of_things = st.lists(
    st.tuples(
        st.sampled_from(SIZES),
        st.sampled_from(COLOURS[:3]),
        st.sampled_from(MATERIALS),
        st.sampled_from(SHAPES[:3]),
        st.floats(-1, 1),
        st.floats(7, 13),
    ),
    min_size=1,
    max_size=5,
).map(lambda rows: [Thing(slot, *row) for slot, row in enumerate(rows)])


@given(scenes_of_things, st.integers(0, 4), st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=300, deadline=None)
def test_descriptions_name_one_object_only(
    objects: list[Thing], pick: int, seed: int, by_place: float
) -> None:
    thing = objects[pick % len(objects)]
    description = describe(objects, thing.slot, random.Random(seed), by_place)
    if description is None:
        # Only an object with a twin can be without a name.
        assert any(other[1:5] == thing[1:5] for other in objects if other is not thing)
        return
    words = (description.size, description.colour, description.material, description.shape)
    fits = [
        other
        for other in objects
        if all(w in (None, o) for w, o in zip(words, other[1:5], strict=True))
    ]
    if description.position is None:
        assert fits == [thing]
        return
    key = {
        "leftmost": lambda t: t.across,
        "rightmost": lambda t: -t.across,
        "closest": lambda t: t.depth,
        "farthest": lambda t: -t.depth,
    }[description.position]
    assert min(fits, key=key) is thing
    first, second = sorted(map(key, fits))[:2]
    assert second - first > 0.1  # visible to the eye, not a matter of rounding


@given(scenes_of_things, st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_place_is_named_wherever_one_fits(objects: list[Thing], seed: int) -> None:
    for thing in objects:
        description = describe(objects, thing.slot, random.Random(seed), by_place=1.0)
        standing_out = [
            place
            for place in POSITIONS
            if len(objects) > 1 and matching(objects, Description(position=place)) == [thing.slot]
        ]
        if standing_out:
            assert description is not None and description.position is not None


def test_things_are_placed_as_the_camera_sees_them() -> None:
    scene, camera = sample_scenes(0, 0, 20, FULL), sample_cameras(0, 0, 20, FULL)
    for i, objects in enumerate(things(scene, camera)):
        assert [t.slot for t in objects] == torch.nonzero(scene.present[i])[:, 0].tolist()
        for a, b in pairwise(sorted(objects, key=lambda t: t.depth)):
            eye = camera.centre[i]
            place = [torch.cat([scene.position[i, t.slot], torch.tensor([0.5])]) for t in (a, b)]
            if b.depth - a.depth > 0.5:
                assert (place[0] - eye).norm() < (place[1] - eye).norm()
        assert all(-1 < t.across < 1 for t in objects)


def test_positions_and_twins() -> None:
    left = Thing(0, "small", "red", "metal", "cube", -0.5, 10.0)
    right = Thing(1, "small", "red", "metal", "cube", 0.5, 10.05)
    assert matching([left, right], Description(shape="cube")) == [0, 1]
    assert matching([left, right], Description(position="leftmost")) == [0]
    assert matching([left, right], Description(shape="cube", position="rightmost")) == [1]
    assert matching([left, right], Description(position="closest")) == []  # too close to call
    assert matching([left, right], Description(shape="cone")) == []
    scene, camera = sample_scenes(0, 0, 3, FULL), sample_cameras(0, 0, 3, FULL)
    everything = refers_to(scene, camera, Description())
    assert [len(slots) for slots in everything] == scene.present.sum(dim=1).tolist()


def all_phrasings() -> list[Phrasings]:
    named = [value for value in vars(phrasings).values() if isinstance(value, Phrasings)]
    return [*named, *phrasings.LIGHT.values()]


def test_no_sentence_serves_two_splits() -> None:
    for one in all_phrasings():
        parts = [set(one.train), set(one.validation), set(one.test)]
        assert len(one.train) >= 8 and len(one.test) >= 2 and one.validation
        assert sum(map(len, parts)) == len(set.union(*parts))
        assert sum(map(len, parts)) == len(one.train) + len(one.validation) + len(one.test)
        assert one.of("test") == one.test
    pooled = [s for one in all_phrasings() for s in one.train + one.validation]
    assert not set(pooled) & {s for one in all_phrasings() for s in one.test}


def test_no_words_around_a_sentence_lead_to_one_that_is_held_out() -> None:
    held_out = {s for one in all_phrasings() for s in one.test + one.validation}
    for one in all_phrasings():
        for leads, sentences in ((BEFORE, one.orders), (ASIDES, one.wishes)):
            led = {f"{lead} {words}".strip() for lead in ("", *leads) for words in sentences}
            assert not held_out & led.union(f"{words} {tail}" for words in led for tail in AFTER)


def test_words_stand_around_all_but_the_test_split() -> None:
    def asked(split: Split) -> set[str]:
        cone = Description(shape="cone")
        return {instruction(Remove(0), cone, split, random.Random(i)) for i in range(300)}

    assert any(sentence.startswith("please ") for sentence in asked("train"))
    assert any(sentence.endswith(" thanks") for sentence in asked("train"))
    assert any(sentence.startswith("listen ") for sentence in asked("validation"))
    assert any(sentence.endswith(" as discussed") for sentence in asked("validation"))
    assert asked("test") == {sentence.format(it="cone") for sentence in phrasings.REMOVE.test}


def test_training_hears_nothing_of_what_stands_around_validation() -> None:
    heard, unheard = {*BEFORE, *ASIDES, *AFTER}, [*UNHEARD_BEFORE, *UNHEARD_AFTER]
    assert len(set(unheard)) == len(unheard) and not heard & set(unheard)
    asked = {s for one in all_phrasings() for s in one.train + one.test}
    assert not any(words in sentence for words in unheard for sentence in asked)


def test_the_plainest_sentence_is_always_the_same() -> None:
    cube = Description(colour="cyan", shape="cube")
    assert plainly(Recolour(0, "gray"), cube) == "make the cyan cube gray"
    assert plainly(Remove(0), Description(position="closest")) == (
        "remove the object closest to the camera"
    )
    assert plainly(ChangeLight("night"), None) == "make it night"


def test_gaps_are_filled_and_articles_agree() -> None:
    draw = random.Random(0)
    for _ in range(200):
        words = instruction(Recolour(0, "orange"), Description(shape="cube"), "train", draw)
        assert "orange" in words and not set("{}") & set(words)
        assert " a orange" not in words
    assert instruction(ChangeLight("night"), None, "test", draw) in phrasings.LIGHT["night"].test


@given(st.sampled_from([None, *POSITIONS]), st.sampled_from([None, *SHAPES]), st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_phrases_are_plain_words(position: str | None, shape: str | None, seed: int) -> None:
    description = Description(size="small", colour="gray", shape=shape, position=position)
    words = phrase(description, random.Random(seed))
    assert set(words) <= set(string.ascii_lowercase + " ") and "  " not in words
    assert len(words.split()) >= sum(part is not None for part in astuple(description))
