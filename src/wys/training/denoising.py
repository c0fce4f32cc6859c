"""Training the denoiser: small latents first, then those of the editor's own size."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from wys.errors import WysError
from wys.seeds import generator
from wys.store import read_json, read_tensors
from wys.training.denoiser import (
    DeepSupervision,
    Heads,
    LossSettings,
    NetworkSettings,
    Noised,
    build_scheduler,
    build_text_encoder,
    build_unet,
    draw_timesteps,
    losses,
    noised,
    predict,
)
from wys.training.export import assemble
from wys.training.garbling import Garbler, GarblingSettings
from wys.training.latents import Batch, LatentSet, check_emphasis, tokenise
from wys.training.learner import Learner, OptimiserSettings, load_average
from wys.training.loop import compile_first, run_steps
from wys.training.parallel import compiled
from wys.training.schedule import Schedule
from wys.training.sheets import SHEET_ROWS, sample_sheet
from wys.training.tokenizer import load_tokenizer
from wys.training.validation import grounding_maps, validate


@dataclass(frozen=True)
class Phase:
    """A stretch of training at one size."""

    size: int
    """Size of the images in pixels: the small or the large one of the data."""
    images: int
    """Images that are seen in this phase."""
    batch: int
    """Images of a step, over all processes."""


@dataclass(frozen=True)
class DenoiserSettings:
    """Text encoder and UNet, and how they are trained together."""

    network: NetworkSettings = field(default_factory=NetworkSettings)
    """Sizes of the networks."""
    losses: LossSettings = field(default_factory=LossSettings)
    """What is learnt, and how much it counts."""
    garbling: GarblingSettings = field(default_factory=GarblingSettings)
    """How instructions are garbled, so that phrasings are not learnt by heart."""
    phases: tuple[Phase, ...] = (Phase(64, 288_000, 64), Phase(128, 64_000, 32))
    """One after the other; the learning rate runs over all of them."""
    peak_rate: float = 1e-3
    """Highest learning rate."""
    warmup: int = 8_000
    """Images over which the learning rate rises."""
    final_rate: float = 0.05
    """Last learning rate, as a fraction of the highest."""
    group: int = 2
    """Instructions for the same scene that stand together in a batch."""
    emphasis: tuple[float, float, float, float] = (1.0, 1.0, 4.0, 10.0)
    """How often triplets are drawn, relative to each other, whose instruction tells its object by
    nothing (there is none, or no other), its colour, other words, its place. Most objects can be
    told by colour, and a network that has learnt this much tries no further."""
    kind_emphasis: Mapping[str, float] = field(default_factory=dict)
    """The same by kind of edit, on top ("add 3 shape 1.5"); a kind left out counts 1."""
    seed: int = 0
    """Seed of the weights, batches and noise."""
    validation: int = 256
    """Triplets that are validated on."""
    optimiser: OptimiserSettings = field(default_factory=lambda: OptimiserSettings(ema=0.998))
    """AdamW, clipping and averaging."""

    def __post_init__(self) -> None:
        check_emphasis(self.emphasis, self.kind_emphasis)

    @property
    def images(self) -> int:
        """Images of all phases."""
        return sum(phase.images for phase in self.phases)

    def phase(self, images: int) -> Phase:
        """The phase of the step that begins after `images` images."""
        end = 0
        for phase in self.phases:
            end += phase.images
            if images < end:
                return phase
        return self.phases[-1]

    def pixels(self, images: int) -> float:
        """The pixels of so many images from the beginning, by which steps take their time."""
        total, left = 0, images
        for phase in self.phases:
            total += min(left, phase.images) * phase.size**2
            left -= min(left, phase.images)
        return float(total + left * self.phases[-1].size ** 2)


def build_networks(
    settings: DenoiserSettings, tokenizer: CLIPTokenizer, latent_channels: int, latent_size: int
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """The untrained UNet, with auxiliary outputs, and text encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        channels = sum(Heads(latent_channels).sizes)
        unet = build_unet(settings.network, 2 * latent_channels, channels, latent_size)
        text = build_text_encoder(settings.network, tokenizer)
    return unet, text


def deep_supervision(settings: DenoiserSettings, unet: UNet2DConditionModel) -> DeepSupervision:
    """The untrained heads inside the UNet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return DeepSupervision(unet)


def take_weights(unet: UNet2DConditionModel, text: CLIPTextModel, editor: Path) -> None:
    """Gives untrained networks the weights of an editor; auxiliary outputs stay untrained.

    Raises:
        WysError: the editor is of another size.
    """
    latent = unet.config.in_channels // 2
    try:
        weights = UNet2DConditionModel.from_pretrained(editor / "unet").float().state_dict()
        told = CLIPTextModel.from_pretrained(editor / "text_encoder").float().state_dict()
        head = read_tensors(editor / "relevance_head.safetensors")
        with torch.no_grad():
            for name in ("weight", "bias"):
                whole = getattr(unet.conv_out, name).clone()
                whole[:latent] = weights[f"conv_out.{name}"]
                whole[latent : latent + 1] = head[name]
                weights[f"conv_out.{name}"] = whole
        unet.load_state_dict(weights)
        text.load_state_dict(told)
    except (OSError, KeyError, RuntimeError) as error:
        raise WysError(
            f"{editor} cannot be trained further with these settings: {error}"
        ) from error


def denoiser_state(out: Path) -> Path:
    """Where the state of the denoiser's training is kept."""
    return out / "state" / "denoiser.safetensors"


def load_networks(
    settings: DenoiserSettings, out: Path, latent_channels: int, latent_size: int
) -> tuple[UNet2DConditionModel, CLIPTextModel, int]:
    """The trained networks with averaged weights, on the CPU, and the images they have seen."""
    tokenizer = load_tokenizer(out / "tokenizer")
    unet, text = build_networks(settings, tokenizer, latent_channels, latent_size)
    modules = {"unet": unet, "text": text, "deep": deep_supervision(settings, unet)}
    position = load_average(modules, denoiser_state(out))
    return unet.eval(), text.eval(), position.images


def train_denoiser(
    accelerator: Accelerator,
    settings: DenoiserSettings,
    out: Path,
    load_vae: Callable[[], AutoencoderKL],
    start: Path | None,
    compile: bool,
    minutes: float,
) -> None:
    """Trains, or goes on from `out/state/denoiser.safetensors`.

    Args:
        start: an editor whose weights training begins with.
        load_vae: the trained autoencoder, for the sample sheets.
        minutes: time between two saves; a validation and a sheet come with each.
    """
    torch.manual_seed(settings.seed)
    device = accelerator.device
    state = denoiser_state(out)
    tokenizer = load_tokenizer(out / "tokenizer")
    vae = load_vae().to(device)
    scale = float(read_json(out / "latents" / "scale.json")["scaling_factor"])
    sets = {
        phase.size: LatentSet(
            out / "latents", "train", phase.size, settings.emphasis, settings.kind_emphasis
        )
        for phase in settings.phases
    }
    held_out = {
        phase.size: LatentSet(out / "latents", "validation", phase.size).first(settings.validation)
        for phase in settings.phases
    }
    latent = held_out[settings.phases[-1].size].after
    unet, text = build_networks(settings, tokenizer, latent.shape[1], latent.shape[-1])
    if device.type == "cuda":
        # Faster convolutions in 16 bit; on a CPU the group normalisation would lose more by it.
        unet.to(memory_format=torch.channels_last)
    if start is not None and not state.exists():
        take_weights(unet, text, start)
    deep = deep_supervision(settings, unet)
    modules = {"unet": unet, "text": text, "deep": deep}
    learner = Learner(modules, settings.optimiser, accelerator)
    if state.exists():
        learner.load(state)
    schedule = Schedule(settings.images, settings.peak_rate, settings.warmup, settings.final_rate)
    alphas = build_scheduler().alphas_cumprod.to(device)
    null_tokens = tokenise(tokenizer, [""])[0].to(device)
    garble = Garbler(tokenizer, settings.garbling)
    fast_unet = compiled(unet, compile)

    def phase() -> Phase:
        return settings.phase(learner.position.images)

    def share_of(size: int) -> int:
        return size // accelerator.num_processes

    def batch_loss() -> tuple[Tensor, dict[str, Tensor]]:
        now = phase()
        draw = generator(
            settings.seed,
            learner.position.step * accelerator.num_processes + accelerator.process_index,
            "denoiser batch",
        )
        count = share_of(now.batch)
        batch = sets[now.size].draw(count, settings.group, draw)
        batch.tokens = garble(batch.tokens, draw)
        given = random_noise(batch, scale, settings.losses, draw, alphas, null_tokens)
        with accelerator.autocast():
            output = predict(fast_unet, text, given)
        return losses(output, batch.to(device), given, settings.losses, deep.predictions)

    def evaluate() -> dict[str, float]:
        unet.eval(), text.eval()

        def run(given: Noised) -> Tensor:
            with accelerator.autocast():
                return predict(unet, text, given)

        batch = held_out[phase().size].to(device)
        figures = validate(run, batch, scale, alphas, null_tokens, settings.losses)
        few = held_out[phase().size].first(SHEET_ROWS).to(device)
        head, _, difference = grounding_maps(run, few, scale, alphas, null_tokens)
        pipeline = assemble(vae, unet, text, tokenizer)
        path = out / "sheets" / "denoiser.png"
        sample_sheet(pipeline, out / "data", phase().size, head, difference, path)
        unet.train(), text.train()
        return figures

    compile_first(learner, compile, batch_loss)
    run_steps(
        learner,
        schedule,
        "denoiser",
        out,
        minutes,
        batch_loss,
        lambda: share_of(phase().batch) * accelerator.num_processes,
        evaluate,
        settings.pixels,
    )


def random_noise(
    batch: Batch,
    scale: float,
    settings: LossSettings,
    draw: torch.Generator,
    alphas: Tensor,
    null_tokens: Tensor,
) -> Noised:
    """A batch at random timesteps with randomly dropped conditions; noise is drawn on the CPU."""
    count, device = batch.after.shape[0], alphas.device
    timestep = draw_timesteps(count, settings.high_share, draw)
    noise = torch.randn(batch.after.shape, generator=draw)
    luck, kind = torch.rand(2, count, generator=draw)
    # [0, p) drops the text, [p, 2p) both, [2p, 3p) the image.
    has_text, has_image = (
        luck >= 2 * settings.drop,
        ~((luck >= settings.drop) & (luck < 3 * settings.drop)),
    )
    return noised(
        batch.to(device),
        scale,
        timestep.to(device),
        noise.to(device),
        alphas,
        null_tokens=null_tokens,
        has_text=has_text.to(device),
        has_image=has_image.to(device),
        from_input=((kind < settings.input_share) & has_image).to(device),
    )
