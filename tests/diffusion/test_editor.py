"""Conditioning, prediction and decoding of a tiny editor."""

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel

from wys.diffusion.editor import Editor
from wys.diffusion.noise import NoisePrediction
from wys.diffusion.sampler import EditSettings, denoise
from wys.diffusion.settings import EditorSettings
from wys.errors import WysError, WysWarning
from wys.image import to_model

TEXT = "make the ball red"


def test_conditioning_scales_one_latent_and_not_the_other(
    editor: Editor, images: torch.Tensor
) -> None:
    told = editor.condition(images, [TEXT] * 3)
    mode = editor.vae.encode(to_model(images)).latent_dist.mode()
    assert torch.allclose(told.image_latents, mode, atol=1e-6)
    assert torch.allclose(told.z0, mode * 0.7, atol=1e-6)
    assert told.text.shape == told.null_text.shape == (3, 16, 16)
    assert not torch.allclose(told.text, told.null_text)
    assert len(told.select([2, 2, 0])) == 3


def test_conditioning_does_not_depend_on_the_batch(editor: Editor, images: torch.Tensor) -> None:
    texts = [TEXT, "remove it", "paint the cube blue"]
    together = editor.condition(images, texts)
    for i in range(3):
        alone = editor.condition(images[i : i + 1], texts[i : i + 1])
        for name in ("z0", "image_latents", "text", "null_text"):
            assert torch.allclose(getattr(together, name)[i], getattr(alone, name)[0], atol=1e-5)


def test_the_negative_prompt_stands_for_no_instruction(
    editor: Editor, images: torch.Tensor
) -> None:
    plain = editor.condition(images, [TEXT] * 3)
    negative = editor.condition(images, [TEXT] * 3, negative="blue")
    assert torch.equal(negative.null_text, editor.encode_text(["blue"] * 3))
    assert torch.equal(plain.null_text, editor.encode_text([""] * 3))
    assert torch.equal(plain.text, negative.text)


def test_bad_instructions(editor: Editor, images: torch.Tensor) -> None:
    for empty in ("", "  \n"):
        with pytest.raises(WysError, match="instruction is empty"):
            editor.condition(images, [TEXT, TEXT, empty])
    with pytest.raises(WysError, match="3 images need as many"):
        editor.condition(images, [TEXT])


def test_a_long_instruction_is_cut_with_a_warning_that_says_where(
    editor: Editor, images: torch.Tensor
) -> None:
    words = "make the ball red turn the cube blue remove it paint metal green sphere"
    with pytest.warns(WysWarning, match=r'after ".*remove it paint metal", leaving out "green s'):
        cut = editor.condition(images[:1], [words]).text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = editor.condition(images[:1], [words.removesuffix(" green sphere")]).text
    assert torch.equal(cut, kept)


@pytest.mark.parametrize("max_batch", [None, 1, 4])
def test_branches_are_independent_of_each_other_and_of_chunks(
    pipeline: StableDiffusionInstructPix2PixPipeline, images: torch.Tensor, max_batch: int | None
) -> None:
    editor = Editor.from_pipeline(pipeline, max_batch=max_batch)
    told = editor.condition(images, [TEXT] * 3)
    z = torch.randn(told.z0.shape, generator=torch.Generator().manual_seed(0))
    everything = editor.predict(z, 500, told)
    unet = pipeline.unet
    with torch.no_grad():
        none = unet(torch.cat([z, torch.zeros_like(z)], 1), 500, told.null_text).sample
        image = unet(torch.cat([z, told.image_latents], 1), 500, told.null_text).sample
        full = unet(torch.cat([z, told.image_latents], 1), 500, told.text).sample
    for name, expected in {"none": none, "image": image, "full": full}.items():
        assert torch.allclose(getattr(everything, name), expected, atol=1e-5)
        alone = editor.predict(z, torch.tensor([500] * 3), told, (name,))
        assert torch.allclose(getattr(alone, name), expected, atol=1e-5)
    assert editor.predict(z, 500, told, ("full",)).none is None


def test_timesteps_may_differ_in_a_batch(editor: Editor, images: torch.Tensor) -> None:
    told = editor.condition(images, [TEXT] * 3)
    z = torch.randn(told.z0.shape)
    mixed = editor.predict(z, torch.tensor([100, 500, 900]), told, ("full",)).branch("full")
    alone = editor.predict(z, 500, told, ("full",)).branch("full")
    assert torch.allclose(mixed[1], alone[1], atol=1e-5)
    assert not torch.allclose(mixed[0], alone[0], atol=1e-3)


def test_v_is_converted_to_noise(tiny_pipeline: Callable[..., Any], images: torch.Tensor) -> None:
    one, two = (Editor.from_pipeline(tiny_pipeline(kind)) for kind in ("epsilon", "v_prediction"))
    told = one.condition(images, [TEXT] * 3)
    z = torch.randn(told.z0.shape)
    a = one.schedule.abar[300]
    v = one.predict(z, 300, told, ("full",)).branch("full")  # the same network, read as v
    expected = a.sqrt() * v + (1 - a).sqrt() * z
    assert torch.allclose(two.predict(z, 300, told, ("full",)).branch("full"), expected, atol=1e-5)


def test_the_relevance_head_reads_the_features_of_the_last_convolution(
    pipeline: StableDiffusionInstructPix2PixPipeline, images: torch.Tensor
) -> None:
    generator = torch.Generator().manual_seed(0)
    head = {"weight": torch.randn(1, 16, 3, 3, generator=generator), "bias": torch.ones(1)}
    editor = Editor(pipeline, torch.device("cpu"), head=head, max_batch=2)
    told = editor.condition(images, [TEXT] * 3)
    z = torch.randn(told.z0.shape)
    probability = editor.predict_change(z, 500, told)
    assert probability.shape == (3, 1, 12, 8)
    # The output convolution is linear: with its weights as the head, the head gives the output.
    output = editor.predict(z, 500, told, ("full",)).branch("full")
    conv = pipeline.unet.conv_out
    copied = {"weight": conv.weight[:1].detach(), "bias": conv.bias[:1].detach()}
    same = Editor(pipeline, torch.device("cpu"), head=copied).predict_change(z, 500, told)
    assert torch.allclose(same, output[:, :1].sigmoid(), atol=1e-5)
    assert not pipeline.unet.conv_out._forward_pre_hooks
    with pytest.raises(WysError, match="no relevance head"):
        Editor.from_pipeline(pipeline).predict_change(z, 500, told)


def test_decoding(editor: Editor, images: torch.Tensor) -> None:
    told = editor.condition(images, [TEXT] * 3)
    decoded = editor.decode(told.z0)
    assert decoded.shape == images.shape
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    with torch.no_grad():
        expected = editor.vae.decode(told.image_latents).sample
    assert torch.allclose(decoded, ((expected + 1) / 2).clamp(0, 1), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_locator_answers_a_batch_as_it_does_each(
    tiny_pipeline: Callable[..., Any],
    tiny_locator: UNet2DConditionModel,
    images: torch.Tensor,
    dtype: torch.dtype,
) -> None:
    locator = copy.deepcopy(tiny_locator).to(dtype)
    cpu, head = torch.device("cpu"), {"weight": torch.randn(1, 16, 3, 3), "bias": torch.zeros(1)}
    whole = Editor(tiny_pipeline(), cpu, head=head, locator=locator)
    parts = Editor(tiny_pipeline(), cpu, head=head, locator=locator, max_batch=2)
    told = whole.condition(images, [TEXT, "remove it", TEXT])
    t = torch.tensor([800, 999, 500])
    z = whole.schedule.add_noise(told.z0, torch.randn(told.z0.shape), t)
    given = whole.predict(z, t, told, ("full",), change=True)
    found = whole.locate(z, t, told, given)
    assert found.dtype == torch.float32 and found.shape == (3, 1, 12, 8)
    least = 1e-4 if dtype == torch.float32 else 2e-2
    assert (parts.locate(z, t, told, given) - found).abs().max() < least
    assert given.full is not None and given.change is not None
    for i in range(3):
        one = NoisePrediction(full=given.full[i : i + 1], change=given.change[i : i + 1])
        alone = whole.locate(z[i : i + 1], int(t[i]), told.select([i]), one)
        assert (alone - found[i]).abs().max() < least
    # Without a head it is what another source is.
    with pytest.raises(WysError, match="use the relevance source difference"):
        Editor(tiny_pipeline(), cpu).locate(z, t, told, given)


def test_sizes(pipeline: StableDiffusionInstructPix2PixPipeline) -> None:
    editor = Editor.from_pipeline(pipeline, settings=EditorSettings(size=64))
    assert editor.native_size == 64
    # Multiples of 4, and at least 8: the network has one halving more.
    assert editor.fit((64, 64)) == (64, 64)
    assert editor.fit((300, 400)) == (48, 64)
    assert editor.fit((270, 480)) == (36, 64)
    assert editor.fit((2000, 100)) == (64, 8)
    assert editor.fit((10, 10)) == (64, 64)


def test_a_live_pipeline_is_not_changed(
    tiny_pipeline: Callable[..., Any], images: torch.Tensor
) -> None:
    pipeline = tiny_pipeline()
    before = json.dumps(dict(pipeline.scheduler.config), default=str)
    weights = copy.deepcopy(pipeline.unet.state_dict())
    state = copy.deepcopy(vars(pipeline.scheduler))
    editor = Editor.from_pipeline(pipeline)
    told = editor.condition(images, [TEXT] * 3)
    mask = torch.ones(3, 1, 12, 8, dtype=torch.bool)
    for step in denoise(editor, told, mask, torch.randn(told.z0.shape), EditSettings(steps=3)):
        assert torch.isfinite(step.latents).all()
    assert json.dumps(dict(pipeline.scheduler.config), default=str) == before
    after = vars(pipeline.scheduler)
    assert all(
        torch.equal(after[k], state[k])
        if isinstance(state[k], torch.Tensor)
        else after[k] == state[k]
        for k in state
    )
    assert all(
        torch.equal(value, weights[name]) for name, value in pipeline.unet.state_dict().items()
    )
    assert all(p.requires_grad for p in pipeline.unet.parameters())


def test_another_scheduler_in_the_pipeline_is_as_good(
    tiny_pipeline: Callable[..., Any], images: torch.Tensor
) -> None:
    from diffusers import EulerAncestralDiscreteScheduler

    ddim, euler = tiny_pipeline(), tiny_pipeline()
    euler.scheduler = EulerAncestralDiscreteScheduler.from_config(ddim.scheduler.config)
    one, two = Editor.from_pipeline(ddim), Editor.from_pipeline(euler)
    assert one.schedule.timesteps(20) == two.schedule.timesteps(20)
    assert torch.equal(one.schedule.abar, two.schedule.abar)


def test_a_fingerprint_tells_weights_apart(
    tiny_pipeline: Callable[..., Any], editor: Editor, editor_directory: Path
) -> None:
    assert Editor.load(str(editor_directory), device="cpu").fingerprint == editor.fingerprint
    other = tiny_pipeline()
    with torch.no_grad():
        next(other.vae.decoder.parameters()).mul_(1.01)
    assert Editor.from_pipeline(other).fingerprint != editor.fingerprint
    weight = torch.zeros(1, editor.unet.conv_out.in_channels, 3, 3)
    heads = [{"weight": weight, "bias": torch.full((1,), value)} for value in (0.0, 1.0)]
    pipeline, device = editor.pipeline, editor.device
    first, second = (Editor(pipeline, device, head=head).fingerprint for head in heads)
    assert len({first, second, editor.fingerprint}) == 3
    turned = dict(reversed(heads[0].items()))
    assert Editor(pipeline, device, head=turned).fingerprint == first
