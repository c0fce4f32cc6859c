"""The editor: an InstructPix2Pix pipeline as encode, predict, decode.

Symbols: c_I = E(I) is the image's latent (the posterior's mode), z0 = E(I) * scale the one that is
noised and edited, c_T the instruction's embedding. The network sees z_t and c_I along channels.
"""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor

from wys.diffusion import loading
from wys.diffusion.conditioning import Branch, Conditioning
from wys.diffusion.loading import EditorOptions
from wys.diffusion.noise import NoisePrediction
from wys.diffusion.refusals import LOCATOR, PIPELINE, check_parts
from wys.diffusion.schedule import Schedule
from wys.diffusion.settings import PAPER, EditorSettings
from wys.errors import WysError, WysWarning
from wys.image import from_model, to_model
from wys.names import is_text

LARGE = 0.2
"""The share of an image above which an edit is of no single object."""


class Editor:
    """An image editor that follows instructions. It keeps no state from one edit to the next."""

    def __init__(
        self,
        pipeline: StableDiffusionInstructPix2PixPipeline,
        device: torch.device,
        settings: EditorSettings = PAPER,
        head: dict[str, Tensor] | None = None,
        locator: UNet2DConditionModel | None = None,
        max_batch: int | None = None,
        name: str = "the pipeline",
    ) -> None:
        check_parts(pipeline, name)
        if max_batch is not None and max_batch < 1:
            raise WysError(f"max_batch is at least 1, not {max_batch}.")
        if settings.size is None and pipeline.unet.config.sample_size is None:
            raise WysError(f"{name} does not say at what size it works; give --edit-size.")
        # The pipeline is only read: nothing in it is ever changed.
        self._pipeline = pipeline
        self.unet, self.vae = pipeline.unet, pipeline.vae
        self.device = device
        self.settings = settings
        self.max_batch = max_batch
        self.name = name
        self.schedule = Schedule.from_config(pipeline.scheduler.config)
        self.head = None if head is None else self._checked_head(head)
        self.locator = None if locator is None else self._checked_locator(locator)

    @staticmethod
    def load(
        name: str = "builtin", options: EditorOptions | None = None, **overrides: Any
    ) -> "Editor":
        """Loads an editor.

        Args:
            name: "builtin", a diffusers pipeline directory, a .safetensors file, or a hub id.
            options: device, number format and memory options; see `EditorOptions`.
            overrides: single fields of `EditorOptions`, such as `device="cuda"`.

        Raises:
            WysError: it is missing, damaged or not supported, or an option does not fit.
        """
        known = EditorOptions.__dataclass_fields__
        unknown = [field for field in overrides if field not in known]
        if unknown:
            raise WysError(f"loading has no option {unknown[0]}; it has {', '.join(known)}.")
        options = EditorOptions(**{**vars(options or EditorOptions()), **overrides})
        with loading.explained(name, options):
            found = loading.load(name, options)
            editor = Editor(
                found.pipeline,
                found.device,
                found.settings,
                found.head,
                found.locator,
                options.max_batch,
                name,
            )
            # Some of a scheduler's configuration is read only when it is used.
            editor.schedule.timesteps(1)
        return editor

    @staticmethod
    def from_pipeline(
        pipeline: StableDiffusionInstructPix2PixPipeline,
        *,
        device: str | torch.device | None = None,
        settings: EditorSettings = PAPER,
        max_batch: int | None = None,
    ) -> "Editor":
        """An editor around a live pipeline, with its LoRAs and hooks. The pipeline is not changed.

        Args:
            device: where inputs go; needed only for a pipeline whose weights are offloaded.
        """
        if not isinstance(pipeline, StableDiffusionInstructPix2PixPipeline):
            raise WysError(
                f"{type(pipeline).__name__} is not supported; use a {PIPELINE} of the "
                "Stable Diffusion 1 or 2 kind."
            )
        place = pipeline.device if device is None else torch.device(device)
        return Editor(pipeline, place, settings, max_batch=max_batch)

    @property
    def pipeline(self) -> StableDiffusionInstructPix2PixPipeline:
        """The diffusers pipeline whose parts the editor uses."""
        return self._pipeline

    @property
    def latent_factor(self) -> int:
        """Image pixels to a latent pixel, along one side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def latent_unit(self) -> int:
        """Latent pixels that the deepest level of the network sees as one; the least side of
        latents, and what the sides of windows are multiples of."""
        return int(2 ** (len(self.unet.config.down_block_types) - 1))

    @property
    def native_size(self) -> int:
        """The longer side, in pixels, of the images that the editor works on."""
        if self.settings.size is not None:
            return self.settings.size
        size = self.unet.config.sample_size
        return int(max(size) if isinstance(size, list | tuple) else size) * self.latent_factor

    @property
    def fingerprint(self) -> str:
        """Tells the editor's weights from others: SHA-256 of some values of every parameter."""
        found = hashlib.sha256()
        networks = [self.unet, self.vae, *([] if self.locator is None else [self.locator])]
        parts = [dict(part.named_parameters()) for part in networks]
        # A head's two tensors come from a file in another order than from a trained layer.
        head = dict(sorted((self.head or {}).items()))
        parts += [dict(self._pipeline.text_encoder.named_parameters()), head]
        for part in parts:
            for name, parameter in part.items():
                found.update(f"{name} {tuple(parameter.shape)}".encode())
                if not parameter.is_meta:  # Those that are offloaded layer by layer.
                    some = parameter.detach().flatten()[:16].float().cpu()
                    found.update(some.numpy().tobytes())
        return found.hexdigest()

    def fit(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) at which an image of a size is edited.

        The longer side becomes `native_size`, the other follows the aspect, and both are rounded to
        whole latent pixels. The network need not halve them evenly: where it does not, diffusers
        brings what comes up to the size of what went down.
        """
        factor = self.latent_factor
        least, scale = factor * self.latent_unit, self.native_size / max(size)
        height, width = (max(least, round(side * scale / factor) * factor) for side in size)
        return height, width

    @torch.no_grad()
    def condition(
        self,
        images: Float[Tensor, "b 3 h w"],
        instructions: Sequence[str],
        negative: str = "",
    ) -> Conditioning:
        """Encodes images in [0, 1] of an editable size (see `fit`) and an instruction for each.

        Args:
            negative: what to steer away from: stands in for "no instruction" in the guidance.

        Raises:
            WysError: an instruction is empty, or their number differs from the images'.
        """
        if len(instructions) != len(images):
            raise WysError(
                f"{len(images)} images need as many instructions, not {len(instructions)}."
            )
        if any(not instruction.strip() for instruction in instructions):
            raise WysError("the instruction is empty; say what to change.")
        pixels = to_model(images).to(self.device, self.vae.dtype)
        mode = self.vae.encode(pixels).latent_dist.mode().float()
        told = self.encode_text([*instructions, negative])
        text, null = told[:-1], told[-1:].expand(len(images), -1, -1)
        return Conditioning(mode * self.vae.config.scaling_factor, mode, text, null)

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Float[Tensor, "b n d"]:
        """Token embeddings, padded to the text encoder's length; warns of what was cut."""
        tokenizer, encoder = self._pipeline.tokenizer, self._pipeline.text_encoder
        if not all(map(is_text, prompts)):
            raise WysError("an instruction is no valid Unicode text; type it again.")
        # Textual inversions that span several tokens are spelled out here.
        prompts = [self._pipeline.maybe_convert_prompt(prompt, tokenizer) for prompt in prompts]
        length = tokenizer.model_max_length
        for prompt in prompts:
            # Start and end token take a place each.
            tokens = tokenizer(prompt, add_special_tokens=False).input_ids
            if len(tokens) > length - 2:
                kept, cut = (
                    tokenizer.decode(part).strip()
                    for part in (tokens[: length - 2], tokens[length - 2 :])
                )
                warnings.warn(
                    f"the text encoder takes {length - 2} tokens of text: this one was cut "
                    f'after "...{kept[-40:]}", leaving out "{cut}".',
                    WysWarning,
                    stacklevel=4,
                )
        batch = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        uses_mask = getattr(encoder.config, "use_attention_mask", False)
        attention = batch.attention_mask.to(self.device) if uses_mask else None
        embeddings: Tensor = encoder(batch.input_ids.to(self.device), attention_mask=attention)[0]
        return embeddings.to(self.unet.dtype)

    @torch.no_grad()
    def predict(
        self,
        z: Float[Tensor, "b c h w"],
        t: int | Int[Tensor, " b"],
        conditioning: Conditioning,
        branches: Sequence[Branch] = ("full", "image", "none"),
        change: bool = False,
    ) -> NoisePrediction:
        """The noise in z_t under each of the conditions asked for, float32.

        One batched call of the network runs them all (several where `max_batch` says so).

        Args:
            change: read the relevance head off the branch `full` as well, which costs nothing more.

        Raises:
            WysError: the editor has no relevance head, and it was asked for.
        """
        if change and self.head is None:
            raise WysError(
                f"{self.name} has no relevance head ({loading.HEAD}); use the relevance source "
                "difference."
            )
        image, zeros = conditioning.image_latents, torch.zeros_like(conditioning.image_latents)
        latents = {"full": image, "image": image, "none": zeros}
        text = {
            "full": conditioning.text,
            "image": conditioning.null_text,
            "none": conditioning.null_text,
        }
        times = torch.as_tensor(t).reshape(-1).expand(len(z))
        with self._features(change) as features:
            output = self._run(
                self.unet,
                torch.cat([torch.cat([z, latents[branch]], dim=1) for branch in branches]),
                times.repeat(len(branches)),
                torch.cat([text[branch] for branch in branches]),
            )
        noises = (self.schedule.to_noise(part, z, t) for part in output.split(len(z)))
        read = None
        if change:
            own = torch.cat(features).split(len(z))[branches.index("full")]
            read = self._read_head(own).to(z.device)
        return NoisePrediction(**dict(zip(branches, noises, strict=True)), change=read)

    @torch.no_grad()
    def predict_change(
        self, z: Float[Tensor, "b c h w"], t: int | Int[Tensor, " b"], conditioning: Conditioning
    ) -> Float[Tensor, "b 1 h w"]:
        """The relevance head's probability that a latent pixel changes, from the full branch.

        Raises:
            WysError: the editor has no relevance head.
        """
        change = self.predict(z, t, conditioning, ("full",), change=True).change
        assert change is not None
        return change

    @torch.no_grad()
    def locate(
        self,
        z: Float[Tensor, "b c h w"],
        t: int | Int[Tensor, " b"],
        conditioning: Conditioning,
        prediction: NoisePrediction,
    ) -> Float[Tensor, "b 1 h w"]:
        """How much of an edit head and locator would take at each latent pixel, from 0 to 1.

        That is the lower of their answers: they mistake different objects. Where the head means
        more than `LARGE` of an image, which is then its floor, its background or its light, and
        mistaken by nobody, its own answer stays.

        Args:
            prediction: at z_t, of the branch `full` and with what the relevance head read off it.

        Raises:
            WysError: the editor has no locator.
        """
        if self.locator is None:
            others = "difference" if self.head is None else "head or difference"
            raise WysError(
                f"{self.name} has no locator (the folder {LOCATOR}); use the relevance source "
                f"{others}."
            )
        assert prediction.change is not None
        clean = self.schedule.clean(z, prediction.branch("full"), t)
        sight = locator_sight(conditioning.z0, clean, prediction.change)
        times = torch.as_tensor(t).reshape(-1).expand(len(z))
        found = self._run(self.locator, sight, times, conditioning.text).sigmoid()
        share = (prediction.change > 0.5).float().mean(dim=(1, 2, 3), keepdim=True)
        return torch.where(share > LARGE, prediction.change, prediction.change.minimum(found))

    def _read_head(self, features: Tensor) -> Float[Tensor, "b 1 h w"]:
        """The head's probability from what enters the network's last convolution."""
        assert self.head is not None
        weight, bias = (self.head[name].to(features.device) for name in ("weight", "bias"))
        return torch.nn.functional.conv2d(features.float(), weight, bias, padding=1).sigmoid()

    @torch.no_grad()
    def decode(self, z: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 3 h w"]:
        """Clean scaled latents to images in [0, 1], float32."""
        unscaled = (z / self.vae.config.scaling_factor).to(self.device, self.vae.dtype)
        return from_model(self.vae.decode(unscaled).sample.float())

    def _run(
        self, network: UNet2DConditionModel, inputs: Tensor, times: Tensor, text: Tensor
    ) -> Float[Tensor, "n c h w"]:
        """A network's output, float32, at most `max_batch` rows at a time."""
        dtype, count = network.dtype, self.max_batch or len(inputs)
        parts = []
        for first in range(0, len(inputs), count):
            rows = slice(first, first + count)
            output = network(
                inputs[rows].to(self.device, dtype),
                times[rows].to(self.device),
                encoder_hidden_states=text[rows].to(self.device, dtype),
                return_dict=False,
            )[0]
            parts.append(output.float())
        return torch.cat(parts).to(inputs.device)

    @contextmanager
    def _features(self, wanted: bool) -> Iterator[list[Tensor]]:
        """Collects what enters the network's last convolution while the context is open."""
        features: list[Tensor] = []
        if not wanted:
            yield features
            return
        handle = self.unet.conv_out.register_forward_pre_hook(
            lambda _, arguments: features.append(arguments[0])
        )
        try:
            yield features
        finally:
            handle.remove()

    def _checked_head(self, head: dict[str, Tensor]) -> dict[str, Tensor]:
        channels = self.unet.conv_out.in_channels
        shapes = {key: tuple(value.shape) for key, value in head.items()}
        if shapes != {"weight": (1, channels, 3, 3), "bias": (1,)}:
            raise WysError(
                f"the relevance head of {self.name} does not fit: it needs weight "
                f"[1, {channels}, 3, 3] and bias [1], not {shapes}."
            )
        return {key: value.float().to(self.device) for key, value in head.items()}

    def _checked_locator(self, locator: UNet2DConditionModel) -> UNet2DConditionModel:
        if self.head is None:
            raise WysError(
                f"{self.name} has a locator and no relevance head ({loading.HEAD}), whose answer "
                f"a locator looks at; remove the folder {LOCATOR}, or add the head."
            )
        mine, its = self.unet.config, locator.config
        wanted = (sight_channels(mine.in_channels // 2), 1, mine.cross_attention_dim)
        given = (its.in_channels, its.out_channels, its.cross_attention_dim)
        if given != wanted:
            raise WysError(
                f"the locator of {self.name} does not fit: its channels in, out and of the text "
                f"are {given}, not {wanted}."
            )
        return locator.eval().to(self.device)


def sight_channels(latent_channels: int) -> int:
    """The channels that a locator looks at."""
    return 2 * latent_channels + 1


def locator_sight(
    z0: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"], change: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, "b k h w"]:
    """What a locator looks at: the image, what the denoiser makes of it, what the head says.

    Args:
        z0: the scaled latent of the image.
        clean: the clean latent that the denoiser predicts under image and instruction.
        change: the relevance head's probability, which is seen as log-odds.
    """
    return torch.cat([z0, clean, change.logit(eps=1e-3)], dim=1)
