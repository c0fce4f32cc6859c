"""Volume rendering against a slow loop and against integrals in closed form."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wys.nerf.volume import accumulate, rendering_weights, transmittance


def _intervals(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.rand(4, 7, generator=draw).double() ** 4 * 20,
        torch.rand(4, 7, generator=draw).double(),
    )


@given(st.integers(0, 10_000), st.booleans())
@settings(max_examples=30)
def test_weights_are_those_of_the_slow_loop(seed: int, closed: bool) -> None:
    density, lengths = _intervals(seed)
    found = rendering_weights(density, lengths, closed=closed)
    for row in range(4):
        light = 1.0
        for i in range(7):
            alpha = 1 - math.exp(-float(density[row, i] * lengths[row, i]))
            alpha = 1.0 if closed and i == 6 else alpha
            assert float(found[row, i]) == pytest.approx(light * alpha, abs=1e-9)
            light *= 1 - alpha
        assert float(found[row].sum()) == pytest.approx(1 - light, abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 64])
def test_a_slab_of_constant_density_lets_exp_minus_sigma_d_through(count: int) -> None:
    lengths = torch.full((1, count), 1.7 / count, dtype=torch.double)
    density = torch.full((1, count), 0.8, dtype=torch.double)
    light = transmittance(density, lengths)
    edges = torch.linspace(0, 1.7, count + 1, dtype=torch.double)
    assert torch.allclose(light[0], torch.exp(-0.8 * edges))
    opacity = rendering_weights(density, lengths, closed=False).sum()
    assert float(opacity) == pytest.approx(1 - math.exp(-0.8 * 1.7))


def test_the_mean_depth_of_a_fog_without_end_is_one_over_its_density() -> None:
    edges = torch.linspace(0, 40, 4001, dtype=torch.double)
    weights = rendering_weights(
        torch.full((1, 4000), 2.0, dtype=torch.double), edges.diff()[None], closed=False
    )
    middles = (edges[1:] + edges[:-1]) / 2
    assert float((weights * middles).sum()) == pytest.approx(0.5, rel=1e-4)


def test_gradients_are_right() -> None:
    density, lengths = _intervals(1)
    values = torch.rand(4, 7, 3, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    density.requires_grad_()
    values.requires_grad_()

    def shown(density: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        return accumulate(rendering_weights(density, lengths, closed=False), values)

    assert torch.autograd.gradcheck(shown, (density, values))


def test_what_lies_behind_something_opaque_is_not_seen() -> None:
    density = torch.tensor([[0.0, 1e6, 5.0]])
    weights = rendering_weights(density, torch.ones(1, 3), closed=False)
    assert torch.allclose(weights, torch.tensor([[0.0, 1.0, 0.0]]))
