"""A run of the recipe, and what would end it, said before hours of work."""

import math
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args
from warnings import warn

import torch

from wys.errors import WysError, WysWarning
from wys.store import read_json
from wys.training.beginning import check_start
from wys.training.denoising import denoiser_state
from wys.training.folder import Folder
from wys.training.learner import position_of
from wys.training.locator import check_also, locator_state
from wys.training.parallel import check_compiler, check_device
from wys.training.presets import Recipe, Stage
from wys.training.progress import meter, show
from wys.training.tokenizer import load_tokenizer
from wys.training.triplets import Source, Tabletop, check_origin


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
            source.check(partial(show, bar))


def check_no_locator(recipe: Recipe, out: Path) -> None:
    """Raises WysError where a locator is there already and the denoiser would be trained further.

    It reads with these networks as they were.
    """
    if not locator_state(out).exists():
        return
    state = denoiser_state(out)
    if not state.exists() or position_of(state).images < recipe.denoiser.images:
        raise WysError(
            f"{out} has a locator, which was taught with the networks as they are; to train these "
            f"further, delete {locator_state(out)} first: the locator is then trained anew."
        )


def notice_another_length(recipe: Recipe, out: Path) -> None:
    """Warns where the denoiser of `out` was on its way to another number of images."""
    before = _recorded(out, denoiser_state(out), "denoiser")
    if before is None:
        return
    phases = before["denoiser"]["phases"]
    length, batch = (sum(each[what] for each in phases) for what in ("images", "batch"))
    _notice_length(out, length, recipe.denoiser.images, batch, "--images")


def notice_another_locator_length(recipe: Recipe, out: Path) -> None:
    """The same of the locator of `out`."""
    before = _recorded(out, locator_state(out), "locator")
    if before is None:
        return
    length, batch = before["locator"]["images"], before["locator"]["batch"]
    _notice_length(out, length, recipe.locator.images, batch, "--recipe.locator.images")


def _recorded(out: Path, state: Path, stage: Stage) -> dict[str, Any] | None:
    """The recipe of the last run that had a stage, if the stage's state is there."""
    path = out / "record.json"
    if not state.exists() or not path.exists():
        return None
    # Records of before say nothing of stages.
    runs = [run for run in read_json(path) if stage in run.get("stages", [stage])]
    recipe: dict[str, Any] | None = runs[-1]["recipe"] if runs else None
    return recipe


def _notice_length(out: Path, before: int, now: int, batch: int, option: str) -> None:
    """Warns where a training is to be of another length; `option` sets it."""
    # A length that is given again is rounded to whole batches again.
    if abs(before - now) > batch:
        warn(
            f"{out} was trained towards {before:,} images and goes on towards {now:,}, at the "
            f"learning rate of that length; {option} {before} keeps to the one before.",
            WysWarning,
            stacklevel=3,
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
