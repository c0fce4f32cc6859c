"""Branches that add nothing."""

import copy

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from wys.diffusion.editor import Editor
from wys.diffusion.loading import builtin_directory
from wys.diffusion.silent import ShortcutBlock, skip_silent_branches


@pytest.fixture
def vae() -> AutoencoderKL:
    torch.manual_seed(3)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        norm_num_groups=4,
    ).eval()


def blocks(network: nn.Module) -> list[ResnetBlock2D]:
    return [part for part in network.modules() if isinstance(part, ResnetBlock2D)]


@torch.no_grad()
def test_what_adds_nothing_is_left_out_and_the_outputs_stay(vae: AutoencoderKL) -> None:
    images = torch.rand(2, 3, 12, 8)
    assert skip_silent_branches(vae) == 0
    for block in blocks(vae)[::2]:
        block.conv2.weight.zero_(), block.conv2.bias.zero_()
    silent, every = len(blocks(vae)[::2]), len(blocks(vae))
    expected, state = vae(images).sample, copy.deepcopy(vae.state_dict())
    assert skip_silent_branches(vae) == silent == every - len(blocks(vae))
    assert torch.equal(vae(images).sample, expected)
    kept = vae.state_dict()
    assert list(kept) == list(state)
    assert all(torch.equal(kept[name], value) for name, value in state.items())
    assert skip_silent_branches(vae) == 0


@torch.no_grad()
def test_a_bias_speaks_and_resampling_is_left_alone(vae: AutoencoderKL) -> None:
    spoken = blocks(vae)[0]
    spoken.conv2.weight.zero_(), spoken.conv2.bias.fill_(0.1)
    assert skip_silent_branches(vae) == 0
    wide = nn.Sequential(ResnetBlock2D(in_channels=8, groups=4, temb_channels=None, up=True))
    wide[0].conv2.weight.zero_(), wide[0].conv2.bias.zero_()
    assert skip_silent_branches(wide) == 0


@torch.no_grad()
def test_the_builtin_encoder_is_mostly_silent_and_encodes_as_it_was_saved() -> None:
    loaded = Editor.load("builtin")
    left_out = [p for p in loaded.vae.encoder.modules() if isinstance(p, ShortcutBlock)]
    assert len(left_out) == 5 and not blocks(loaded.vae.encoder)
    stock = AutoencoderKL.from_pretrained(builtin_directory() / "vae").float()
    images = 2 * torch.rand(2, 3, 64, 48) - 1
    expected = stock.encode(images).latent_dist.mode()
    assert torch.equal(loaded.vae.encode(images).latent_dist.mode(), expected)
