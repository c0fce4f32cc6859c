"""Masked denoising, against diffusers' pipeline and slow references."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionInstructPix2PixPipeline

from wys.diffusion.conditioning import Conditioning, Guidance
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import Begun, DenoisingStep, EditSettings, denoise
from wys.errors import WysError
from wys.seeds import normal

TEXT = "make the ball red"


def final(steps: Iterator[DenoisingStep]) -> torch.Tensor:
    *_, last = steps
    assert last.index == last.count
    assert last.timestep is None
    return last.latents


@pytest.fixture(params=["epsilon", "v_prediction", "sample"])
def each(
    request: pytest.FixtureRequest, tiny_pipeline: Callable[..., Any]
) -> StableDiffusionInstructPix2PixPipeline:
    """The tiny pipeline of each prediction type; the last with the spacing it usually has."""
    if request.param == "sample":
        pipeline = tiny_pipeline("sample")
        config = {**pipeline.scheduler.config, "timestep_spacing": "trailing"}
        pipeline.scheduler = DDIMScheduler.from_config(config)
        return pipeline
    return request.getfixturevalue("pipeline" if request.param == "epsilon" else "v_pipeline")


@pytest.mark.parametrize(("text", "image"), [(7.5, 1.5), (3.0, 1.0), (1.5, 2.0)])
@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize(("negative", "height"), [("", 48), ("blue", 48), ("", 44)])
def test_without_a_mask_it_is_diffusers_pipeline(
    each: StableDiffusionInstructPix2PixPipeline,
    images: torch.Tensor,
    text: float,
    image: float,
    steps: int,
    negative: str,
    height: int,
) -> None:
    editor = Editor.from_pipeline(each)
    images = images[..., :height, :]  # 44 pixels are 11 latent pixels, which do not halve evenly.
    told = editor.condition(images, [TEXT] * 3, negative)
    noise = normal(told.z0.shape[1:], 0, [0, 1, 2], "edit")
    settings = EditSettings(guidance=Guidance(text, image), steps=steps)
    everywhere = torch.ones(3, 1, *told.z0.shape[-2:], dtype=torch.bool)
    ours = final(denoise(editor, told, everywhere, noise, settings))
    start = editor.schedule.add_noise(told.z0, noise, editor.schedule.timesteps(steps)[0])
    theirs = each(
        [TEXT] * 3,
        image=images,
        latents=start,
        num_inference_steps=steps,
        guidance_scale=text,
        image_guidance_scale=image,
        negative_prompt=[negative] * 3,
        output_type="latent",
    ).images
    assert (ours - theirs).abs().max() < 1e-4


def slow_edit(
    editor: Editor,
    told: Conditioning,
    mask: torch.Tensor,
    noise: torch.Tensor,
    settings: EditSettings,
) -> torch.Tensor:
    """The loop as the paper writes it: three branches, scalar arithmetic, one item."""
    abar = editor.schedule.abar.double()
    times = editor.schedule.timesteps(settings.steps, settings.start)
    s_t, s_i = settings.guidance.text, settings.guidance.image
    z = abar[times[0]].sqrt() * told.z0.double() + (1 - abar[times[0]]).sqrt() * noise.double()
    zeros = torch.zeros_like(told.image_latents)
    for i, t in enumerate(times):
        outputs = []
        for latents, text in (
            (told.image_latents, told.text),
            (told.image_latents, told.null_text),
            (zeros, told.null_text),
        ):
            with torch.no_grad():
                out = editor.unet(torch.cat([z.float(), latents], 1), t, text).sample.double()
            if editor.schedule.prediction == "v_prediction":
                out = abar[t].sqrt() * out + (1 - abar[t]).sqrt() * z
            elif editor.schedule.prediction == "sample":
                out = (z - abar[t].sqrt() * out) / (1 - abar[t]).sqrt()
            outputs.append(out)
        full, image, none = outputs
        eps = none + s_i * (image - none) + s_t * (full - image)
        last = i + 1 == len(times)
        a, b = abar[t], (torch.tensor(editor.schedule.final_abar) if last else abar[times[i + 1]])
        z = b.sqrt() * (z - (1 - a).sqrt() * eps) / a.sqrt() + (1 - b).sqrt() * eps
        if settings.blend == "published":
            back = a.sqrt() * told.z0 + (1 - a).sqrt() * noise
        else:
            back = told.z0 if last else b.sqrt() * told.z0 + (1 - b).sqrt() * noise
        z = torch.where(mask, z, back.double())
    return z


@pytest.mark.parametrize("guidance", [Guidance(8.0, 0.9), Guidance(7.5, 1.5), Guidance(1.5, 1.5)])
@pytest.mark.parametrize(
    "settings",
    [
        EditSettings(steps=6),
        EditSettings(steps=6, start=0.6),
        EditSettings(steps=4, blend="published"),
    ],
    ids=["full", "partial", "published"],
)
def test_the_loop_equals_a_slow_reference(
    each: StableDiffusionInstructPix2PixPipeline,
    images: torch.Tensor,
    guidance: Guidance,
    settings: EditSettings,
) -> None:
    settings = EditSettings(guidance, settings.steps, settings.start, settings.blend)
    editor = Editor.from_pipeline(each)
    told = editor.condition(images, [TEXT, "remove it", "paint the cube blue"])
    noise = normal(told.z0.shape[1:], 3, [0, 1, 2], "edit")
    mask = torch.rand(3, 1, 12, 8, generator=torch.Generator().manual_seed(5)) > 0.5
    ours = final(denoise(editor, told, mask, noise, settings))
    for i in range(3):
        one = slow_edit(editor, told.select([i]), mask[i : i + 1], noise[i : i + 1], settings)
        assert (ours[i] - one[0]).abs().max() < 1e-3 * max(1, one.abs().max())


@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
@pytest.mark.parametrize("blend", ["reached", "published"])
def test_going_on_from_the_first_step_is_the_same_edit(
    editor: Editor, images: torch.Tensor, blend: Any, solver: Any
) -> None:
    told = editor.condition(images, [TEXT] * 3)
    noise = normal(told.z0.shape[1:], 3, [0, 1, 2], "edit")
    mask = torch.rand(3, 1, 12, 8, generator=torch.Generator().manual_seed(5)) > 0.5
    settings = EditSettings(steps=3, blend=blend, solver=solver)
    whole = final(denoise(editor, told, mask, noise, settings))
    first = next(denoise(editor, told, torch.ones_like(mask), noise, settings))
    resumed = denoise(
        editor, told, mask, noise, settings, resume=Begun(1, first.latents, first.clean)
    )
    assert torch.allclose(final(resumed), whole, atol=1e-6)


def test_between_the_first_step_and_the_last_the_better_solver_has_others(
    editor: Editor, images: torch.Tensor
) -> None:
    told = editor.condition(images, [TEXT] * 3)
    noise = normal(told.z0.shape[1:], 4, [0, 1, 2], "edit")
    everywhere = torch.ones(3, 1, 12, 8, dtype=torch.bool)

    def edited(solver: Any, steps: int) -> torch.Tensor:
        settings = EditSettings(steps=steps, solver=solver)
        return final(denoise(editor, told, everywhere, noise, settings))

    assert torch.equal(edited("dpm++", 2), edited("ddim", 2))
    assert not torch.allclose(edited("dpm++", 3), edited("ddim", 3), atol=1e-2)


def test_the_background_is_at_the_level_reached_and_clean_at_the_end(
    editor: Editor, images: torch.Tensor
) -> None:
    told = editor.condition(images, [TEXT] * 3)
    noise = normal(told.z0.shape[1:], 0, [0, 1, 2], "edit")
    mask = torch.zeros(3, 1, 12, 8, dtype=torch.bool)
    mask[..., 2:6, 2:6] = True
    outside = ~mask.expand_as(told.z0)
    for step in denoise(editor, told, mask, noise, EditSettings(steps=4)):
        expected = editor.schedule.add_noise(told.z0, noise, step.timestep)
        assert torch.equal(step.latents[outside], expected[outside])
    assert torch.equal(step.latents[outside], told.z0[outside])


def test_latents_do_not_depend_on_the_batch(editor: Editor, images: torch.Tensor) -> None:
    texts = [TEXT, "remove it", "paint the cube blue"]
    mask = torch.rand(3, 1, 12, 8) > 0.4

    def latents(rows: list[int]) -> torch.Tensor:
        told = editor.condition(images[rows], [texts[i] for i in rows])
        noise = normal(told.z0.shape[1:], 0, rows, "edit")
        return final(denoise(editor, told, mask[rows], noise, EditSettings(steps=5)))

    together = latents([0, 1, 2])
    for i in range(3):
        assert (latents([i])[0] - together[i]).abs().max() < 1e-4
    assert (latents([2, 0])[1] - together[0]).abs().max() < 1e-4


def test_an_edit_may_start_from_another_latent(editor: Editor, images: torch.Tensor) -> None:
    told = editor.condition(images, [TEXT] * 3)
    noise, other = torch.randn(2, *told.z0.shape)
    mask = torch.ones(3, 1, 12, 8, dtype=torch.bool)
    settings = EditSettings(steps=2, start=0.3)
    same = final(denoise(editor, told, mask, noise, settings, start=told.z0))
    assert torch.equal(same, final(denoise(editor, told, mask, noise, settings)))
    assert not torch.allclose(
        same, final(denoise(editor, told, mask, noise, settings, start=other))
    )


@pytest.mark.parametrize("guidance", [Guidance(7.5, 1.5), Guidance(3.0, 1.2, soft=1.5)])
def test_guidance_in_part_of_the_schedule(
    editor: Editor, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch, guidance: Guidance
) -> None:
    told = editor.condition(images, [TEXT] * 3)
    noise = normal(told.z0.shape[1:], 0, [0, 1, 2], "edit")
    mask = torch.rand(3, 1, 12, 8, generator=torch.Generator().manual_seed(1)) > 0.3
    asked: list[tuple[int, tuple[str, ...]]] = []
    predict = editor.predict

    def watched(z: torch.Tensor, t: int, told: Conditioning, branches: tuple, **how: bool) -> Any:
        asked.append((t, tuple(branches)))
        return predict(z, t, told, branches, **how)

    monkeypatch.setattr(editor, "predict", watched)

    def latents(settings: EditSettings) -> torch.Tensor:
        asked.clear()
        return final(denoise(editor, told, mask, noise, settings))

    plain = EditSettings(guidance, steps=10)
    everywhere = latents(plain)
    assert torch.equal(everywhere, latents(replace(plain, guided=(0.0, 1.0))))
    part = latents(replace(plain, guided=(0.2, 0.6)))
    for t, branches in asked:
        assert branches == (guidance.branches if 200 <= t <= 600 else ("full",))
    assert len({branches for _, branches in asked}) == 2 and not torch.equal(part, everywhere)
    # Guided nowhere is not guided at all.
    unguided = EditSettings(Guidance(1, 1), steps=10)
    assert torch.equal(latents(replace(plain, guided=(1.0, 1.0))), latents(unguided))


@pytest.mark.usefixtures("unchecked")
def test_bad_settings() -> None:
    for bad, words in (
        ({"steps": 0}, "1 to 1000 steps"),
        ({"steps": 1001}, "1 to 1000 steps"),
        ({"steps": 2.5}, "1 to 1000 steps"),
        ({"blend": "Reached"}, "the blend of an edit is one of reached, published"),
        ({"solver": "euler"}, "the solver of an edit is one of"),
        ({"start": 0.0}, "the start of an edit"),
        ({"start": 1.5}, "the start of an edit"),
        ({"guided": (0.5, 0.2)}, "guided between two levels"),
        ({"guided": (0.5,)}, "guided between two levels"),
    ):
        with pytest.raises(WysError, match=words):
            EditSettings(**bad)  # type: ignore[arg-type]
