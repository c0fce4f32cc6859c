"""The locator: a small network that says where an instruction changes an image, and only that.

The relevance head sees an image beside an edit's noise and shares all but its last layer with what
paints. The locator is taught nothing but where. It reads the same words, looks at the clean latent,
at what the denoiser would make of it, and at what the head said, and decides how much of the edit
to take: a second pair of eyes, which learns where the first ones err, and what such an error costs.
A map is the lower of its answer and the head's (`Editor.locate`).
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

from wys.diffusion.editor import locator_sight, sight_channels
from wys.diffusion.refusals import LOCATOR
from wys.errors import WysError
from wys.seeds import generator
from wys.store import read_json, write_json
from wys.training.beginning import BEGINNING
from wys.training.denoiser import (
    LABELS,
    DeepSupervision,
    Heads,
    LossSettings,
    NetworkSettings,
    Noised,
    build_scheduler,
    build_unet,
    label_losses,
    noised,
)
from wys.training.garbling import Garbler, GarblingSettings
from wys.training.latents import Batch, LatentSet, check_emphasis, concatenate, tokenise
from wys.training.learner import Learner, OptimiserSettings, load_average
from wys.training.loop import compile_first, run_steps
from wys.training.parallel import compiled
from wys.training.schedule import Schedule
from wys.training.sheets import SHEET_ROWS, map_sheet
from wys.training.tokenizer import load_tokenizer
from wys.training.validation import GROUNDING_TIMESTEP, by_kind, fixed_noise, in_parts, iou

_SHARED = ("latents/scale.json", "tokenizer/vocab.json", "tokenizer/merges.txt")
"""What runs have in common whose latents and tokens mean the same."""
_NOISIEST = 750, 1000
"""Timesteps that the denoiser is asked at: those of relevance maps (section 4.1 has 800)."""


@dataclass(frozen=True)
class MixSettings:
    """What counts how much as a locator learns how much of an edit to take."""

    inside: float = 7.5
    """The squared error of the mix in the true region, per pixel and channel of a scaled latent."""
    outside: float = 67.0
    """The same outside of it, where the error is a twenty-fifth as large."""
    labels: float = 0.3
    """The losses of the labels, which are learnt beside it."""


@dataclass(frozen=True)
class LocatorSettings:
    """The locator and its training."""

    channels: tuple[int, ...] = (32, 64, 96)
    """Width of each level; the rest of the network is as in the denoiser's UNet."""
    mix: MixSettings = field(default_factory=MixSettings)
    """What its answer is taught by."""
    losses: LossSettings = field(default_factory=lambda: LossSettings(change=1.6))
    """What is learnt beside it; of the denoiser's losses those of the labels."""
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
        channels = sight_channels(latent_channels), sum(LABELS)
        locator = build_unet(narrow, *channels, latent_size)
        return locator, DeepSupervision(locator)


def answer(
    locator: Callable[..., Any],
    denoiser: Callable[..., Any],
    text: CLIPTextModel,
    given: Noised,
    scale: float,
) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b c h w"]]:
    """All output channels for a noised batch, and the clean latent that the denoiser predicts.

    The denoiser is shown the batch first; the locator's own answer is the first channel.
    """
    latent = given.clean.shape[1]
    with torch.no_grad():
        words = text(given.tokens).last_hidden_state
        found = denoiser(given.sample, given.timestep, encoder_hidden_states=words).sample
        clean, change, *_ = found.float().split(Heads(latent).sizes, dim=1)
        sight = locator_sight(scale * given.sample[:, latent:], clean, change.sigmoid())
    return locator(sight, given.timestep, encoder_hidden_states=words).sample, clean


def mix_loss(
    answer: Float[Tensor, "b 1 h w"],
    edit: Float[Tensor, "b c h w"],
    batch: Batch,
    scale: float,
    settings: MixSettings,
) -> tuple[Tensor, dict[str, Tensor]]:
    """How far image and edit, mixed as a locator says, are from the true edit; inside and outside.

    What the locator learns by it is the share of an edit that is worth taking, which is less than
    the probability of a change where the edit is painted badly or in a place that is not sure.

    Args:
        answer: the locator's, before its sigmoid.
        edit: the scaled clean latent that the denoiser predicts.
        scale: the factor of scaled latents over the batch's.
    """
    before, after = scale * batch.before, scale * batch.after
    mixed = torch.lerp(before, edit, answer.float().sigmoid())
    error = (mixed - after).square().mean(dim=1, keepdim=True)
    inside = _mean_where(error, batch.changed)
    outside = _mean_where(error, 1 - batch.changed)
    total = settings.inside * inside + settings.outside * outside
    return total, {"inside": inside.detach(), "outside": outside.detach()}


def _mean_where(
    error: Float[Tensor, "b 1 h w"], share: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, ""]:
    """The mean over pixels, by how much each of them counts; 0 where none does."""
    return (error * share).sum() / share.sum().clamp(min=1e-6)


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


def check_teachers(denoiser: UNet2DConditionModel, text: CLIPTextModel, out: Path) -> None:
    """Notes which denoiser and text encoder the locator of `out` is taught to read.

    Raises:
        WysError: it was taught with others.
    """
    digest = sha256()
    for network in (denoiser, text):
        for parameter in network.parameters():
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
    path = locator_state(out).with_suffix(".json")
    if not path.exists():
        write_json(path, {"taught_with": digest.hexdigest()})
    elif read_json(path) != {"taught_with": digest.hexdigest()}:
        raise WysError(
            f"the locator of {out} was taught with another denoiser or text encoder; delete "
            f"{locator_state(out)} and {path}, and run the locator stage again."
        )


def train_locator(
    accelerator: Accelerator,
    settings: LocatorSettings,
    network: NetworkSettings,
    out: Path,
    also: tuple[Path, ...],
    start: Path | None,
    load_networks: Callable[[], tuple[UNet2DConditionModel, CLIPTextModel]],
    size: int,
    compile: bool,
    minutes: float,
) -> None:
    """Trains, or goes on from `out/state/locator.safetensors`.

    Args:
        also: folders of other runs, whose latents are learnt from as much as those of `out`.
        start: an editor whose locator training begins with, if it has one.
        load_networks: the trained denoiser and text encoder, which stay as they are.
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
    held_out = LatentSet(out / "latents", "validation", size).first(settings.validation).to(device)
    latent = held_out.before
    locator, deep = build_locator(settings, network, latent.shape[1], latent.shape[-1])
    if start is not None and (start / LOCATOR).is_dir() and not locator_state(out).exists():
        take_locator(locator, start)
    denoiser, text = load_networks()
    with accelerator.main_process_first():
        check_teachers(denoiser, text, out)
    denoiser.to(device), text.to(device)
    learner = Learner({"locator": locator, "deep": deep}, settings.optimiser, accelerator)
    if locator_state(out).exists():
        learner.load(locator_state(out))
    schedule = Schedule(settings.images, settings.peak_rate, settings.warmup, settings.final_rate)
    tokenizer = load_tokenizer(out / "tokenizer")
    garble = Garbler(tokenizer, settings.garbling)
    null_tokens = tokenise(tokenizer, [""])[0].to(device)
    alphas = build_scheduler().alphas_cumprod.to(device)
    fast, fast_denoiser = compiled(locator, compile), compiled(denoiser, compile)
    share = settings.batch // processes

    def batch_loss() -> tuple[Tensor, dict[str, Tensor]]:
        number = learner.position.step * processes + accelerator.process_index
        draw = generator(settings.seed, number, "locator batch")
        # As many of each run, and what is left over of the first.
        counts = [share // len(sets)] * len(sets)
        counts[0] += share - sum(counts)
        drawn = zip(sets, counts, strict=True)
        batch = concatenate([of.draw(n, settings.group, draw) for of, n in drawn if n])
        batch.tokens = garble(batch.tokens, draw)
        noise = torch.randn(batch.before.shape, generator=draw)
        timestep = torch.randint(*_NOISIEST, (len(noise),), generator=draw)
        batch = batch.to(device)
        everywhere = torch.ones_like(batch.target, dtype=torch.bool)
        given = noised(
            batch,
            scale,
            timestep.to(device),
            noise.to(device),
            alphas,
            null_tokens=null_tokens,
            has_text=everywhere,
            has_image=everywhere,
            from_input=everywhere,
        )
        with accelerator.autocast():
            output, edit = answer(fast, fast_denoiser, text, given, scale)
        mixed, errors = mix_loss(output[:, :1], edit, batch, scale, settings.mix)
        # What the answer itself is, the mix alone decides.
        beside = torch.cat([output[:, :1].detach(), output[:, 1:]], dim=1)
        labels, parts = label_losses(
            (beside, *deep.predictions),
            batch,
            settings.losses,
            has_text=everywhere,
            has_image=everywhere,
        )
        return mixed + settings.mix.labels * labels, parts | errors

    def evaluate() -> dict[str, float]:
        locator.eval()

        def run(given: Noised) -> Tensor:
            with accelerator.autocast():
                return answer(locator, denoiser, text, given, scale)[0][:, :1]

        timestep = torch.full_like(held_out.target, GROUNDING_TIMESTEP)
        given = fixed_noise(
            held_out, scale, timestep, alphas, null_tokens, with_text=True, from_input=True
        )
        found = in_parts(run, given)[:, 0].sigmoid()
        few = slice(SHEET_ROWS)
        map_sheet(out / "data", size, found[few], out / "sheets" / "locator.png")
        locator.train()
        overlap = iou(found, held_out.changed[:, 0])
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
