"""Threshold and strokes from the browser, and the mask they make."""

from typing import Any

import pytest
import torch

from wys.apps.page.marks import MOST_POINTS, Marks
from wys.errors import WysError
from wys.relevance import RelevanceMap, RelevanceSettings


@pytest.fixture
def relevance() -> RelevanceMap:
    """A ramp from left (0) to right (1), 6 x 8 cells for 48 x 64 pixels."""
    values = torch.linspace(0, 1, 8).expand(1, 1, 6, 8).contiguous()
    return RelevanceMap(values, values, None, ("paint it",), (48, 64), RelevanceSettings())


def stroke(adds: bool, *points: tuple[float, float], radius: float = 4) -> dict[str, Any]:
    return {"adds": adds, "radius": radius, "points": [list(point) for point in points]}


def test_without_marks_the_mask_is_the_maps(relevance: RelevanceMap) -> None:
    assert Marks.read(None) == Marks.read({"threshold": None, "strokes": []}) == Marks()
    mask = Marks().mask(relevance)
    assert torch.equal(mask.at((48, 64)), relevance.mask().at((48, 64)))


def test_the_threshold_is_the_visitors(relevance: RelevanceMap) -> None:
    mask = Marks.read({"threshold": 0.75}).mask(relevance)
    assert torch.equal(mask.at((48, 64)), relevance.mask(0.75).at((48, 64)))


def test_strokes_add_and_take_in_their_order(relevance: RelevanceMap) -> None:
    marks = Marks.read(
        {
            "strokes": [
                stroke(True, (5, 24), (20, 24)),
                stroke(False, (50, 10)),
                stroke(True, (8, 24)),
            ]
        }
    )
    region = marks.mask(relevance).at((48, 64))[0, 0]
    assert region[24, 5] and region[24, 12] and region[24, 20], "along the whole line"
    assert not region[24 + 6, 12] and not region[10, 12], "no wider than the brush"
    assert not region[10, 50] and region[30, 50], "taken away inside the map's mask"
    later = Marks.read({"strokes": [stroke(True, (8, 24)), stroke(False, (8, 24))]})
    assert not later.mask(relevance).at((48, 64))[0, 0, 24, 8]


def test_strokes_may_leave_the_image(relevance: RelevanceMap) -> None:
    marks = Marks.read({"strokes": [stroke(True, (-30, 24), (2, 24), (2, 9000))]})
    assert marks.mask(relevance).at((48, 64))[0, 0, 40, 2]


@pytest.mark.parametrize(
    "value",
    [
        "text",
        {"threshold": "high"},
        {"strokes": [{"adds": True}]},
        {"strokes": [stroke(True, (float("nan"), 0))]},
        {"strokes": [stroke(True, (1e300, 0))]},
        {"strokes": [stroke(True, *[(0, 0)] * (MOST_POINTS + 1))]},
        {"strokes": 7},
    ],
    ids=["text", "threshold", "parts", "nan", "far", "many", "number"],
)
def test_what_is_no_mark_is_a_sentence(value: Any) -> None:
    with pytest.raises(WysError):
        Marks.read(value)
