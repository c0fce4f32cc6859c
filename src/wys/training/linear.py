"""An autoencoder that starts out linear: principal components of patches, in the stock network.

A small AutoencoderKL trained from random weights spends most of its time on learning to carry a
colour through its group normalisations. So its encoder is not trained at all. It is set to the
linear map that keeps most of an image's variance, the first principal components of patches of
4 x 4 pixels, and latents are then linear in the image, which is also what is easiest to denoise.
The decoder starts as bilinear interpolation of each patch's mean colour and is trained from there.

Two identities carry linear values through the stock layers. silu(x) - silu(-x) = x, so a value is
held as a pair (x, -x). And group normalisation divides by a number that hardly depends on x where
the group also holds constants much larger than x.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn

from wys.errors import WysError

PATCH = 4
"""Pixels of a latent pixel, along one side."""
_SMALL = 0.02
"""Standard deviation of values beside constants of 1 in the encoder's last normalisation: the
normalisation then departs from linear by 1 part in 1,000 at most."""
_MODEST = 0.2
"""The same in the decoder, as a factor on colours in [-1, 1]. It is learned further, so it must
leave room for gradients of usual size."""


@dataclass(frozen=True)
class PatchBasis:
    """Patches p, flattened as (row, column, channel), to latents z = project (p - mean) and back.

    Latent channels have the square root of their component's standard deviation, scaled to unit
    variance in the mean: between pixels, where later channels count too little to be learned, and
    whitening, where noise in fine detail counts as much as a wrong colour.
    """

    project: Float[Tensor, "c 48"]
    restore: Float[Tensor, "48 c"]
    mean: Float[Tensor, " 48"]


def patches(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "n 48"]:
    """All patches of images as rows."""
    blocks = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # b 3 rows columns y x
    return blocks.permute(0, 2, 3, 4, 5, 1).reshape(-1, 3 * PATCH**2)


def principal_patches(images: Float[Tensor, "b 3 h w"], channels: int) -> PatchBasis:
    """The basis of the images' patches with the highest variance (Pearson 1901).

    Args:
        images: in [-1, 1], sides multiples of PATCH.
        channels: components kept.
    """
    rows = patches(images).double()
    mean = rows.mean(0)
    variance, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    variance, vectors = variance.flip(0)[:channels].clamp(min=1e-8), vectors.flip(1)[:, :channels]
    # The sign of an eigenvector is arbitrary: fix it, so that every machine gets the same.
    vectors = vectors * vectors.sum(0).sign().where(vectors.sum(0) != 0, torch.tensor(1.0))
    gain = variance.pow(-0.25)
    gain = gain / (variance * gain.square()).mean().sqrt()
    return PatchBasis((gain[:, None] * vectors.T).float(), (vectors / gain).float(), mean.float())


@torch.no_grad()
def set_encoder(vae: AutoencoderKL, basis: PatchBasis) -> None:
    """Makes the encoder's mode the basis' latents; its variance is practically zero.

    Raises:
        WysError: the network is too narrow to carry the values.
    """
    latent = len(basis.project)
    first, second, third = vae.config.block_out_channels
    width = third // vae.config.norm_num_groups
    if first < 12 or second < latent or vae.config.norm_num_groups < latent or width < 4:
        raise WysError(
            f"an autoencoder of widths {first}, {second}, {third} with "
            f"{vae.config.norm_num_groups} groups is too narrow for {latent} latent channels."
        )
    encoder = vae.encoder
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            for parameter in module.parameters():
                parameter.zero_()
    for channel in range(3):
        encoder.conv_in.weight[channel, channel, 1, 1] = 1
    # Two strided convolutions gather 2 x 2 neighbours each; the second one projects as well.
    gather = encoder.down_blocks[0].downsamplers[0].conv.weight
    for y in range(2):
        for x in range(2):
            for channel in range(3):
                gather[6 * y + 3 * x + channel, channel, y, x] = 1
    to_second = encoder.down_blocks[1].resnets[0].conv_shortcut.weight
    to_second[:12, :12, 0, 0] = torch.eye(12)
    project = basis.project.reshape(latent, 2, 2, 2, 2, 3)  # c, Y y X x, channel
    gathering = encoder.down_blocks[1].downsamplers[0].conv
    for y in range(2):
        for x in range(2):
            # [c, y, x, channel] of the inner 2 x 2 block stands in 12 consecutive channels.
            gathering.weight[:latent, :12, y, x] = project[:, y, :, x].reshape(latent, 12)
    gathering.bias[:latent] = -basis.project @ basis.mean
    to_third = encoder.down_blocks[2].resnets[0].conv_shortcut
    norm, out = encoder.conv_norm_out, encoder.conv_out
    norm.weight.zero_()
    norm.bias.zero_()
    for k in range(latent):
        plus, minus = k * width, k * width + 1
        to_third.weight[plus, k], to_third.weight[minus, k] = _SMALL, -_SMALL
        constants = torch.ones(width - 2)
        constants[1::2] = -1
        if width % 2:
            constants[-1] = 0  # The group's mean has to be zero.
        to_third.bias[k * width + 2 : (k + 1) * width] = constants
        spread = ((constants.square().sum() + 2 * _SMALL**2) / width).sqrt()
        norm.weight[plus] = norm.weight[minus] = spread / _SMALL
        out.weight[k, plus, 1, 1], out.weight[k, minus, 1, 1] = 1, -1
    out.bias[latent:] = -30
    vae.quant_conv.weight.copy_(torch.eye(2 * latent)[..., None, None])
    vae.quant_conv.bias.zero_()


@torch.no_grad()
def start_decoder(vae: AutoencoderKL, basis: PatchBasis) -> None:
    """Makes the decoder begin as bilinear interpolation of the patches' mean colours.

    Residual branches begin at zero; channels that carry no colour keep their random weights.
    """
    decoder, latent = vae.decoder, len(basis.project)
    groups = vae.config.norm_num_groups
    first = vae.config.block_out_channels[0]
    width = first // groups
    if width < 3 or groups < 3:
        raise WysError(f"a decoder of width {first} in {groups} groups is too narrow for colours.")
    for block in [decoder.mid_block, *decoder.up_blocks]:
        for resnet in block.resnets:
            resnet.conv2.weight.zero_()
            resnet.conv2.bias.zero_()
    vae.post_quant_conv.weight.copy_(torch.eye(latent)[..., None, None])
    vae.post_quant_conv.bias.zero_()
    colour = basis.restore.reshape(PATCH**2, 3, latent).mean(0)
    offset = basis.mean.reshape(PATCH**2, 3).mean(0)
    _pass_colours(decoder.conv_in, torch.zeros(3, 3))
    decoder.conv_in.weight[:3, :, 1, 1] = _MODEST * colour
    decoder.conv_in.bias[:3] = _MODEST * offset
    triangle = torch.tensor([1.0, 2.0, 1.0]) / 4
    smooth = triangle[:, None] * triangle
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            if resnet.conv_shortcut is not None:
                _pass_colours(resnet.conv_shortcut, torch.ones(1, 1))
        for sampler in block.upsamplers or []:
            _pass_colours(sampler.conv, smooth)
    last = decoder.up_blocks[-1].resnets[0].conv_shortcut
    if last is None:
        raise WysError("the decoder's last level must be narrower than the one before it.")
    last.weight[: 3 * width] = 0
    last.bias[: 3 * width] = 0
    decoder.conv_out.weight.mul_(0.1)
    decoder.conv_out.bias.zero_()
    for channel in range(3):
        plus, minus, constant = (channel * width + i for i in range(3))
        last.weight[plus, channel], last.weight[minus, channel] = 1, -1
        last.bias[constant : (channel + 1) * width] = 1
        group = torch.tensor([0.0, 0.0] + [1.0] * (width - 2))
        typical = 2 * (0.5 * _MODEST) ** 2 / width
        spread = (group.var(correction=0) + typical).sqrt()
        norm = decoder.conv_norm_out
        norm.weight[plus] = norm.weight[minus] = spread / _MODEST
        norm.bias[plus] = norm.bias[minus] = group.mean() / _MODEST
        decoder.conv_out.weight[channel, [plus, minus]] = 0
        decoder.conv_out.weight[channel, plus, 1, 1] = 1
        decoder.conv_out.weight[channel, minus, 1, 1] = -1


def _pass_colours(conv: nn.Conv2d, kernel: Float[Tensor, "k k"]) -> None:
    """The first three channels pass through a kernel, unmixed."""
    margin = (conv.weight.shape[-1] - kernel.shape[0]) // 2
    for parameter in conv.parameters():
        parameter[:3] = 0
    for channel in range(3):
        conv.weight[channel, channel] = F.pad(kernel, (margin,) * 4)
