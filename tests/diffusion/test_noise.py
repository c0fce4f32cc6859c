"""Guidance and relevance difference on one triple."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wys.diffusion.conditioning import Guidance
from wys.diffusion.noise import NoisePrediction
from wys.errors import WysError

scales = st.sampled_from([0.0, 0.5, 0.9, 1.0, 1.5, 7.5])


@given(scales, scales)
def test_skipping_branches_equals_the_three_branch_formula(text: float, image: float) -> None:
    generator = torch.Generator().manual_seed(0)
    full, with_image, none = torch.randn(3, 2, 4, 5, 5, generator=generator)
    guidance = Guidance(text, image)
    expected = none + image * (with_image - none) + text * (full - with_image)
    run = {"full": full, "image": with_image, "none": none}
    only = NoisePrediction(**{branch: run[branch] for branch in guidance.branches})
    assert torch.allclose(only.guided(guidance), expected, atol=1e-5)
    assert sum(guidance.coefficients.values()) == pytest.approx(1)


def test_branches_without_weight_are_not_asked_for() -> None:
    assert Guidance(7.5, 1.0).branches == ("full", "image")
    assert Guidance(1.0, 1.0).branches == ("full",)
    assert Guidance(1.5, 1.5).branches == ("full", "none")
    assert Guidance(0.0, 1.0).branches == ("image",)
    assert Guidance(7.5, 1.5).branches == ("full", "image", "none")


def test_difference_sums_over_channels() -> None:
    full, image = torch.randn(2, 3, 4, 5, 6)
    difference = NoisePrediction(full, image).difference()
    assert difference.shape == (3, 1, 5, 6)
    expected = sum(abs(float(full[1, c, 2, 3] - image[1, c, 2, 3])) for c in range(4))
    assert difference[1, 0, 2, 3].item() == pytest.approx(expected, rel=1e-5)


def test_a_missing_branch_is_an_error() -> None:
    prediction = NoisePrediction(full=torch.ones(1, 4, 2, 2))
    with pytest.raises(ValueError, match="'image' was not predicted"):
        prediction.difference()
    with pytest.raises(WysError, match="finite"):
        Guidance(float("nan"), 1)
