"""The locator: a small network that says where an instruction changes an image, and only that.

The relevance head sees an image beside an edit's noise and shares all but its last layer with what
paints. The locator is taught nothing but where: it sees the clean latent and the words as the
trained text encoder reads them. It takes other objects for the named one than the head does, so
that what both of them point at is more surely what is meant (the source `agreement` of a map).
"""

import filecmp
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTextModel

from wys.diffusion.refusals import LOCATOR
from wys.errors import WysError
from wys.seeds import generator
from wys.store import read_json, write_json
from wys.training.beginning import BEGINNING
from wys.training.denoiser import (
    LABELS,
    DeepSupervision,
    LossSettings,
    NetworkSettings,
    build_unet,
    label_losses,
)
from wys.training.garbling import Garbler, GarblingSettings
from wys.training.latents import Batch, LatentSet, check_emphasis, concatenate
from wys.training.learner import Learner, OptimiserSettings, load_average
from wys.training.loop import compile_first, run_steps
from wys.training.parallel import compiled
from wys.training.schedule import Schedule
from wys.training.sheets import SHEET_ROWS, map_sheet
from wys.training.tokenizer import load_tokenizer
from wys.training.validation import by_kind, iou

_SHARED = ("latents/scale.json", "tokenizer/vocab.json", "tokenizer/merges.txt")
"""What runs have in common whose latents and tokens mean the same."""


@dataclass(frozen=True)
class LocatorSettings:
    """The locator and its training."""

    channels: tuple[int, ...] = (32, 64, 96)
    """Width of each level; the rest of the network is as in the denoiser's UNet."""
    losses: LossSettings = field(default_factory=lambda: LossSettings(change=1.6))
    """What is learnt; of the denoiser's losses those of the labels."""
    garbling: GarblingSettings = field(default_factory=GarblingSettings)
    """How instructions are garbled."""
    images: int = 400_000
    """Images of the large size that are seen."""
    batch: int = 64
    """Images of a step, over all processes."""
    peak_rate: float = 2e-3
    """Highest learning rate."""
    warmup: int = 6_000
    """Images over which the learning rate rises."""
    final_rate: float = 0.01
    """Last learning rate, as a fraction of the highest."""
    group: int = 2
    """Instructions for the same scene that stand together in a batch."""
    emphasis: tuple[float, float, float, float] = (1.0, 1.0, 3.0, 5.0)
    """How often triplets are drawn, by what their object is named by: as in the denoiser's."""
    kind_emphasis: Mapping[str, float] = field(default_factory=dict)
    """The same by kind of edit, on top; a kind left out counts 1."""
    seed: int = 0
    """Seed of the weights and batches."""
    validation: int = 256
    """Triplets that are validated on."""
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    """AdamW, clipping and averaging."""

    def __post_init__(self) -> None:
        check_emphasis(self.emphasis, self.kind_emphasis)
        if self.images < 1:
            raise WysError(f"a locator is trained on an image or more, not on {self.images}.")


def build_locator(
    settings: LocatorSettings, network: NetworkSettings, latent_channels: int, latent_size: int
) -> tuple[UNet2DConditionModel, DeepSupervision]:
    """The untrained locator, with auxiliary outputs, and the heads inside it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        narrow = replace(network, channels=settings.channels)
        locator = build_unet(narrow, latent_channels, sum(LABELS), latent_size)
        return locator, DeepSupervision(locator)


def answer(
    locator: Callable[..., Any],
    text: CLIPTextModel,
    latents: Float[Tensor, "b c h w"],
    tokens: Tensor,
) -> Float[Tensor, "b k h w"]:
    """All output channels for scaled latents; the network's timestep is always 0."""
    with torch.no_grad():
        words = text(tokens).last_hidden_state
    timestep = torch.zeros(len(latents), dtype=torch.long, device=latents.device)
    output: Tensor = locator(latents, timestep, encoder_hidden_states=words).sample
    return output


def load_locator(
    settings: LocatorSettings,
    network: NetworkSettings,
    out: Path,
    latent_channels: int,
    latent_size: int,
) -> UNet2DConditionModel:
    """The trained locator with averaged weights, on the CPU."""
    locator, deep = build_locator(settings, network, latent_channels, latent_size)
    load_average({"locator": locator, "deep": deep}, locator_state(out))
    return locator.eval()


def take_locator(locator: UNet2DConditionModel, editor: Path) -> None:
    """Gives an untrained locator the weights of an editor's; auxiliary outputs stay untrained.

    Raises:
        WysError: the editor's is of another size.
    """
    try:
        weights = UNet2DConditionModel.from_pretrained(editor / LOCATOR).float().state_dict()
        with torch.no_grad():
            for name in ("conv_out.weight", "conv_out.bias"):
                whole = locator.get_parameter(name).clone()
                whole[:1] = weights[name]
                weights[name] = whole
        locator.load_state_dict(weights)
    except (OSError, KeyError, RuntimeError) as error:
        raise WysError(
            f"the locator of {editor} cannot be trained further with these settings: {error}"
        ) from error


def locator_state(out: Path) -> Path:
    """Where the state of the locator's training is kept."""
    return out / "state" / "locator.safetensors"


def check_also(others: Sequence[Path], size: int) -> None:
    """Raises WysError where folders are no runs whose latents of a size can be learnt from."""
    for other in others:
        for name in _SHARED:
            if not (other / name).is_file():
                raise WysError(f"{other} is no run to learn from too: it has no {name}.")
        LatentSet(other / "latents", "train", size).shards()


def check_alike(out: Path, others: Sequence[Path]) -> None:
    """Raises WysError where latents or tokens of other runs mean something else than those here."""
    for name in _SHARED:
        if not (out / name).is_file():
            raise WysError(f"{out} has no {name} yet; run the tokenizer and latents stages.")
    names = [*_SHARED, *([BEGINNING] if (out / BEGINNING).is_file() else [])]
    for other in others:
        for name in names:
            theirs = other / name
            if theirs.is_file() and not filecmp.cmp(out / name, theirs, shallow=False):
                raise WysError(
                    f"the triplets of {other} cannot be learnt from too: its {name} is another; "
                    "begin both runs with the same --start."
                )
        mine, theirs = (read_json(each / "data" / "index.json") for each in (out, other))
        if mine["labelled"] != theirs["labelled"]:
            raise WysError(
                f"the triplets of {other} cannot be learnt from too: they are of another source, "
                "the tabletop world or a folder of one's own."
            )


def check_reads(text: CLIPTextModel, out: Path) -> None:
    """Notes with which text encoder the locator of `out` is taught to read.

    Raises:
        WysError: it was taught with another one.
    """
    digest = sha256()
    for parameter in text.parameters():
        digest.update(parameter.detach().float().cpu().numpy().tobytes())
    path = locator_state(out).with_suffix(".json")
    if not path.exists():
        write_json(path, {"text_encoder": digest.hexdigest()})
    elif read_json(path) != {"text_encoder": digest.hexdigest()}:
        raise WysError(
            f"the locator of {out} was taught with another text encoder; delete "
            f"{locator_state(out)} and {path}, and run the locator stage again."
        )


def train_locator(
    accelerator: Accelerator,
    settings: LocatorSettings,
    network: NetworkSettings,
    out: Path,
    also: tuple[Path, ...],
    start: Path | None,
    load_text: Callable[[], CLIPTextModel],
    size: int,
    compile: bool,
    minutes: float,
) -> None:
    """Trains, or goes on from `out/state/locator.safetensors`.

    Args:
        also: folders of other runs, whose latents are learnt from as much as those of `out`.
        start: an editor whose locator training begins with, if it has one.
        load_text: the trained text encoder, which stays as it is.
        size: of the images, in pixels.
        minutes: time between two saves; a validation and a sheet come with each.
    """
    torch.manual_seed(settings.seed)
    device, processes = accelerator.device, accelerator.num_processes
    check_alike(out, also)
    scale = float(read_json(out / "latents" / "scale.json")["scaling_factor"])
    sets = [
        LatentSet(folder / "latents", "train", size, settings.emphasis, settings.kind_emphasis)
        for folder in (out, *also)
    ]
    held_out = LatentSet(out / "latents", "validation", size).first(settings.validation)
    latent = held_out.before
    locator, deep = build_locator(settings, network, latent.shape[1], latent.shape[-1])
    if start is not None and (start / LOCATOR).is_dir() and not locator_state(out).exists():
        take_locator(locator, start)
    text = load_text()
    with accelerator.main_process_first():
        check_reads(text, out)
    text.to(device)
    learner = Learner({"locator": locator, "deep": deep}, settings.optimiser, accelerator)
    if locator_state(out).exists():
        learner.load(locator_state(out))
    schedule = Schedule(settings.images, settings.peak_rate, settings.warmup, settings.final_rate)
    garble = Garbler(load_tokenizer(out / "tokenizer"), settings.garbling)
    fast = compiled(locator, compile)
    share = settings.batch // processes

    def batch_loss() -> tuple[Tensor, dict[str, Tensor]]:
        number = learner.position.step * processes + accelerator.process_index
        draw = generator(settings.seed, number, "locator batch")
        # As many of each run, and what is left over of the first.
        counts = [share // len(sets)] * len(sets)
        counts[0] += share - sum(counts)
        drawn = zip(sets, counts, strict=True)
        batch = concatenate([of.draw(n, settings.group, draw) for of, n in drawn if n])
        tokens = garble(batch.tokens, draw).to(device)
        batch = batch.to(device)
        with accelerator.autocast():
            output = answer(fast, text, scale * batch.before, tokens)
        given = torch.ones_like(batch.target, dtype=torch.bool)
        return label_losses(
            (output, *deep.predictions), batch, settings.losses, has_text=given, has_image=given
        )

    def evaluate() -> dict[str, float]:
        locator.eval()
        found = changes(locator, text, held_out.to(device), scale)
        few = slice(SHEET_ROWS)
        map_sheet(out / "data", size, found[few], out / "sheets" / "locator.png")
        locator.train()
        overlap = iou(found, held_out.changed[:, 0].to(device))
        chosen = torch.tensor([kind != "absent" for kind in held_out.kinds], device=device)
        figures = {"locator_iou": float(overlap[chosen].mean())}
        return figures | by_kind("locator_iou", overlap, chosen, held_out.kinds)

    compile_first(learner, compile, batch_loss)
    run_steps(
        learner,
        schedule,
        "locator",
        out,
        minutes,
        batch_loss,
        lambda: share * processes,
        evaluate,
    )


def changes(
    locator: UNet2DConditionModel,
    text: CLIPTextModel,
    batch: Batch,
    scale: float,
    at_once: int = 64,
) -> Float[Tensor, "b h w"]:
    """The probability that a latent pixel changes, in [0, 1]."""
    parts = zip(batch.before.split(at_once), batch.tokens.split(at_once), strict=True)
    found = [answer(locator, text, scale * before, tokens)[:, 0] for before, tokens in parts]
    return torch.cat(found).float().sigmoid()
