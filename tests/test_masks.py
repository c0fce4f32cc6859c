"""Laws of masks that hold at every threshold and size."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from wys.masks import Box, Mask

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
LEVELS = st.floats(0, 1)
BOXES = st.lists(st.sampled_from([Box(0, 0, 3, 2), Box(2, 1, 8, 6), Box(5, 4, 6, 5)]), max_size=2)


@st.composite
def drawn_masks(draw: st.DrawFn) -> Mask:
    """Three masks of 6 x 8 pixels, of scores at any resolution, grown, soft and corrected."""
    draws = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    scores = torch.rand(3, 1, *draw(SIZES), generator=draws)
    threshold = torch.tensor(draw(st.lists(LEVELS, min_size=3, max_size=3)))
    mask = Mask(scores, threshold, (6, 8), softness=draw(st.sampled_from([0.0, 0.2])))
    mask = mask.grown(draw(st.sampled_from([0.0, 1.0])))
    return mask.including(*draw(BOXES)).excluding(*draw(BOXES))


@given(drawn_masks(), SIZES, LEVELS)
def test_a_higher_threshold_never_adds_a_cell(
    mask: Mask, size: tuple[int, int], level: float
) -> None:
    plain = replace(mask, softness=0.0)
    higher = replace(plain, threshold=plain.threshold.clamp(min=level))
    assert not bool((higher.at(size) & ~plain.at(size)).any())


@given(drawn_masks(), SIZES, st.lists(st.integers(0, 2), min_size=1, max_size=4))
def test_masks_of_some_images_are_those_of_all_at_every_size(
    mask: Mask, size: tuple[int, int], some: list[int]
) -> None:
    assert torch.equal(mask.select(some).at(size), mask.at(size)[some])
    assert torch.equal(mask.select(some).alpha(), mask.alpha()[some])
