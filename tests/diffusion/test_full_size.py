"""Stable Diffusion 1.5's real architecture with random weights, from a directory, on the CPU."""

import re
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline
from safetensors.torch import save_file

import wys
from wys.diffusion.full_size import save_full_size
from wys.errors import WysError

RESNET = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
]
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def unet_name(name: str) -> str:
    """The original name of a tensor of diffusers' UNet2DConditionModel."""
    module, kind = name.rsplit(".", 1)
    if module in UNET:
        return f"{UNET[module]}.{kind}"
    if match := re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions)\.(\d)\.(.*)", name):
        side, block, layer, rest = match[1], int(match[2]), match[3], match[5]
        index = 3 * block + int(match[4]) + (side == "down")
        place = f"{'input' if side == 'down' else 'output'}_blocks.{index}"
        name = f"{place}.{0 if layer == 'resnets' else 1}.{rest}"
    elif match := re.match(r"down_blocks\.(\d)\.downsamplers\.0\.conv\.(.*)", name):
        name = f"input_blocks.{3 * int(match[1]) + 3}.0.op.{match[2]}"
    elif match := re.match(r"up_blocks\.(\d)\.upsamplers\.0\.(.*)", name):
        name = f"output_blocks.{3 * int(match[1]) + 2}.{1 if match[1] == '0' else 2}.{match[2]}"
    elif match := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.*)", name):
        place = 1 if match[1] == "attentions" else 2 * int(match[2])
        name = f"middle_block.{place}.{match[3]}"
    if "transformer_blocks" not in name:
        for new, old in RESNET:
            name = name.replace(f".{new}.", f".{old}.")
    return name


def vae_name(name: str) -> str:
    """The original name of a tensor of diffusers' AutoencoderKL."""
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
    name = re.sub(
        r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", name
    )
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid_block.attentions.0", "mid.attn_1")
    for new, old in {
        "conv_shortcut": "nin_shortcut",
        "conv_norm_out": "norm_out",
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    }.items():
        name = name.replace(f".{new}.", f".{old}.")
    return name


def save_single_file(pipeline: Any, path: Path) -> None:
    """Writes the network, the autoencoder and the text encoder under their original names."""
    tensors: dict[str, torch.Tensor] = {}
    for name, value in pipeline.unet.state_dict().items():
        tensors[f"model.diffusion_model.{unet_name(name)}"] = value
    for name, value in pipeline.vae.state_dict().items():
        # The original attends with 1 x 1 convolutions.
        conv = ".attentions." in name and name.endswith("weight") and value.ndim == 2
        tensors[f"first_stage_model.{vae_name(name)}"] = value[..., None, None] if conv else value
    for name, value in pipeline.text_encoder.state_dict().items():
        inner = name.removeprefix("text_model.")
        tensors[f"cond_stage_model.transformer.text_model.{inner}"] = value
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


@pytest.fixture(scope="module")
def full_size(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Callable[..., Any]
) -> Iterator[Path]:
    """The pipeline's directory (2.1 GB), removed after the tests."""
    directory = tmp_path_factory.mktemp("full-size")
    parameters = save_full_size(directory, tiny_tokenizer(length=77))
    assert 1.06e9 < parameters < 1.08e9
    yield directory
    shutil.rmtree(directory)


@pytest.mark.slow
def test_a_full_size_editor_loads_and_edits(
    full_size: Path, record_property: Callable[..., None]
) -> None:
    editor = wys.Editor.load(str(full_size), max_batch=1)
    assert editor.native_size == 512
    assert editor.latent_factor == 8
    assert editor.fit((256, 256)) == (512, 512)
    editor.settings = wys.EditorSettings(size=256)
    assert editor.fit((300, 200)) == (256, 168)

    image = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(0))
    found = wys.relevance_map(editor, image, "make the ball red")
    assert found.values.shape == (1, 1, 32, 32)
    assert found.values.max() == 1
    edit = wys.edit_image(
        editor, image, "make the ball red", wys.EditSettings(steps=2), relevance=found, force=True
    )
    assert edit.edited == (True,)
    assert edit.largest_change_outside.item() == 0
    assert 0 < edit.changed_share.item() < 1

    unit = 1 if sys.platform == "darwin" else 1024
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    record_property("peak memory in MB", round(peak_mb))
    assert peak_mb < 10_000


@pytest.mark.slow
def test_a_full_size_single_file_loads(
    full_size: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "editor.safetensors"
    expected = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        full_size, dtype=torch.float16
    )
    save_single_file(expected, path)
    try:
        editor = wys.Editor.load(str(path), config=str(full_size), dtype="fp16")
        # Without a network, the configuration that a single file leaves out has to be given.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(WysError, match="--config"):
            wys.Editor.load(str(path))
    finally:
        path.unlink()
    for part in ("unet", "vae", "text_encoder"):
        ours = getattr(editor.pipeline, part).state_dict()
        theirs = getattr(expected, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert editor.native_size == 512
    assert editor.schedule.timesteps(20)[0] == 951
