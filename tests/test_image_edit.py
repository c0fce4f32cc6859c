"""The 2D story: maps, edits, zoom, and pixels that stay what they are."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

import wys
from wys.diffusion.conditioning import Guidance
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings
from wys.errors import WysError, WysWarning
from wys.image import from_uint8, to_uint8
from wys.image_edit import EditStep, edit_image, edit_steps, relevance_map
from wys.masks import Box, Mask, composite, zoom_box
from wys.relevance import RelevanceSettings, Source, Space, VerdictSettings
from wys.seeds import normal

TEXT = "make the ball red"
ALWAYS = VerdictSettings(nothing_below=0, noise_ratio=0)


def drawn(box: Box, size: tuple[int, int] = (48, 32), count: int = 3) -> Mask:
    empty = torch.zeros(count, 1, *size, dtype=torch.bool)
    return Mask.from_image(empty, size).including(box)


def test_relevance_is_the_papers_formula(editor: Editor, images: torch.Tensor) -> None:
    found = relevance_map(editor, images, TEXT, seed=4)
    small = wys.image.resize(images, editor.fit((48, 32)))
    told = editor.condition(small, [TEXT] * 3)
    noise = normal(told.z0.shape[1:], 4, [0, 1, 2], "relevance 800 0")
    a = editor.schedule.abar[800]
    z = a.sqrt() * told.z0 + (1 - a).sqrt() * noise
    with torch.no_grad():
        full = editor.unet(torch.cat([z, told.image_latents], 1), 800, told.text).sample
        image = editor.unet(torch.cat([z, told.image_latents], 1), 800, told.null_text).sample
    assert torch.allclose(found.raw, (full - image).abs().sum(1, keepdim=True), atol=1e-5)
    assert found.spread is None
    assert found.values.amin(dim=(1, 2, 3)).tolist() == [0, 0, 0]
    assert found.values.amax(dim=(1, 2, 3)).tolist() == [1, 1, 1]
    assert found.instructions == (TEXT,) * 3


def test_draws_and_timesteps_are_averaged(editor: Editor, images: torch.Tensor) -> None:
    settings = RelevanceSettings(draws=3, timesteps=(0.5, 0.8))
    many = relevance_map(editor, images, TEXT, settings)
    both = [
        relevance_map(editor, images, TEXT, RelevanceSettings(draws=3, timesteps=(t,))).raw
        for t in (0.5, 0.8)
    ]
    assert torch.allclose(many.raw, (both[0] + both[1]) / 2, atol=1e-5)
    assert many.spread is not None
    assert (many.spread > 0).all()


def test_more_draws_keep_the_earlier_ones(editor: Editor, images: torch.Tensor) -> None:
    one, two, three = (
        relevance_map(editor, images, TEXT, RelevanceSettings(draws=n)) for n in (1, 2, 3)
    )
    draws = torch.stack([one.raw, 2 * two.raw - one.raw, 3 * three.raw - 2 * two.raw])
    assert all((draws[i] - draws[j]).abs().max() > 1e-2 for i, j in ((0, 1), (0, 2), (1, 2)))
    # The spread was told apart from the means: it fits only draws that were kept.
    assert two.spread is not None and three.spread is not None
    assert torch.allclose(two.spread, draws[:2].std(dim=0), atol=1e-4)
    assert torch.allclose(three.spread, draws.std(dim=0), atol=1e-4)


def test_spread_is_the_deviation_between_draws(editor: Editor, images: torch.Tensor) -> None:
    two = relevance_map(editor, images, TEXT, RelevanceSettings(draws=2))
    first = relevance_map(editor, images, TEXT, RelevanceSettings(draws=1)).raw
    second = 2 * two.raw - first
    expected = torch.stack([first, second]).std(dim=0)
    assert two.spread is not None
    assert torch.allclose(two.spread, expected, atol=1e-5)


def test_clean_latent_differences(tiny_pipeline: Callable[..., Any], images: torch.Tensor) -> None:
    editor = Editor.from_pipeline(tiny_pipeline())
    eps = relevance_map(editor, images, TEXT, RelevanceSettings()).raw
    x0 = relevance_map(editor, images, TEXT, RelevanceSettings(space="x0")).raw
    a = editor.schedule.abar[800]
    assert torch.allclose(x0, eps * (1 - a).sqrt() / a.sqrt(), rtol=1e-4)


def test_maps_do_not_depend_on_the_batch(editor: Editor, images: torch.Tensor) -> None:
    texts = [TEXT, "remove it", "paint the cube blue"]
    settings = RelevanceSettings(draws=2)
    together = relevance_map(editor, images, texts, settings, items=["a", "b", "c"])
    for i, name in enumerate("abc"):
        alone = relevance_map(editor, images[i], texts[i], settings, items=[name])
        assert (alone.raw[0] - together.raw[i]).abs().max() < 1e-4


def test_the_head_is_a_rival_source(
    tiny_pipeline: Callable[..., Any], images: torch.Tensor
) -> None:
    pipeline = tiny_pipeline()
    head = {"weight": torch.randn(1, 16, 3, 3), "bias": torch.zeros(1)}
    editor = Editor(pipeline, torch.device("cpu"), head=head)
    settings = RelevanceSettings(source="head", normalisation="absolute", draws=2)
    found = relevance_map(editor, images, TEXT, settings)
    assert torch.equal(found.values, found.raw)
    assert found.raw.min() >= 0
    assert found.raw.max() <= 1
    with pytest.raises(WysError, match="no relevance head"):
        relevance_map(Editor.from_pipeline(pipeline), images, TEXT, settings)


@pytest.mark.parametrize("shift", [-9, 9])
def test_a_locator_looks_at_image_edit_and_head(
    tiny_pipeline: Callable[..., Any],
    tiny_locator: UNet2DConditionModel,
    images: torch.Tensor,
    shift: int,
) -> None:
    pipeline = tiny_pipeline()
    head = {"weight": torch.randn(1, 16, 3, 3), "bias": torch.tensor([float(shift)])}
    editor = Editor(pipeline, torch.device("cpu"), head=head, locator=tiny_locator)
    how = RelevanceSettings(source="locator", normalisation="absolute", draws=2)
    found = relevance_map(editor, images, TEXT, how, seed=3)
    told = editor.condition(wys.image.resize(images, editor.fit((48, 32))), [TEXT] * 3)
    answers, kinds = [], set[bool]()
    for draw in range(2):
        noise = normal(told.z0.shape[1:], 3, range(3), f"relevance 800 {draw}")
        z = editor.schedule.add_noise(told.z0, noise, 800)
        given = editor.predict(z, 800, told, ("full",), change=True)
        assert given.full is not None and given.change is not None
        alpha = editor.schedule.abar[800]
        clean = (z - (1 - alpha).sqrt() * given.full) / alpha.sqrt()
        odds = torch.log(given.change / (1 - given.change)).clamp(-6.9068, 6.9068)
        with torch.no_grad():
            logits = tiny_locator(torch.cat([told.z0, clean, odds], 1), 800, told.text).sample
        # Of what is no single object the head's own word counts, of others the lower of both.
        both = torch.minimum(given.change, logits.sigmoid())
        large = [bool((each > 0.5).float().mean() > 0.2) for each in given.change]
        pairs = zip(large, given.change, both, strict=True)
        answers.append(torch.stack([change if whole else lower for whole, change, lower in pairs]))
        kinds |= set(large)
        # Either is the lower one somewhere.
        assert (both < given.change).any() and (both == given.change).any()
    assert torch.allclose(found.raw, torch.stack(answers).mean(0), atol=1e-4)
    assert kinds == ({True} if shift == 9 else {False})
    assert found.spread is not None


def test_a_locator_that_is_missing_or_has_no_head_to_look_at(
    tiny_pipeline: Callable[..., Any], tiny_locator: UNet2DConditionModel, images: torch.Tensor
) -> None:
    head = {"weight": torch.randn(1, 16, 3, 3), "bias": torch.zeros(1)}
    editor = Editor(tiny_pipeline(), torch.device("cpu"), head=head)
    with pytest.raises(WysError, match=r"no locator .*use the relevance source head or diff"):
        relevance_map(editor, images, TEXT, RelevanceSettings(source="locator"))
    with pytest.raises(WysError, match=r"a locator and no relevance head"):
        Editor(tiny_pipeline(), torch.device("cpu"), locator=tiny_locator)


def test_of_both_sources_only_the_difference_has_a_space(
    tiny_pipeline: Callable[..., Any], images: torch.Tensor
) -> None:
    head = {"weight": torch.randn(1, 16, 3, 3), "bias": torch.zeros(1)}
    editor = Editor(tiny_pipeline(), torch.device("cpu"), head=head)

    def raw(source: Source, space: Space) -> torch.Tensor:
        return relevance_map(editor, images, TEXT, RelevanceSettings(source, space=space)).raw

    assert torch.equal(raw("head", "x0"), raw("head", "eps"))
    expected = (raw("difference", "x0") * raw("head", "x0")).sqrt()
    assert torch.allclose(raw("both", "x0"), expected, rtol=1e-4)


def test_a_negative_prompt_that_cannot_count_is_told(editor: Editor, images: torch.Tensor) -> None:
    plain = EditSettings(Guidance(text=1.0, image=1.0), steps=1)
    with pytest.warns(WysWarning, match="nothing is steered away from"):
        idle = edit_image(editor, images, TEXT, plain, negative="blue", force=True)
    assert torch.equal(idle.image, edit_image(editor, images, TEXT, plain, force=True).image)
    guided = replace(plain, guidance=Guidance(text=4.0, image=1.0))
    counts = edit_image(editor, images, TEXT, guided, negative="blue", force=True)
    assert not torch.equal(counts.image, edit_image(editor, images, TEXT, guided, force=True).image)


@pytest.mark.parametrize("size", [(48, 32), (37, 61), (130, 97)])
@pytest.mark.parametrize("feather", [0, 5])
def test_pixels_outside_the_mask_keep_their_bytes(
    editor: Editor, size: tuple[int, int], feather: float
) -> None:
    image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    mask = drawn(Box(5, 7, 25, 30), size, 1).feathered(feather)
    edit = edit_image(editor, from_uint8(image), TEXT, mask=mask)
    outside = ~mask.at(size).expand_as(image)
    assert torch.equal(to_uint8(edit.image)[outside], image[outside])
    assert not torch.equal(to_uint8(edit.image), image)
    assert edit.largest_change_outside.tolist() == [0]
    assert 0 < edit.changed_share.item() <= 20 * 23 / (size[0] * size[1]) + 1e-6


def test_the_map_decides_where(editor: Editor, images: torch.Tensor) -> None:
    settings = RelevanceSettings(verdict=ALWAYS)
    edit = edit_image(editor, images, TEXT, relevance_settings=settings)
    assert edit.relevance is not None
    assert torch.equal(edit.mask.at((48, 32)), edit.relevance.mask(0.5).at((48, 32)))
    assert edit.largest_change_outside.tolist() == [0, 0, 0]
    assert edit.edited == (True, True, True)
    # The map made before serves for other thresholds and guidance, and changes nothing else.
    again = edit_image(editor, images, TEXT, relevance=edit.relevance)
    assert torch.equal(again.image, edit.image)
    wider = edit_image(editor, images, TEXT, mask=edit.relevance.mask(0.2))
    assert (wider.changed_share >= edit.changed_share).all()


def test_threshold_zero_is_a_plain_edit(editor: Editor, images: torch.Tensor) -> None:
    everywhere = RelevanceSettings(threshold=0.0, verdict=ALWAYS)
    edit = edit_image(editor, images, TEXT, relevance_settings=everywhere)
    assert edit.mask.at((48, 32)).all()
    whole = drawn(Box(0, 0, 32, 48))
    assert torch.equal(edit.image, edit_image(editor, images, TEXT, mask=whole).image)


def test_edits_do_not_depend_on_the_batch(editor: Editor, images: torch.Tensor) -> None:
    texts = [TEXT, "remove it", "paint the cube blue"]
    mask = drawn(Box(4, 4, 20, 40))
    together = edit_image(editor, images, texts, mask=mask, seed=2, items=[5, 6, 7])
    for i in range(3):
        alone = edit_image(
            editor, images[i], texts[i], mask=mask.select([i]), seed=2, items=[5 + i]
        )
        assert (alone.image[0] - together.image[i]).abs().max() < 1e-4
    other = edit_image(editor, images, texts, mask=mask, seed=3, items=[5, 6, 7])
    assert not torch.allclose(other.image, together.image)


def test_nothing_to_edit_returns_the_input(editor: Editor, images: torch.Tensor) -> None:
    settings = RelevanceSettings(verdict=VerdictSettings(nothing_below=1e6))
    edit = edit_image(editor, images, TEXT, relevance_settings=settings)
    assert edit.relevance is not None
    assert edit.relevance.verdicts == ("nothing to edit",) * 3
    assert torch.equal(edit.image, images)
    assert edit.edited == (False,) * 3
    assert not edit.mask.at((48, 32)).any()
    forced = edit_image(editor, images, TEXT, relevance_settings=settings, force=True)
    assert forced.edited == (True,) * 3
    given = edit_image(editor, images, TEXT, relevance=edit.relevance, mask=drawn(Box(0, 0, 9, 9)))
    assert given.edited == (True,) * 3


def test_one_item_without_an_edit_does_not_disturb_the_others(
    editor: Editor, images: torch.Tensor
) -> None:
    mask = drawn(Box(4, 4, 20, 40))
    full = edit_image(editor, images, TEXT, mask=mask)
    partly = Mask.from_image(mask.at((48, 32)), (48, 32)).emptied([False, True, False])
    edit = edit_image(editor, images, TEXT, mask=partly)
    assert edit.edited == (True, False, True)
    assert torch.equal(edit.image[1], images[1])
    assert (edit.image[[0, 2]] - full.image[[0, 2]]).abs().max() < 1e-4


def test_steps_come_one_by_one_and_end_with_the_result(
    editor: Editor, images: torch.Tensor
) -> None:
    settings = wys.EditSettings(steps=4)
    steps: list[EditStep] = list(
        edit_steps(editor, images, TEXT, settings, mask=drawn(Box(0, 0, 9, 9)))
    )
    assert [step.index for step in steps] == [1, 2, 3, 4, 4]
    assert {step.count for step in steps} == {4}
    assert [step.result is None for step in steps] == [True] * 4 + [False]
    assert steps[0].latents is not None
    nowhere = Mask.from_image(torch.zeros(3, 1, 48, 32, dtype=torch.bool), (48, 32))
    (only,) = edit_steps(editor, images, TEXT, mask=nowhere)
    assert only.result is not None
    assert torch.equal(only.result.image, images)


def test_a_negative_prompt_changes_the_edit_and_not_the_map(
    editor: Editor, images: torch.Tensor
) -> None:
    settings = RelevanceSettings(verdict=ALWAYS)
    plain = edit_image(editor, images, TEXT, relevance_settings=settings)
    negative = edit_image(editor, images, TEXT, relevance_settings=settings, negative="blue")
    assert plain.relevance is not None
    assert negative.relevance is not None
    assert torch.allclose(plain.relevance.raw, negative.relevance.raw, atol=1e-6)
    assert not torch.allclose(plain.image, negative.image)


def test_zoom_edits_a_crop(editor: Editor) -> None:
    images = torch.rand(2, 3, 120, 160, generator=torch.Generator().manual_seed(0))
    box = Box(100, 40, 112, 50)
    mask = drawn(box, (120, 160), 2)
    edit = edit_image(editor, images, TEXT, mask=mask, zoom=True)
    for region in edit.regions:
        assert region.left <= box.left
        assert region.right >= box.right
        assert region.right - region.left < 80
    outside = ~mask.at((120, 160)).expand_as(images)
    assert torch.equal(edit.image[outside], images[outside])
    assert (edit.image != images).any(dim=1)[:, 40:50, 100:112].float().mean() > 0.9
    # The crop is an image like any other.
    region = edit.regions[0]
    part = images[..., region.top : region.bottom, region.left : region.right]
    alone = edit_image(editor, part, TEXT, mask=mask.crop(region))
    inside = edit.image[..., region.top : region.bottom, region.left : region.right]
    assert (alone.image - inside).abs().max() < 1e-4
    plain = edit_image(editor, images, TEXT, mask=mask)
    assert plain.regions == (Box(0, 0, 160, 120),) * 2
    assert not torch.allclose(plain.image, edit.image)


def test_zoom_box() -> None:
    region = torch.zeros(100, 200, dtype=torch.bool)
    region[2:12, 150:160] = True
    box = zoom_box(region, 32)
    assert box == Box(145, 0, 165, 20)
    # Enough context for a tiny region, and no zoom where it would gain nothing.
    region[:] = False
    region[50, 100] = True
    assert zoom_box(region, 64) == Box(84, 34, 116, 66)
    assert zoom_box(torch.ones(100, 200, dtype=torch.bool), 64) == Box(0, 0, 200, 100)
    assert zoom_box(region, 400) == Box(0, 0, 200, 100)


def test_composite() -> None:
    mask = drawn(Box(2, 2, 10, 10), (12, 12), 1).feathered(2)
    one, two = torch.rand(2, 1, 3, 12, 12)
    out = composite(one, two, mask)
    assert torch.equal(out[..., 4:8, 4:8], two[..., 4:8, 4:8])
    assert torch.allclose(out[..., 2, 5], (one[..., 2, 5] + two[..., 2, 5]) / 2)
    assert torch.equal(out[..., :2, :], one[..., :2, :])


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_one_sentence(editor: Editor, images: torch.Tensor) -> None:
    found = relevance_map(editor, images, TEXT)
    for arguments, said in [
        ((images, ""), "instruction is empty"),
        ((images, [TEXT]), "as many instructions"),
        ((images[0, 0], TEXT), r"images are \[b, 3, h, w\]"),
    ]:
        with pytest.raises(WysError, match=said):
            edit_image(editor, *arguments)  # type: ignore[arg-type]
    with pytest.raises(WysError, match="relevance map is for 3 images"):
        edit_image(editor, images[:2], TEXT, relevance=found)
    with pytest.raises(WysError, match="mask is for 1 images of 30 x 48"):
        edit_image(editor, images[:1], TEXT, mask=drawn(Box(0, 0, 9, 9), (48, 30), 1))
    with pytest.raises(WysError, match="as many instructions and items"):
        relevance_map(editor, images, TEXT, items=[1])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "wrong",
    [lambda x: (x * 255).byte(), lambda x: x * 255, lambda x: x - 1, lambda x: x * math.nan],
)
def test_images_of_another_range_are_refused(
    editor: Editor, images: torch.Tensor, wrong: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    with pytest.raises(WysError, match=r"RGB in \[0, 1\]; divide 8-bit ones by 255"):
        relevance_map(editor, wrong(images), TEXT)


def test_numbers_that_are_none_are_one_sentence(
    tiny_pipeline: Callable[..., Any], images: torch.Tensor
) -> None:
    pipeline = tiny_pipeline()
    with torch.no_grad():
        pipeline.unet.conv_out.bias.fill_(float("nan"))
    with pytest.raises(WysError, match="not numbers"):
        relevance_map(Editor.from_pipeline(pipeline), images, TEXT)
    with pytest.raises(WysError, match="not numbers"):
        edit_image(Editor.from_pipeline(pipeline), images, TEXT, mask=drawn(Box(0, 0, 9, 9)))


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_tensor_and_no_mask_is_named(editor: Editor, images: torch.Tensor) -> None:
    for wrong in (images.numpy(), Image.new("RGB", (8, 8))):
        with pytest.raises(WysError, match=r"not (numpy\.ndarray|PIL\.Image); wys"):
            edit_image(editor, wrong, TEXT)  # type: ignore[arg-type]
    region = torch.ones(3, 1, 48, 32, dtype=torch.bool)
    for wrong in (region, region.numpy()):
        with pytest.raises(WysError, match=r"wys\.Mask, not (torch\.Tensor|numpy\.ndarray)"):
            edit_image(editor, images, TEXT, mask=wrong)  # type: ignore[arg-type]


def test_images_with_a_gradient_are_edited_without(editor: Editor, images: torch.Tensor) -> None:
    learnt = images[:1].clone().requires_grad_()
    mask = drawn(Box(4, 4, 20, 20), count=1)
    edit = edit_image(editor, learnt, TEXT, wys.EditSettings(steps=1), mask=mask)
    assert not edit.image.requires_grad and not edit.original.requires_grad
    assert not relevance_map(editor, learnt, TEXT).values.requires_grad
