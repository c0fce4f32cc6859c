"""The editor that ships with the package: its files, its ceiling, and that it does its job."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline

from wys.diffusion.editor import Editor
from wys.diffusion.loading import builtin_directory
from wys.diffusion.settings import PAPER, read_settings
from wys.evaluation import metrics
from wys.evaluation.scores import named_objects
from wys.image_edit import edit_image, relevance_map
from wys.relevance import Source
from wys.tabletop.pairs import Pairs, make_pairs
from wys.tabletop.world import PLAIN

MEGABYTE = 10**6


@pytest.fixture(scope="module")
def editor() -> Editor:
    return Editor.load("builtin", device="cpu")


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return make_pairs(1, "test", 0, 18, size=128, scene_range=PLAIN)


def test_files_are_small_and_safe() -> None:
    files = [path for path in builtin_directory().rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".txt", ".md"}
    assert max(path.stat().st_size for path in files) < 15 * MEGABYTE
    assert sum(path.stat().st_size for path in files) <= 40 * MEGABYTE


def test_the_stock_pipeline_runs_it_unchanged(pairs: Pairs) -> None:
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(builtin_directory())
    pipeline.set_progress_bar_config(disable=True)
    output = pipeline(
        pairs.instructions[0],
        image=pairs.before[:1],
        num_inference_steps=2,
        guidance_scale=1.5,
        image_guidance_scale=1.2,
        output_type="pt",
    ).images
    assert output.shape == (1, 3, 128, 128)
    assert bool(torch.isfinite(torch.as_tensor(output)).all())


def test_the_autoencoder_keeps_34_db(editor: Editor, pairs: Pairs) -> None:
    conditioning = editor.condition(pairs.after, pairs.instructions)
    again = editor.decode(conditioning.z0)
    everywhere = torch.ones_like(pairs.mask)
    psnr = metrics.squared_error(again, pairs.after, everywhere).psnr()
    assert psnr is not None and psnr >= 34


def test_latents_have_unit_variance(editor: Editor, pairs: Pairs) -> None:
    spread = float(editor.condition(pairs.before, pairs.instructions).z0.std())
    assert 0.8 < spread < 1.25


def test_it_brings_its_own_settings(editor: Editor) -> None:
    settings = read_settings(Path(builtin_directory()) / "wys.json")
    assert editor.settings == settings != PAPER
    assert editor.native_size == 128


@pytest.mark.parametrize("source", ["head", "locator"])
def test_its_maps_find_the_named_object(editor: Editor, pairs: Pairs, source: Source) -> None:
    how = replace(editor.settings.relevance, source=source)
    made = relevance_map(editor, pairs.before, pairs.instructions, how)
    fine = torch.nn.functional.interpolate(made.values, size=(128, 128), mode="bilinear")[:, 0]
    found = metrics.grounding(fine, pairs.object_ids, named_objects(pairs))
    hit, chance = metrics.mean(found.hit), metrics.mean(found.chance)
    assert hit is not None and chance is not None and hit > chance
    iou = metrics.mean(metrics.iou(made.mask().at((128, 128))[:, 0], pairs.mask))
    assert iou is not None and iou > 0.4


def test_an_edit_changes_nothing_outside_its_mask(editor: Editor, pairs: Pairs) -> None:
    edit = edit_image(editor, pairs.before[:2], pairs.instructions[:2])
    outside = ~edit.mask.at((128, 128)).expand(-1, 3, -1, -1)
    assert torch.equal(edit.image[outside], pairs.before[:2][outside])
    assert any(edit.edited)
    assert not torch.equal(edit.image, pairs.before[:2])
