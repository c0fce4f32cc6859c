"""The networks that edit: text encoder and UNet, with auxiliary outputs, and their losses.

InstructPix2Pix (Brooks et al. 2023) that predicts the clean latent: a small network copies what an
edit leaves alone sooner than it passes noise through (Li and He 2025). In training the UNet
has more output channels than the latent: which pixels change, which object is named, and what
stands where in the image before and after. They teach it to see shapes and materials, to tie words
to objects, and to read what is asked for; the exported editor does not have them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D, CrossAttnUpBlock2D
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from wys.tabletop.world import COLOURS, MATERIALS, SHAPES
from wys.training.latents import Batch


@dataclass(frozen=True)
class NetworkSettings:
    """Sizes of the text encoder and the UNet."""

    text_width: int = 192
    """Width of the text encoder."""
    text_layers: int = 4
    """Layers of the text encoder."""
    channels: tuple[int, ...] = (64, 128, 192)
    """Width of each level of the UNet; every level after the first halves the latent."""
    heads: int = 4
    """Attention heads of both networks."""
    groups: int = 16
    """Groups of the group normalisation."""


@dataclass(frozen=True)
class LossSettings:
    """Weights of the losses, noise levels and dropped conditions."""

    clean: float = 3.0
    """Weight of predicting the clean latent."""
    changed_weight: float = 8.0
    """Pixels that change weigh 1 + this in the diffusion loss, relative to the others."""
    change: float = 0.6
    """Weight of predicting which pixels change."""
    overlap: float = 0.5
    """Weight of the overlap between predicted and true change: unlike the balanced cross entropy,
    it punishes a halo around the region."""
    target: float = 0.6
    """Weight of predicting the named object's silhouette."""
    shape: float = 0.6
    """Weight of predicting the shape class of the object at each pixel, or none."""
    material: float = 0.3
    """Weight of predicting its material."""
    colour: float = 0.2
    """Weight of predicting its colour."""
    after_shape: float = 0.5
    """Weight of predicting the shape class that stands, after the edit, where an object has come,
    gone or changed."""
    after_material: float = 0.3
    """Weight of predicting its material."""
    after_colour: float = 0.4
    """Weight of predicting its colour."""
    input_share: float = 0.6
    """Share of the examples whose noised latent is the input's, not the edited image's. A map is
    made from that, and the edited image's gives part of the answer away, even in strong noise."""
    high_share: float = 0.4
    """Share of the timesteps that are drawn from [900, 1000), the others from [0, 1000)."""
    deep: float = 0.5
    """Weight of all of these but the first where the text is attended to, beside the output."""
    drop: float = 0.05
    """Probability to drop the instruction alone, the image alone, and both: three times this."""


@dataclass(frozen=True)
class Heads:
    """Channels of the UNet's output in training."""

    latent: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Latent, and those of the labels."""
        return (self.latent, *LABELS)


_CLASSES = (1 + len(SHAPES), len(MATERIALS), len(COLOURS))
LABELS = (1, 1, *_CLASSES, *_CLASSES)
"""Channels of change, target, shapes (the first is none), materials, colours, and of the last three
after the edit."""


class DeepSupervision(nn.Module):
    """Predictions of the labels where image and text meet (deep supervision, Lee et al. 2015).

    What stands where has to be known before a word can be tied to it. Taught at the output alone, a
    network names shapes there, above its last cross-attention, and never learns which word means
    which; colours, which are plain in the latent, it does tie.

    Args:
        unet: after each of its forward passes `predictions` holds those of that pass.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.predictions: list[Float[Tensor, "b k h w"]] = []
        self.heads = nn.ModuleList()
        unet.register_forward_pre_hook(lambda module, args: self.predictions.clear())
        for block in (*unet.down_blocks, *unet.up_blocks):
            if isinstance(block, CrossAttnDownBlock2D | CrossAttnUpBlock2D):
                attention = block.attentions[-1]
                assert isinstance(attention, Transformer2DModel)
                width = attention.norm.num_channels
                head = nn.Sequential(nn.GroupNorm(1, width), nn.Conv2d(width, sum(LABELS), 1))
                self.heads.append(head)
                attention.register_forward_hook(partial(self._predict, head))

    def _predict(self, head: nn.Module, module: nn.Module, args: object, output: Any) -> None:
        self.predictions.append(head(output[0]))


def build_scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion; the network predicts the clean latent.

    Sampling begins at the last timestep ("trailing"), where hardly any signal is left: pure noise
    is then a rightful start even for few steps (Lin et al. 2024), and ends at the clean latent.
    """
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="sample",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def build_text_encoder(settings: NetworkSettings, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The untrained text encoder."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.text_width,
        intermediate_size=4 * settings.text_width,
        projection_dim=settings.text_width,
        num_hidden_layers=settings.text_layers,
        num_attention_heads=settings.heads,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # The fused attention's backward pass is several times slower on a CPU.
    config._attn_implementation = "eager"
    return CLIPTextModel(config)


def build_unet(
    settings: NetworkSettings, in_channels: int, out_channels: int, size: int
) -> UNet2DConditionModel:
    """The untrained UNet; attention below the first level, pooled text in the time embedding.

    Args:
        size: side of the latent at the editor's own size.
    """
    levels = len(settings.channels)
    unet = UNet2DConditionModel(
        sample_size=size,
        in_channels=in_channels,
        out_channels=out_channels,
        block_out_channels=settings.channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
        cross_attention_dim=settings.text_width,
        # In diffusers this is the number of heads.
        attention_head_dim=settings.heads,
        norm_num_groups=settings.groups,
        addition_embed_type="text",
        addition_embed_type_num_heads=settings.heads,
    )
    # The plain attention: see build_text_encoder.
    unet.set_attn_processor(AttnProcessor())
    return unet


@dataclass
class Noised:
    """A batch with its noise: what the UNet sees and what it should say."""

    sample: Float[Tensor, "b c2 h w"]
    timestep: Int[Tensor, " b"]
    clean: Float[Tensor, "b c h w"]
    tokens: Int[Tensor, "b length"]
    has_text: Bool[Tensor, " b"]
    has_image: Bool[Tensor, " b"]


def draw_timesteps(count: int, high_share: float, draw: torch.Generator) -> Int[Tensor, " b"]:
    """Timesteps of which a share of at least `high_share` lies in [900, 1000)."""
    high = torch.rand(count, generator=draw) < high_share
    low = torch.where(high, 900, 0)
    return (low + torch.rand(count, generator=draw) * (1000 - low)).long()


def noised(
    batch: Batch,
    scale: float,
    timestep: Int[Tensor, " b"],
    noise: Float[Tensor, "b c h w"],
    alphas: Float[Tensor, "1000"],
    *,
    null_tokens: Int[Tensor, " length"],
    has_text: Bool[Tensor, " b"],
    has_image: Bool[Tensor, " b"],
    from_input: Bool[Tensor, " b"],
) -> Noised:
    """z_t beside the image's latent, and z0, the scaled latent of the edited image.

    Dropped conditions are a latent of zeros and the tokens of the empty instruction. Where z_t is
    made `from_input`, z0 is still what the instruction asks for, and the input without one.
    """
    alpha = alphas[timestep].view(-1, 1, 1, 1)
    start = torch.where(from_input.view(-1, 1, 1, 1), batch.before, batch.after)
    z_t = alpha.sqrt() * scale * start + (1 - alpha).sqrt() * noise
    kept = (from_input & ~has_text).view(-1, 1, 1, 1)
    z0 = scale * torch.where(kept, batch.before, batch.after)
    image = batch.before * has_image.view(-1, 1, 1, 1)
    tokens = torch.where(has_text[:, None], batch.tokens, null_tokens)
    return Noised(torch.cat([z_t, image], 1), timestep, z0, tokens, has_text, has_image)


def diffusion_loss(
    prediction: Float[Tensor, "b c h w"],
    clean: Float[Tensor, "b c h w"],
    changed: Float[Tensor, "b 1 h w"],
    weight: float,
) -> Tensor:
    """Squared error, in which pixels that change count more; weights average to 1 per image."""
    weights = 1 + weight * changed
    weights = weights / weights.mean(dim=(2, 3), keepdim=True)
    return (weights * (prediction - clean).square()).mean()


def balanced_bce(
    logits: Float[Tensor, "b 1 h w"], share: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, " b"]:
    """Cross entropy in which inside and outside count alike, whatever their areas."""
    inside = _mean_over(-F.logsigmoid(logits), share)
    outside = _mean_over(-F.logsigmoid(-logits), 1 - share)
    return (inside + outside) / 2


def dice_loss(
    logits: Float[Tensor, "b 1 h w"], share: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, " b"]:
    """One minus the soft overlap of prediction and truth (Milletari et al. 2016, V-Net).

    One pixel is added to both areas, so that an empty truth asks for an empty prediction.
    """
    predicted = logits.sigmoid()
    both = (predicted * share).sum(dim=(1, 2, 3))
    areas = predicted.sum(dim=(1, 2, 3)) + share.sum(dim=(1, 2, 3))
    return 1 - (2 * both + 1) / (areas + 1)


def _mean_over(values: Float[Tensor, "b 1 h w"], share: Float[Tensor, "b 1 h w"]) -> Tensor:
    # An area below one latent pixel counts as one: otherwise a speck would have full weight.
    return (values * share).sum(dim=(1, 2, 3)) / share.sum(dim=(1, 2, 3)).clamp(min=1)


def class_shares(
    coverage: Float[Tensor, "b slots h w"], classes: Int[Tensor, "b slots"], count: int
) -> Float[Tensor, "b count h w"]:
    """The share of each latent pixel that objects of each class cover."""
    one_hot = F.one_hot(classes.clamp(min=0), count) * (classes >= 0)[..., None]
    return torch.einsum("bshw,bsk->bkhw", coverage, one_hot.to(coverage.dtype))


def class_loss(
    logits: Float[Tensor, "b k h w"], shares: Float[Tensor, "b k h w"]
) -> Float[Tensor, " b"]:
    """Cross entropy with soft labels, averaged over the area that any class covers."""
    entropy = -(shares * F.log_softmax(logits, dim=1)).sum(dim=1, keepdim=True)
    return _mean_over(entropy, shares.sum(dim=1, keepdim=True).clamp(max=1))


def losses(
    output: Float[Tensor, "b k h w"],
    batch: Batch,
    given: Noised,
    settings: LossSettings,
    deep: Sequence[Float[Tensor, "b c h2 w2"]] = (),
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum, and each loss by name.

    Args:
        deep: predictions of the labels elsewhere in the UNet, at lower resolution.
    """
    latent = given.clean.shape[1]
    clean, labels = output.float().split((latent, sum(LABELS)), dim=1)
    parts = {"clean": diffusion_loss(clean, given.clean, batch.changed, settings.changed_weight)}
    total, told = label_losses(
        (labels, *deep), batch, settings, has_text=given.has_text, has_image=given.has_image
    )
    return settings.clean * parts["clean"] + total, parts | told


def label_losses(
    predictions: Sequence[Float[Tensor, "b k _ _"]],
    batch: Batch,
    settings: LossSettings,
    *,
    has_text: Bool[Tensor, " b"],
    has_image: Bool[Tensor, " b"],
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the labels' losses, and each loss of the first prediction by name.

    Args:
        predictions: at the output, and elsewhere in the network at a fraction of its resolution.
    """
    output, *deep = (
        _label_losses(labels.float(), batch, has_text, has_image) for labels in predictions
    )
    total = _weighted_sum(output, settings)
    for elsewhere in deep:
        total = total + settings.deep * _weighted_sum(elsewhere, settings)
    return total, output


def _label_losses(
    labels: Float[Tensor, "b k h w"],
    batch: Batch,
    has_text: Bool[Tensor, " b"],
    has_image: Bool[Tensor, " b"],
) -> dict[str, Tensor]:
    """The losses of the labels' predictions, at the batch's resolution or a fraction of it.

    The change, the target and what stands there after the edit are learnt where image and
    instruction are given, what stands there before where the image is; without labels (a slot count
    of zero) only the change is.
    """
    change, target, shape, material, colour, *after = labels.split(LABELS, dim=1)
    factor = batch.changed.shape[-1] // labels.shape[-1]
    changed = F.avg_pool2d(batch.changed, factor)
    both = has_text & has_image
    parts = {
        "change": _mean_of(balanced_bce(change, changed), both),
        "overlap": _mean_of(dice_loss(change, changed), both),
    }
    if not batch.labelled:
        return parts
    coverage = F.avg_pool2d(batch.coverage, factor)
    slots = torch.arange(coverage.shape[1], device=labels.device)
    is_target = (batch.target[:, None] == slots + 1)[..., None, None]
    silhouette = (coverage * is_target).sum(1, keepdim=True)
    parts["target"] = _mean_of(balanced_bce(target, silhouette), both & (batch.target > 0))
    shapes = class_shares(coverage, batch.shapes, len(SHAPES))
    none = (1 - shapes.sum(1, keepdim=True)).clamp(min=0)
    shape_log = F.log_softmax(shape, dim=1)
    on_objects = _mean_over(
        -(shapes * shape_log[:, 1:]).sum(1, keepdim=True), shapes.sum(1, keepdim=True)
    )
    elsewhere = _mean_over(-shape_log[:, :1], none)
    materials = class_shares(coverage, batch.materials, len(MATERIALS))
    colours = class_shares(coverage, batch.colours, len(COLOURS))
    parts["shape"] = _mean_of((on_objects + elsewhere) / 2, has_image)
    parts["material"] = _mean_of(class_loss(material, materials), has_image)
    parts["colour"] = _mean_of(class_loss(colour, colours), has_image)
    before = (torch.cat([none, shapes], 1), materials, colours)
    return parts | _after_losses(after, before, batch, factor, both)


def _after_losses(
    logits: Sequence[Float[Tensor, "b k h w"]],
    before: Sequence[Float[Tensor, "b k h w"]],
    batch: Batch,
    factor: int,
    chosen: Bool[Tensor, " b"],
) -> dict[str, Tensor]:
    """Cross entropies of the classes after the edit, where any class is not what it was.

    Elsewhere they would repeat those before the edit, and a network could do well without reading.
    """
    coverage = F.avg_pool2d(batch.after_coverage, factor)
    shapes = class_shares(coverage, batch.after_shapes, len(SHAPES))
    after = (
        torch.cat([(1 - shapes.sum(1, keepdim=True)).clamp(min=0), shapes], 1),
        class_shares(coverage, batch.after_materials, len(MATERIALS)),
        class_shares(coverage, batch.after_colours, len(COLOURS)),
    )
    moved = [(a - b).abs().sum(1) / 2 for a, b in zip(after, before, strict=True)]
    region = torch.stack(moved).amax(0)[:, None]
    chosen = chosen & (region.sum(dim=(1, 2, 3)) > 1)
    names = ("after_shape", "after_material", "after_colour")
    return {
        name: _mean_of(class_loss(values, region * shares), chosen)
        for name, values, shares in zip(names, logits, after, strict=True)
    }


def _weighted_sum(parts: dict[str, Tensor], settings: LossSettings) -> Tensor:
    return torch.stack([getattr(settings, name) * part for name, part in parts.items()]).sum()


def _mean_of(values: Float[Tensor, " b"], chosen: Bool[Tensor, " b"]) -> Tensor:
    return (values * chosen).sum() / chosen.sum().clamp(min=1)


def predict(
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    given: Noised,
) -> Float[Tensor, "b k h w"]:
    """All output channels for a noised batch."""
    states = text(given.tokens).last_hidden_state
    return unet(given.sample, given.timestep, encoder_hidden_states=states).sample
