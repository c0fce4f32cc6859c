"""Edges that follow the image: against windows solved one by one, and where an edge ends up."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wys.edges import EPSILON, follow_edges
from wys.errors import WysError
from wys.relevance import MAX_REACH, RelevanceSettings


def slowly(values: Tensor, image: Tensor, reach: int) -> Tensor:
    """The guided filter of one map and image, window by window as the paper states it."""
    height, width = image.shape[-2:]
    fine = F.interpolate(values[None], size=(height, width), mode="bilinear")[0, 0].double()
    image = image.double()
    total, count = torch.zeros_like(fine), torch.zeros_like(fine)
    slopes, offsets = torch.zeros(3, height, width).double(), torch.zeros_like(fine)
    windows = {}
    for y in range(height):
        for x in range(width):
            rows = slice(max(0, y - reach), y + reach + 1)
            columns = slice(max(0, x - reach), x + reach + 1)
            windows[y, x] = rows, columns
            colours = image[:, rows, columns].reshape(3, -1)
            level = fine[rows, columns].reshape(-1)
            covariance = torch.cov(colours, correction=0) + EPSILON * torch.eye(3).double()
            centred = colours - colours.mean(dim=1, keepdim=True)
            together = (centred * (level - level.mean())).mean(dim=1)
            slopes[:, y, x] = torch.linalg.solve(covariance, together)
            offsets[y, x] = level.mean() - slopes[:, y, x] @ colours.mean(dim=1)
    for (y, x), (rows, columns) in windows.items():
        slope = slopes[:, rows, columns].mean(dim=(1, 2))
        total[y, x] = slope @ image[:, y, x] + offsets[rows, columns].mean()
        count[y, x] = 1
    assert bool((count == 1).all())
    return total.clamp(0, 1)


@given(st.integers(0, 1000), st.integers(1, 3), st.sampled_from([(3, 4), (4, 4), (5, 3)]))
@settings(max_examples=10, deadline=None)
def test_it_is_the_guided_filter(seed: int, radius: int, size: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(seed)
    values = torch.rand(1, *size, generator=draw)
    image = torch.rand(3, 2 * size[0], 2 * size[1], generator=draw)
    found = follow_edges(values[None], image[None], radius / 2)[0, 0]
    assert torch.allclose(found.double(), slowly(values, image, radius), atol=1e-4)


def test_an_edge_moves_to_that_of_the_image() -> None:
    truth = torch.zeros(1, 1, 64, 64)
    truth[..., 14:43, 21:50] = 1  # nowhere on the borders of the map's pixels
    image = torch.where(truth > 0, torch.tensor([0.8, 0.2, 0.2]).reshape(1, 3, 1, 1), 0.5)
    values = F.avg_pool2d(truth, 4)
    enlarged = F.interpolate(values, size=(64, 64), mode="bilinear") >= 0.5
    followed = follow_edges(values, image, 1.25) >= 0.5
    assert bool((followed == (truth > 0)).all())
    assert not bool((enlarged == (truth > 0)).all())


def test_where_the_image_says_nothing_the_map_is_only_smoothed() -> None:
    values = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    plain = follow_edges(values, torch.full((2, 3, 24, 24), 0.3), 1.0)
    mean = F.interpolate(values, size=(24, 24), mode="bilinear")
    for _ in range(2):
        mean = F.avg_pool2d(mean, 9, 1, 4, count_include_pad=False)
    assert torch.allclose(plain, mean, atol=1e-5)
    level = torch.full((1, 1, 6, 6), 0.7)
    level = follow_edges(level, torch.rand(1, 3, 24, 24), 2.0)
    assert torch.allclose(level, torch.tensor(0.7), atol=1e-5)


def test_an_item_alone_agrees_with_itself_in_a_batch() -> None:
    values, images = torch.rand(3, 1, 8, 8), torch.rand(3, 3, 32, 32)
    together = follow_edges(values, images, 1.25)
    alone = [follow_edges(values[i : i + 1], images[i : i + 1], 1.25) for i in range(3)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("radius", [-0.1, MAX_REACH + 1, float("nan")])
def test_a_reach_out_of_range_is_refused(radius: float) -> None:
    with pytest.raises(WysError, match="led along edges by"):
        RelevanceSettings(edges=radius)
