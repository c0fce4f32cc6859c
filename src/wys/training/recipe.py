"""The recipe: data, tokenizer, autoencoder, latents, denoiser, locator, export, each resumable.

Every stage keeps its state in the output folder and goes on from it, so a run that was killed is
started again with the same command.
"""

import math
import sys
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args
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
from wys.relevance import ASKING, RelevanceSettings
from wys.store import read_json, write_json
from wys.training.autoencoder import (
    AutoencoderSettings,
    load_autoencoder,
    measure_scale,
    train_autoencoder,
)
from wys.training.beginning import check_start, keep_beginning, start_directory
from wys.training.card import record, write_card
from wys.training.denoiser import NetworkSettings
from wys.training.denoising import (
    DenoiserSettings,
    Phase,
    build_networks,
    denoiser_state,
    load_networks,
    take_weights,
    train_denoiser,
)
from wys.training.export import write_pipeline
from wys.training.folder import Folder
from wys.training.latents import encode_shards
from wys.training.learner import OptimiserSettings, position_of
from wys.training.locator import (
    LocatorSettings,
    check_also,
    check_reads,
    load_locator,
    locator_state,
    train_locator,
)
from wys.training.parallel import check_compiler, check_device, launch
from wys.training.plan import plan_in_words
from wys.training.progress import Meter, meter
from wys.training.sheets import draw_curves
from wys.training.tokenizer import build_tokenizer, load_tokenizer, save_tokenizer
from wys.training.triplets import (
    DataSettings,
    Source,
    Tabletop,
    check_origin,
    generate,
    require_shards,
)

VIEWS = 1_000
"""How often a triplet of one's own is seen at most in a training whose length nobody chose. The
presets show theirs 3 to 20 times. Noise, its level and what is left out are drawn anew each time,
so that there is more to learn from a triplet than from a picture; but a dozen of them, seen as
often as hundreds of thousands are, cost a night and are learnt by heart long before."""

Stage = Literal["data", "tokenizer", "autoencoder", "latents", "denoiser", "locator", "export"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained editor, apart from the machine."""

    data: DataSettings = field(default_factory=DataSettings)
    """The triplets."""
    autoencoder: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    """The autoencoder and its training."""
    denoiser: DenoiserSettings = field(default_factory=DenoiserSettings)
    """Text encoder and UNet and their training."""
    locator: LocatorSettings = field(default_factory=LocatorSettings)
    """The network that says where, and its training."""
    vocabulary: int = 1000
    """Tokens of the tokenizer."""
    instruction_length: int = 32
    """Tokens of an instruction, with its two marks; longer ones are cut."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Automatic mixed precision; auto is bf16 where the machine is faster in it, and else none."""

    def of_length(self, images: int) -> "Recipe":
        """The recipe with so many images for the denoiser, to half a batch of each phase.

        The phases share them in proportion, the learning rate's schedule ends with them, the
        locator has as many for each of them as before, and a shorter training makes triplets of the
        world in proportion, too.

        Raises:
            WysError: there is not a batch for each phase.
        """
        old, shortest = self.denoiser, sum(phase.batch for phase in self.denoiser.phases)
        if images < shortest:
            raise WysError(
                f"an editor is trained on at least {shortest} images, one batch of each size, not "
                f"on {images}; give --images {shortest} or more."
            )
        if images == old.images:
            return self
        share = images / old.images
        # Batches are not cut: part of one would be taken from the phase after it.
        phases = tuple(
            replace(phase, images=max(1, round(share * phase.images / phase.batch)) * phase.batch)
            for phase in old.phases
        )
        # Adam needs its first steps small however long it goes on.
        denoiser = replace(old, phases=phases, warmup=min(old.warmup, max(1, images // 10)))
        where = self.locator
        seen = max(1, round(share * where.images / where.batch)) * where.batch
        locator = replace(where, images=seen, warmup=min(where.warmup, max(1, seen // 10)))
        # A decoder is good after what the built-in editor's has seen; but a trial of the recipe
        # shall not wait longer for it than for the rest.
        most, enough = self.autoencoder.images, AutoencoderSettings().images
        decoder = min(most, max(round(share * most), min(images, enough)))
        data = self.data
        # Whole files, so that a longer training adds to them.
        file = data.shard - data.shard % data.edits_per_scene
        triplets, large = (
            min(count, -(-round(share * count) // file) * file)
            for count in (data.triplets, data.large_triplets)
        )
        return replace(
            self,
            data=replace(data, triplets=triplets, large_triplets=large),
            autoencoder=replace(self.autoencoder, images=decoder),
            denoiser=denoiser,
            locator=locator,
        )

    def for_triplets(self, count: int) -> "Recipe":
        """The recipe, shortened where it would show so many triplets more than `VIEWS` times."""
        images = VIEWS * count
        return self if images >= self.denoiser.images else self.of_length(images)


EXPORTED = EditorSettings(
    relevance=RelevanceSettings(source="head", normalisation="absolute", threshold=0.5),
    edit=EditSettings(guidance=Guidance(text=1.5, image=1.2), steps=10),
)
"""What an exported editor starts with, until its own best settings are measured."""

CPU = Recipe()
"""Two processor cores, some three hours (`compile` makes the difference)."""

GPU = Recipe(
    data=DataSettings(triplets=300_000, large_triplets=150_000, look="full"),
    autoencoder=AutoencoderSettings(channels=(32, 64, 128), images=1_500_000, batch=128),
    denoiser=DenoiserSettings(
        network=NetworkSettings(channels=(72, 144, 216), groups=8),
        phases=(Phase(64, 6_000_000, 512), Phase(128, 2_000_000, 256)),
        warmup=50_000,
        optimiser=OptimiserSettings(ema=0.9995),
    ),
    locator=LocatorSettings(channels=(48, 96, 144), images=4_000_000, batch=512, warmup=50_000),
)
"""One GPU, some hours: the whole world, a larger network."""


@dataclass(frozen=True)
class Run:
    """Trains an editor."""

    recipe: Recipe
    """What is trained, and how."""
    out: Path
    """Folder of data, state, logs and the exported editor."""
    stages: tuple[Stage, ...] = get_args(Stage)
    """Stages to run; a stage that is complete is skipped."""
    processes: int = 2
    """Training processes (one thread each on a CPU)."""
    workers: int = 2
    """Processes that make triplets; 0 makes them in this process."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to train."""
    compile: bool = False
    """Compile the networks (torch.compile): worth its minutes in all but trials."""
    save_minutes: float = 5.0
    """Minutes between two saves of the state."""
    wait: bool = False
    """Let the latents stage wait for triplets that another process is still making."""
    data: Path | None = None
    """A folder of one's own triplets (see `wys.training.folder`), not the tabletop world."""
    start: Path | None = None
    """An editor of the same recipe to train further, or builtin; its tokenizer and autoencoder
    stay."""
    also: tuple[Path, ...] = ()
    """Folders of other runs, begun alike, whose triplets the locator learns from as much."""


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
    record(out, recipe, run.device, run.processes, run.data, start, run.also)
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
        text = partial(trained_text, recipe, out, start)
        work(
            train_locator,
            run.processes,
            args=(
                recipe.locator,
                network,
                out,
                run.also,
                start,
                text,
                size,
                run.compile,
                run.save_minutes,
            ),
        )
        curves("locator", "loss", "change", "overlap", "locator_iou")
    if "export" in stages:
        export(recipe, out, out / "editor", start)


def check_ready(run: Run) -> None:
    """Says before hours of work what would end them: device, packages, processes, `start`.

    Raises:
        WysError: something is missing.
    """
    recipe, processes = run.recipe, run.processes
    check_device(run.device)
    if find_spec("matplotlib") is None:
        raise WysError("training draws its curves by matplotlib; pip install 'wys[train]'.")
    smallest = min(
        recipe.autoencoder.batch,
        recipe.locator.batch,
        *(phase.batch for phase in recipe.denoiser.phases),
    )
    if not 1 <= processes <= smallest // 2:
        raise WysError(
            f"{processes} processes cannot share batches of {smallest} images; take from 1 to "
            f"{smallest // 2}."
        )
    if run.device == "cuda" and processes > torch.cuda.device_count():
        raise WysError(
            f"{processes} processes need a GPU each, and there are {torch.cuda.device_count()}."
        )
    if run.workers < 0:
        raise WysError(f"triplets are made by 0 workers or more, not by {run.workers}.")
    if not 0 <= run.save_minutes < math.inf:
        raise WysError(
            f"the state is saved every so many minutes, 0 or more, not {run.save_minutes:g}."
        )
    if run.compile:
        check_compiler()
    if "locator" in run.stages:
        check_also(run.also, recipe.data.large_size)
    if run.start is not None:
        check_start(recipe.denoiser.network, recipe.locator.channels, run.start)


def source_of(recipe: Recipe, data: Path | None) -> Source:
    """The triplets of one's own folder, or of the tabletop world."""
    return Tabletop(recipe.data) if data is None else Folder(data)


def check_data(run: Run) -> None:
    """Reads a folder of one's own once, unless triplets were made of it before.

    Raises:
        WysError: it cannot be read, or the run's folder holds triplets of another
            source.
    """
    source, settings = source_of(run.recipe, run.data), run.recipe.data
    if not check_origin(source, settings, run.out / "data") and isinstance(source, Folder):
        with meter("reading", 0) as bar:
            source.check(partial(_show, bar))


def _show(bar: Meter, done: int, total: int) -> None:
    bar.total = total
    bar.update(done)


def check_no_locator(recipe: Recipe, out: Path) -> None:
    """Raises WysError where a locator is there already and the denoiser would be trained further.

    It reads with the text encoder as it was.
    """
    if not locator_state(out).exists():
        return
    state = denoiser_state(out)
    if not state.exists() or position_of(state).images < recipe.denoiser.images:
        raise WysError(
            f"{out} has a locator, which was taught with the text encoder as it is; to train that "
            f"further, delete {locator_state(out)} first: the locator is then trained anew."
        )


def notice_another_length(recipe: Recipe, out: Path) -> None:
    """Warns where the denoiser of `out` was on its way to another number of images."""
    state, path = denoiser_state(out), out / "record.json"
    if not state.exists() or not path.exists():
        return
    phases = read_json(path)[-1]["recipe"]["denoiser"]["phases"]
    before, now = sum(each["images"] for each in phases), recipe.denoiser.images
    # A length that is given again is rounded to whole batches again.
    if abs(before - now) > sum(each["batch"] for each in phases):
        warn(
            f"{out} was trained towards {before:,} images and goes on towards {now:,}, at the "
            f"learning rate of that length; --images {before} keeps to the one before.",
            WysWarning,
            stacklevel=2,
        )


def notice_cuts(folder: Folder, out: Path) -> None:
    """Warns of instructions of one's own that are longer than what the text encoder takes."""
    tokenizer = load_tokenizer(out / "tokenizer")
    most = tokenizer.model_max_length - 2  # Start and end token take a place each.
    texts = [entry.instruction for entries in folder.entries.values() for entry in entries]
    tokens = tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
    cut = [(text, ids) for text, ids in zip(texts, tokens, strict=True) if len(ids) > most]
    if cut:
        text, ids = cut[0]
        warn(
            f"{len(cut)} of {len(texts)} instructions have more than the {most} tokens that the "
            f'text encoder takes and are learnt without their ends: of "{text}" the end after '
            f'"{tokenizer.decode(ids[:most]).strip()}".',
            WysWarning,
            stacklevel=2,
        )


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


def trained_text(recipe: Recipe, out: Path, start: Path | None = None) -> CLIPTextModel:
    """The trained text encoder, as it stays."""
    latent = _latent_of(recipe, trained_autoencoder(recipe, out, start))
    _, text = trained_networks(recipe, out, start, *latent)
    return text.requires_grad_(False)


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
        generate(source, settings, out / "data", workers, partial(_show, bar))


def export(recipe: Recipe, out: Path, folder: Path, start: Path | None = None) -> None:
    """Writes the editor as it stands in `out/state`, also while training goes on."""
    vae = trained_autoencoder(recipe, out, start)
    latent = _latent_of(recipe, vae)
    unet, text = trained_networks(recipe, out, start, *latent)
    locator = None
    if locator_state(out).exists():
        check_reads(text, out)
        locator = load_locator(recipe.locator, recipe.denoiser.network, out, *latent)
    elif start is not None and (start / LOCATOR).is_dir() and not denoiser_state(out).exists():
        locator = UNet2DConditionModel.from_pretrained(start / LOCATOR).float()
    write_pipeline(vae, unet, text, load_tokenizer(out / "tokenizer"), folder, locator)
    if not (folder / SETTINGS).exists():
        settings = replace(EXPORTED, size=recipe.data.large_size)
        if locator is not None:
            relevance = replace(settings.relevance, source="agreement")
            settings = replace(settings, relevance=relevance)
        write_json(folder / SETTINGS, settings_as_json(settings))
    elif locator is not None and read_settings(folder / SETTINGS).relevance.source not in ASKING:
        warn(
            f"{folder / SETTINGS} does not ask the locator; 'wys bench tune' finds settings, or "
            'set its relevance source to "agreement".',
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
