"""The recipe: data, tokenizer, autoencoder, latents, denoiser, locator, export, each resumable.

Every stage keeps its state in the output folder and goes on from it, so a run that was killed is
started again with the same command.
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from warnings import warn

import torch
import tyro
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from wys.devices import multiplies_bfloat16
from wys.diffusion.conditioning import Guidance
from wys.diffusion.loading import SETTINGS
from wys.diffusion.refusals import LOCATOR
from wys.diffusion.sampler import EditSettings
from wys.diffusion.settings import EditorSettings, read_settings, settings_as_json
from wys.errors import WysError, WysWarning
from wys.relevance import RelevanceSettings
from wys.store import write_json
from wys.training.autoencoder import load_autoencoder, measure_scale, train_autoencoder
from wys.training.beginning import keep_beginning, start_directory
from wys.training.card import record, write_card
from wys.training.denoising import (
    build_networks,
    denoiser_state,
    load_networks,
    take_weights,
    train_denoiser,
)
from wys.training.export import write_pipeline
from wys.training.folder import Folder
from wys.training.latents import encode_shards
from wys.training.locator import check_teachers, load_locator, locator_state, train_locator
from wys.training.parallel import launch
from wys.training.plan import plan_in_words
from wys.training.presets import CPU, GPU, Recipe
from wys.training.progress import meter, show
from wys.training.run import (
    Run,
    check_data,
    check_no_locator,
    check_ready,
    notice_another_length,
    notice_another_locator_length,
    notice_cuts,
    source_of,
)
from wys.training.sheets import draw_curves
from wys.training.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer
from wys.training.triplets import DataSettings, Source, generate, require_shards

EXPORTED = EditorSettings(
    relevance=RelevanceSettings(source="head", normalisation="absolute", threshold=0.5),
    edit=EditSettings(guidance=Guidance(text=1.5, image=1.2), steps=10),
)
"""What an exported editor starts with, until its own best settings are measured."""


def train(run: Run) -> None:
    """Runs the stages in order; each goes on from what it finds in the folder.

    Raises:
        WysError: a stage lacks what an earlier one makes, or the machine what training needs.
    """
    check_ready(run)
    if "data" in run.stages:
        check_data(run)
    run_stages(run)


def run_stages(run: Run) -> None:
    """`train` for who has called `check_ready` and `check_data`."""
    recipe, out, stages, start = run.recipe, run.out, run.stages, run.start
    keep_beginning(start, out)
    if recipe.precision == "auto":
        fast = multiplies_bfloat16(torch.device(run.device))
        recipe = replace(recipe, precision="bf16" if fast else "no")
    if "denoiser" in stages:
        check_no_locator(recipe, out)
        notice_another_length(recipe, out)
    if "locator" in stages:
        notice_another_locator_length(recipe, out)
    if "denoiser" in stages or "locator" in stages:
        # The networks that are tried out draw their weights: whoever seeded shall not notice.
        with torch.random.fork_rng(devices=[]):
            words = plan_in_words(
                None if start is not None or "autoencoder" not in stages else recipe.autoencoder,
                recipe.denoiser if "denoiser" in stages else None,
                recipe.locator if "locator" in stages else None,
                out,
                network=recipe.denoiser.network,
                size=recipe.data.large_size,
                processes=run.processes,
                device=run.device,
                precision=recipe.precision,
                factor=2 ** (len(recipe.autoencoder.channels) - 1),
                latent_channels=recipe.autoencoder.latent_channels,
            )
        print(words, flush=True)
    sizes = (recipe.data.size, recipe.data.large_size)
    autoencoder = partial(trained_autoencoder, recipe, out, start)
    record(out, recipe, stages, run.device, run.processes, run.data, start, run.also)
    work = partial(launch, cache=out / "compiled", device=run.device, precision=recipe.precision)

    def curves(stage: str, *quantities: str) -> None:
        draw_curves(out / "log.jsonl", stage, quantities, out / "sheets" / f"{stage}_curves.png")

    if "data" in stages:
        make_data(source_of(recipe, run.data), recipe.data, out, run.workers)
    if "tokenizer" in stages and not (out / "tokenizer" / "vocab.json").exists():
        make_tokenizer(recipe, out, start)
        if run.data is not None:
            notice_cuts(Folder(run.data), out)
    if "autoencoder" in stages and start is None:
        work(
            train_autoencoder,
            run.processes,
            args=(recipe.autoencoder, out, sizes, run.compile, run.save_minutes),
        )
        curves("autoencoder", "loss", "squared_error", "psnr")
    if "latents" in stages:
        scale = out / "latents" / "scale.json"
        if not scale.exists() and start is None:
            measure_scale(autoencoder(), out, sizes)
        elif not scale.exists():
            write_json(scale, {"scaling_factor": autoencoder().config.scaling_factor})
        work(
            encode_shards,
            run.processes,
            args=(autoencoder, out / "tokenizer", out, tuple(set(sizes)), run.compile, run.wait),
        )
    if "denoiser" in stages:
        work(
            train_denoiser,
            run.processes,
            args=(recipe.denoiser, out, autoencoder, start, run.compile, run.save_minutes),
        )
        curves("denoiser", "loss", "validation_edit", "change_iou", "grounding_head")
    if "locator" in stages:
        size, network = recipe.data.large_size, recipe.denoiser.network
        networks = partial(teachers, recipe, out, start)
        work(
            train_locator,
            run.processes,
            args=(
                recipe.locator,
                network,
                out,
                run.also,
                start,
                networks,
                size,
                run.compile,
                run.save_minutes,
            ),
        )
        curves("locator", "loss", "change", "overlap", "locator_iou")
    if "export" in stages:
        export(recipe, out, out / "editor", start)


def trained_autoencoder(recipe: Recipe, out: Path, start: Path | None = None) -> AutoencoderKL:
    """The autoencoder that was trained in `out`, or that of the editor `start`, in float32."""
    if start is None:
        return load_autoencoder(recipe.autoencoder, out, recipe.data.large_size)
    vae = AutoencoderKL.from_pretrained(start / "vae").float()
    return vae.eval().requires_grad_(False)


def trained_networks(
    recipe: Recipe, out: Path, start: Path | None, latent_channels: int, latent_size: int
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """UNet, with auxiliary outputs, and text encoder as they stand, in float32.

    Where `out` has trained none they are those of the editor `start`.

    Raises:
        WysError: there are none.
    """
    if denoiser_state(out).exists():
        return load_networks(recipe.denoiser, out, latent_channels, latent_size)[:2]
    if start is None:
        raise WysError(f"{out} has no trained networks yet; run the denoiser stage.")
    tokenizer = load_tokenizer(out / "tokenizer")
    unet, text = build_networks(recipe.denoiser, tokenizer, latent_channels, latent_size)
    take_weights(unet, text, start)
    return unet.eval(), text.eval()


def teachers(
    recipe: Recipe, out: Path, start: Path | None = None
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """The trained UNet and text encoder, as they stay while a locator learns from them."""
    latent = _latent_of(recipe, trained_autoencoder(recipe, out, start))
    unet, text = trained_networks(recipe, out, start, *latent)
    return unet.requires_grad_(False), text.requires_grad_(False)


def _latent_of(recipe: Recipe, vae: AutoencoderKL) -> tuple[int, int]:
    """Channels and side of the latents of an editor."""
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    return vae.config.latent_channels, recipe.data.large_size // factor


def make_tokenizer(recipe: Recipe, out: Path, start: Path | None = None) -> None:
    """Writes `out/tokenizer`: learned from the triplets, or that of the editor `start`."""
    if start is not None:
        save_tokenizer(load_tokenizer(start / "tokenizer"), out / "tokenizer")
        return
    instructions = (
        text
        for size in {recipe.data.size, recipe.data.large_size}
        for shard in require_shards(out / "data", "train", size)
        for text in shard.instructions
    )
    build_tokenizer(
        instructions,
        out / "tokenizer",
        vocabulary=recipe.vocabulary,
        length=recipe.instruction_length,
    )


def make_data(source: Source, settings: DataSettings, out: Path, workers: int) -> None:
    """The data stage, with its progress."""
    with meter("data", 0) as bar:
        generate(source, settings, out / "data", workers, partial(show, bar))


def export(recipe: Recipe, out: Path, folder: Path, start: Path | None = None) -> None:
    """Writes the editor as it stands in `out/state`, also while training goes on."""
    vae = trained_autoencoder(recipe, out, start)
    latent = _latent_of(recipe, vae)
    unet, text = trained_networks(recipe, out, start, *latent)
    locator = None
    if locator_state(out).exists():
        check_teachers(unet, text, out)
        locator = load_locator(recipe.locator, recipe.denoiser.network, out, *latent)
    elif start is not None and (start / LOCATOR).is_dir() and not denoiser_state(out).exists():
        locator = UNet2DConditionModel.from_pretrained(start / LOCATOR).float()
    write_pipeline(vae, unet, text, load_tokenizer(out / "tokenizer"), folder, locator)
    if not (folder / SETTINGS).exists():
        settings = replace(EXPORTED, size=recipe.data.large_size)
        if locator is not None:
            relevance = replace(settings.relevance, source="locator")
            settings = replace(settings, relevance=relevance)
        write_json(folder / SETTINGS, settings_as_json(settings))
    elif locator is not None and read_settings(folder / SETTINGS).relevance.source != "locator":
        warn(
            f"{folder / SETTINGS} does not ask the locator; 'wys bench tune' finds settings, or "
            'set its relevance source to "locator".',
            WysWarning,
            stacklevel=2,
        )
    write_card(out, folder)


def main() -> None:
    """Command line of the recipe: `python -m wys.training.recipe cpu --out DIR`."""
    presets = {
        "cpu": ("Two processor cores.", Run(recipe=CPU, out=tyro.MISSING)),
        "gpu": (
            "One GPU.",
            Run(GPU, tyro.MISSING, processes=1, workers=16, device="cuda", compile=True),
        ),
    }
    run = tyro.extras.overridable_config_cli(presets)
    try:
        train(replace(run, start=start_directory(run.start)))
    except WysError as error:
        print(f"wys: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
