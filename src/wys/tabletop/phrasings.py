"""The sentences that ask for edits, with gaps for what they concern.

Gaps: {it} names an object, {colour}, {material}, {shape}, {pattern} are words for new properties,
{stuff} is a material as a noun, {a_...} carries an article, {a_new} and {side} describe an added
object and where it stands, {floor} and {background} are words for these.
"""

from __future__ import annotations

from dataclasses import dataclass

from wys.tabletop.world import Split


@dataclass(frozen=True)
class Phrasings:
    """Sentences with gaps; a split's sentences never serve another's figures."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    """Added to the training phrasings in the validation split."""
    test: tuple[str, ...]
    """The only phrasings of the test split."""

    def of(self, split: Split) -> tuple[str, ...]:
        """The phrasings that a split draws from."""
        if split == "test":
            return self.test
        return self.train if split == "train" else self.train + self.validation


RECOLOUR = Phrasings(
    train=(
        "make the {it} {colour}",
        "turn the {it} {colour}",
        "paint the {it} {colour}",
        "color the {it} {colour}",
        "recolor the {it} {colour}",
        "recolour the {it} to {colour}",
        "change the color of the {it} to {colour}",
        "change the colour of the {it} to {colour}",
        "change the {it} to {colour}",
        "set the color of the {it} to {colour}",
        "the {it} should be {colour}",
        "give the {it} {a_colour} color",
        "let the {it} be {colour}",
        "i want the {it} to be {colour}",
    ),
    validation=("have the {it} painted {colour}", "the {it} must become {colour}"),
    test=(
        "could you make the {it} {colour}",
        "switch the {it} to {colour}",
        "the color of the {it} should be {colour}",
    ),
)
MATERIAL = Phrasings(
    train=(
        "make the {it} {material}",
        "turn the {it} {material}",
        "change the material of the {it} to {stuff}",
        "change the {it} to {stuff}",
        "make the {it} out of {stuff}",
        "the {it} should be {material}",
        "the {it} should be made of {stuff}",
        "turn the {it} into {stuff}",
        "set the material of the {it} to {stuff}",
        "i want the {it} to be {material}",
        "give the {it} a {material} surface",
        "let the {it} be {material}",
    ),
    validation=("the {it} must become {material}", "have the {it} made of {stuff}"),
    test=(
        "could you make the {it} {material}",
        "switch the {it} to {stuff}",
        "the material of the {it} should be {stuff}",
    ),
)
SHAPE = Phrasings(
    train=(
        "turn the {it} into a {shape}",
        "make the {it} a {shape}",
        "change the {it} into a {shape}",
        "change the {it} to a {shape}",
        "change the shape of the {it} to a {shape}",
        "transform the {it} into a {shape}",
        "the {it} should be a {shape}",
        "make a {shape} out of the {it}",
        "let the {it} be a {shape}",
        "set the shape of the {it} to a {shape}",
        "i want the {it} to be a {shape}",
        "give the {it} the shape of a {shape}",
    ),
    validation=("the {it} must become a {shape}", "have the {it} turned into a {shape}"),
    test=(
        "could you make the {it} a {shape}",
        "switch the {it} to a {shape}",
        "the shape of the {it} should be a {shape}",
    ),
)
GROW = Phrasings(
    train=(
        "make the {it} bigger",
        "make the {it} larger",
        "make the {it} big",
        "make the {it} large",
        "enlarge the {it}",
        "increase the size of the {it}",
        "grow the {it}",
        "the {it} should be bigger",
        "the {it} should be large",
        "let the {it} be larger",
        "i want the {it} to be bigger",
        "scale up the {it}",
    ),
    validation=("the {it} must become bigger", "have the {it} enlarged"),
    test=("could you make the {it} bigger", "scale the {it} up", "the {it} should become larger"),
)
SHRINK = Phrasings(
    train=(
        "make the {it} smaller",
        "make the {it} small",
        "make the {it} tiny",
        "shrink the {it}",
        "reduce the size of the {it}",
        "decrease the size of the {it}",
        "the {it} should be smaller",
        "the {it} should be small",
        "let the {it} be smaller",
        "i want the {it} to be smaller",
        "scale down the {it}",
    ),
    validation=("the {it} must become smaller", "have the {it} shrunk"),
    test=("could you make the {it} smaller", "scale the {it} down", "the {it} should become small"),
)
REMOVE = Phrasings(
    train=(
        "remove the {it}",
        "delete the {it}",
        "get rid of the {it}",
        "erase the {it}",
        "take away the {it}",
        "take the {it} away",
        "take out the {it}",
        "make the {it} disappear",
        "the {it} should be gone",
        "the {it} should disappear",
        "remove the {it} from the scene",
        "i want the {it} to be gone",
    ),
    validation=("have the {it} removed", "the {it} must disappear"),
    test=("could you remove the {it}", "delete the {it} from the image", "make the {it} go away"),
)
ADD = Phrasings(
    train=(
        "add {a_new} {side} the {it}",
        "put {a_new} {side} the {it}",
        "place {a_new} {side} the {it}",
        "insert {a_new} {side} the {it}",
        "there should be {a_new} {side} the {it}",
        "{side} the {it} add {a_new}",
        "{side} the {it} put {a_new}",
        "i want {a_new} {side} the {it}",
        "set {a_new} {side} the {it}",
        "let there be {a_new} {side} the {it}",
    ),
    validation=("there must be {a_new} {side} the {it}", "have {a_new} placed {side} the {it}"),
    test=(
        "could you add {a_new} {side} the {it}",
        "{side} the {it} there should be {a_new}",
        "{side} the {it} place {a_new}",
    ),
)
FLOOR = Phrasings(
    train=(
        "make the {floor} {colour}",
        "turn the {floor} {colour}",
        "paint the {floor} {colour}",
        "color the {floor} {colour}",
        "change the color of the {floor} to {colour}",
        "change the colour of the {floor} to {colour}",
        "change the {floor} to {colour}",
        "the {floor} should be {colour}",
        "give the {floor} {a_colour} color",
        "let the {floor} be {colour}",
        "i want {a_colour} {floor}",
    ),
    validation=("have the {floor} painted {colour}", "the {floor} must become {colour}"),
    test=(
        "could you make the {floor} {colour}",
        "switch the {floor} to {colour}",
        "the color of the {floor} should be {colour}",
    ),
)
FLOOR_PATTERN = Phrasings(
    train=(
        "make the {floor} {pattern}",
        "turn the {floor} {pattern}",
        "change the {floor} to {a_pattern} pattern",
        "the {floor} should be {pattern}",
        "give the {floor} {a_pattern} pattern",
        "let the {floor} be {pattern}",
        "i want {a_pattern} {floor}",
        "change the pattern of the {floor} to {pattern}",
    ),
    validation=("the {floor} must become {pattern}",),
    test=(
        "could you make the {floor} {pattern}",
        "the {floor} should have {a_pattern} pattern",
    ),
)
BACKGROUND = Phrasings(
    train=tuple(s.replace("{floor}", "{background}") for s in FLOOR.train),
    validation=tuple(s.replace("{floor}", "{background}") for s in FLOOR.validation),
    test=tuple(s.replace("{floor}", "{background}") for s in FLOOR.test),
)
LIGHT = {
    "night": Phrasings(
        train=(
            "make it night",
            "turn it into night",
            "change it to night",
            "make it dark",
            "make it darker",
            "make the scene dark",
            "turn down the light",
            "turn off the light",
            "it should be night",
            "make the light dark",
            "change the light to night",
            "i want it to be dark",
        ),
        validation=("it must become night", "have the light turned off"),
        test=("could you make it night", "make the scene darker", "the light should be dark"),
    ),
    "day": Phrasings(
        train=(
            "make it brighter",
            "make it bright",
            "make it day",
            "make the scene bright",
            "turn up the light",
            "turn on more light",
            "it should be brighter",
            "it should be bright daylight",
            "change the light to bright daylight",
            "add more light",
            "i want it to be brighter",
            "make the light brighter",
        ),
        validation=("it must become brighter", "have the light turned up"),
        test=(
            "could you make it brighter",
            "make the scene brighter",
            "the light should be bright",
        ),
    ),
    "sunset": Phrasings(
        train=(
            "make it sunset",
            "make the light warm",
            "make the light warmer",
            "turn it into a sunset",
            "change the light to sunset",
            "use warm light",
            "give it warm light",
            "it should be sunset",
            "make it look like sunset",
            "i want warm light",
            "change it to sunset",
        ),
        validation=("it must become sunset", "have the light warm"),
        test=(
            "could you make it sunset",
            "the light should be warm",
            "give it the light of a sunset",
        ),
    ),
    "cool": Phrasings(
        train=(
            "make the light cool",
            "make the light cooler",
            "make the light blue",
            "use blue light",
            "use cool light",
            "give it blue light",
            "give it cool light",
            "change the light to blue",
            "change the light to cool",
            "i want blue light",
            "i want cool light",
            "turn the light blue",
        ),
        validation=("the light must become blue", "have the light cool"),
        test=(
            "could you make the light blue",
            "the light should be cool",
            "the light should be blue",
        ),
    ),
}
