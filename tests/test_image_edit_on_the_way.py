"""Maps read off the first steps of an edit, and guidance that follows the map."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from wys.diffusion.conditioning import Guidance
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings
from wys.errors import WysError
from wys.image import resize
from wys.image_edit import edit_image, edit_steps, relevance_map
from wys.masks import Box, Mask
from wys.relevance import RelevanceMap, RelevanceSettings, Source, VerdictSettings
from wys.seeds import normal

TEXT = "make the ball red"
ALWAYS = VerdictSettings(nothing_below=0, noise_ratio=0)
EDIT = EditSettings(guidance=Guidance(3.0, 1.2), steps=4)
ON_THE_WAY = RelevanceSettings(first_steps=2, verdict=ALWAYS)


@pytest.fixture(scope="module")
def headed(tiny_pipeline: Callable[..., Any], tiny_locator: UNet2DConditionModel) -> Editor:
    """The tiny editor with a relevance head and a locator."""
    weight = torch.randn(1, 16, 3, 3, generator=torch.Generator().manual_seed(5))
    head = {"weight": weight, "bias": torch.zeros(1)}
    return Editor(tiny_pipeline(), torch.device("cpu"), head=head, locator=tiny_locator)


def everywhere(images: torch.Tensor) -> Mask:
    size = (images.shape[-2], images.shape[-1])
    return Mask.from_image(torch.ones(len(images), 1, *size, dtype=torch.bool), size)


def flat(relevance: RelevanceMap, value: float) -> RelevanceMap:
    return replace(relevance, values=torch.full_like(relevance.values, value))


@pytest.mark.parametrize("source", ["difference", "head", "both", "locator"])
def test_the_map_is_that_of_the_steps(headed: Editor, images: torch.Tensor, source: Source) -> None:
    how = replace(ON_THE_WAY, source=source)
    found = relevance_map(headed, images, TEXT, how, edit=EDIT, seed=3)
    # By hand: two unguarded DDIM steps of the edit, its predictions compared at each.
    told = headed.condition(resize(images, headed.fit((48, 32))), [TEXT] * 3)
    times = headed.schedule.timesteps(4)
    z = headed.schedule.add_noise(
        told.z0, normal(told.z0.shape[1:], 3, [0, 1, 2], "edit"), times[0]
    )
    total = torch.zeros_like(found.raw)
    for t, t_prev in itertools.pairwise(times[:3]):
        prediction = headed.predict(z, t, told, change=True)
        change = headed.predict_change(z, t, told)
        difference = prediction.difference()
        own = {
            "difference": difference,
            "head": change,
            "both": (difference * change).sqrt(),
            "locator": headed.locate(z, t, told, prediction),
        }
        total += own[source] / 2
        z = headed.schedule.step(z, prediction.guided(EDIT.guidance), t, t_prev)
    assert torch.allclose(found.raw, total, atol=1e-4)
    edit = edit_image(headed, images, TEXT, EDIT, relevance_settings=how, seed=3)
    assert edit.relevance is not None and edit.relevance.spread is None
    assert torch.allclose(edit.relevance.raw, found.raw, atol=1e-5)


@pytest.mark.parametrize("source", ["head", "difference"])
def test_what_lies_outside_keeps_its_bytes(
    headed: Editor, images: torch.Tensor, source: Source
) -> None:
    how = replace(ON_THE_WAY, source=source)
    edit = edit_image(headed, images, TEXT, EDIT, relevance_settings=how)
    region = edit.mask.at((48, 32)).expand(-1, 3, -1, -1)
    assert bool(region.any()) and not bool(region.all())
    assert torch.equal(edit.image[~region], images[~region])
    assert not torch.equal(edit.image, images)


def test_threshold_zero_is_a_plain_edit_number_for_number(
    headed: Editor, images: torch.Tensor
) -> None:
    plain = edit_image(headed, images, TEXT, EDIT, mask=everywhere(images))
    how = replace(ON_THE_WAY, source="head", threshold=0.0)
    assert torch.equal(
        edit_image(headed, images, TEXT, EDIT, relevance_settings=how).image, plain.image
    )


def test_an_item_agrees_with_itself_in_a_batch(headed: Editor, images: torch.Tensor) -> None:
    texts = [TEXT, "remove it", "paint the cube blue"]
    how = replace(ON_THE_WAY, source="both")
    settings = replace(EDIT, guidance=Guidance(3.0, 1.2, soft=0.0))
    together = edit_image(
        headed, images, texts, settings, relevance_settings=how, items=["a", "b", "c"]
    )
    for i, name in enumerate("abc"):
        alone = edit_image(
            headed, images[i], texts[i], settings, relevance_settings=how, items=[name]
        )
        assert (alone.image[0] - together.image[i]).abs().max() < 1e-4


def test_steps_are_counted_once_and_nothing_costs_no_more(
    headed: Editor, images: torch.Tensor
) -> None:
    steps = list(edit_steps(headed, images, TEXT, EDIT, relevance_settings=ON_THE_WAY))
    assert [step.index for step in steps] == [1, 2, 3, 4, 4]
    assert {step.count for step in steps} == {4}
    nothing = replace(ON_THE_WAY, verdict=VerdictSettings(nothing_below=1e6))
    steps = list(edit_steps(headed, images, TEXT, EDIT, relevance_settings=nothing))
    assert [step.index for step in steps] == [1, 2, 2]
    assert steps[-1].result is not None and torch.equal(steps[-1].result.image, images)


def test_a_negative_prompt_leaves_the_map_as_it_is(headed: Editor, images: torch.Tensor) -> None:
    """It is read off first steps without the prompt, which the edit then does not go on from."""
    edit = edit_image(headed, images, TEXT, EDIT, relevance_settings=ON_THE_WAY, negative="blue")
    plain = relevance_map(headed, images, TEXT, ON_THE_WAY, edit=EDIT)
    assert edit.relevance is not None
    assert torch.allclose(edit.relevance.raw, plain.raw, atol=1e-5)
    assert edit.relevance.settings == ON_THE_WAY
    told = edit_image(headed, images, TEXT, EDIT, mask=edit.mask, negative="blue")
    assert torch.allclose(edit.image, told.image, atol=1e-5)
    steps = list(
        edit_steps(headed, images, TEXT, EDIT, relevance_settings=ON_THE_WAY, negative="blue")
    )
    assert [step.index for step in steps] == [1, 2, 3, 4, 4]


def test_an_edit_that_is_over_too_soon(headed: Editor, images: torch.Tensor) -> None:
    with pytest.raises(WysError, match="over before a map is read"):
        edit_image(headed, images, TEXT, replace(EDIT, steps=2), relevance_settings=ON_THE_WAY)
    with pytest.raises(WysError, match="0 first steps or more"):
        RelevanceSettings(first_steps=-1)


def test_the_maps_mask_can_be_corrected(headed: Editor, images: torch.Tensor) -> None:
    box = Box(0, 0, 10, 10)
    edit = edit_image(
        headed,
        images,
        TEXT,
        EDIT,
        relevance_settings=ON_THE_WAY,
        correct=lambda mask: mask.excluding(box),
    )
    assert not edit.mask.at((48, 32))[..., :10, :10].any()
    assert torch.equal(edit.image[..., :10, :10], images[..., :10, :10])


@pytest.mark.parametrize("soft", [0.0, 1.0])
def test_soft_guidance_with_a_full_map_is_hard_guidance(
    headed: Editor, images: torch.Tensor, soft: float
) -> None:
    mask = Mask.from_image(torch.zeros(3, 1, 48, 32, dtype=torch.bool), (48, 32))
    mask = mask.including(Box(4, 4, 20, 40))
    made = relevance_map(headed, images, TEXT)
    softly = replace(EDIT, guidance=replace(EDIT.guidance, soft=soft))
    hard = edit_image(headed, images, TEXT, EDIT, mask=mask)
    full = edit_image(headed, images, TEXT, softly, relevance=flat(made, 1.0), mask=mask)
    assert (hard.image - full.image).abs().max() < 1e-4
    # Without a map guidance has nothing to follow.
    assert torch.equal(edit_image(headed, images, TEXT, softly, mask=mask).image, hard.image)
    # Where the map is 0 the scales are those that soft guidance starts from.
    none = edit_image(headed, images, TEXT, softly, relevance=flat(made, 0.0), mask=mask)
    lowest = edit_image(
        headed, images, TEXT, replace(EDIT, guidance=Guidance(soft, 1.0)), mask=mask
    )
    assert (none.image - lowest.image).abs().max() < 1e-4
    assert (none.image - full.image).abs().max() > 1e-3


def test_zoom_crops_the_map_of_soft_guidance(headed: Editor) -> None:
    images = torch.rand(1, 3, 120, 160, generator=torch.Generator().manual_seed(0))
    mask = Mask.from_image(torch.zeros(1, 1, 120, 160, dtype=torch.bool), (120, 160))
    mask = mask.including(Box(100, 40, 112, 50))
    softly = replace(EDIT, guidance=replace(EDIT.guidance, soft=0.0))
    made = flat(relevance_map(headed, images, TEXT), 1.0)
    edit = edit_image(headed, images, TEXT, softly, relevance=made, mask=mask, zoom=True)
    hard = edit_image(headed, images, TEXT, EDIT, mask=mask, zoom=True)
    assert edit.regions != (Box(0, 0, 160, 120),)
    assert (edit.image - hard.image).abs().max() < 1e-4
