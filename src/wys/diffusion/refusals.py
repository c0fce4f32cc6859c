"""What is no InstructPix2Pix editor, told in one sentence before anything is loaded or run."""

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AsymmetricAutoencoderKL,
    AutoencoderKL,
    StableDiffusionInstructPix2PixPipeline,
)

from wys.errors import WysError
from wys.store import read_header, read_json

PIPELINE = StableDiffusionInstructPix2PixPipeline.__name__
LOCATOR = "locator"
"""The folder of the network that only says where, which an editor may have."""
_NO_LENGTH = 1_000_000
"""Beyond it a tokenizer's length stands for none: transformers then has one of 30 digits."""


def check_directory(path: Path, variant: str | None = None) -> None:
    """Raises WysError where a pipeline directory lacks a part, or a file is cut short."""
    if not (path / "model_index.json").is_file():
        raise WysError(f"{path} is no pipeline directory: it has no model_index.json.")
    index = read_json(path / "model_index.json")
    if not isinstance(index, dict):
        raise WysError(f"{path / 'model_index.json'} is damaged: it holds no object.")
    check_pipeline_class(index, str(path))
    for part in ("unet", "vae", "text_encoder"):
        if not (path / part / "config.json").is_file():
            raise WysError(f"{path} is incomplete: it has no {part}/config.json.")
        weight_names(path / part, variant)
    if not (path / "scheduler" / "scheduler_config.json").is_file():
        raise WysError(f"{path} is incomplete: it has no scheduler/scheduler_config.json.")
    if (path / LOCATOR).is_dir():
        if not (path / LOCATOR / "config.json").is_file():
            raise WysError(f"{path} is incomplete: it has no {LOCATOR}/config.json.")
        weight_names(path / LOCATOR, variant)
    tokenizer = path / "tokenizer"
    if not ((tokenizer / "tokenizer.json").is_file() or (tokenizer / "vocab.json").is_file()):
        raise WysError(f"{path} is incomplete: it has no tokenizer/vocab.json or tokenizer.json.")


def weight_names(part: Path, variant: str | None = None) -> set[str]:
    """The names of the tensors in a part's folder; WysError where there are none, or a cut file.

    A part that does not come in the variant is taken without one, as diffusers does.
    """
    files: dict[str | None, list[Path]] = {}
    for file in sorted(part.glob("*.safetensors")):
        files.setdefault(_variant(file), []).append(file)
    if variant is None and files and None not in files:
        raise WysError(
            f"{part} has weights of the variant {' and '.join(map(str, files))} only; name it with "
            "--variant."
        )
    chosen = files.get(variant) or files.get(None)
    if not chosen:
        wanted = "*.safetensors" if variant is None else f"*.{variant}*.safetensors"
        raise WysError(
            f"{part.parent} is incomplete: it has no {part.name}/{wanted} (other formats are not "
            "read)."
        )
    return {name for file in chosen for name in read_header(file) if name != "__metadata__"}


def _variant(file: Path) -> str | None:
    """The variant in a weight file's name: model.fp16.safetensors, whole or one of several."""
    _, *words = file.stem.split(".")
    return words[0].split("-")[0] if words else None


def check_weights(network: torch.nn.Module, part: Path, variant: str | None = None) -> None:
    """Raises WysError where a loaded text encoder or locator found weights of its own missing.

    The libraries fill those with random numbers, or leave them empty, and only print a report.
    """
    # Releases differ in whether names begin with "text_model."; files may be of either kind.
    given = {name.removeprefix("text_model.") for name in weight_names(part, variant)}
    needed = {name.removeprefix("text_model.") for name, _ in network.named_parameters()}
    missing = sorted(needed - given)
    if missing:
        raise WysError(
            f"{part} is incomplete: its weights lack {missing[0]} and {len(missing) - 1} others; "
            "fetch it again."
        )


def check_pipeline_class(index: dict[str, Any], name: str) -> None:
    """Raises WysError unless a model_index.json names Stable Diffusion's InstructPix2Pix."""
    kind = index.get("_class_name", "an unnamed pipeline")
    if kind != PIPELINE:
        raise WysError(
            f"{name} is {kind}, which is not supported; use an InstructPix2Pix pipeline of the "
            f"Stable Diffusion 1 or 2 kind ({PIPELINE})."
        )


def check_single_file(path: Path) -> None:
    """Raises WysError unless a file is a whole safetensors checkpoint of InstructPix2Pix."""
    if path.suffix != ".safetensors":
        raise WysError(
            f"{path} is not a .safetensors file; other checkpoint formats can run code when they "
            "are read, so convert it first."
        )
    header = read_header(path)
    if any(key.startswith("conditioner.embedders.") for key in header):
        raise WysError(f"{path} is a Stable Diffusion XL checkpoint, which is not supported yet.")
    entry = header.get("model.diffusion_model.input_blocks.0.0.weight")
    if entry is None:
        raise WysError(f"{path} is no Stable Diffusion checkpoint (it holds no diffusion model).")
    if entry["shape"][1] != 8:
        raise WysError(
            f"{path} is no InstructPix2Pix checkpoint: its network takes {entry['shape'][1]} input "
            "channels, not 8."
        )


def check_parts(pipeline: Any, name: str) -> None:
    """Raises WysError unless a live pipeline's parts make an InstructPix2Pix editor."""
    unet, vae, tokenizer = pipeline.unet, pipeline.vae, pipeline.tokenizer
    if any(
        part is None for part in (unet, vae, tokenizer, pipeline.text_encoder, pipeline.scheduler)
    ):
        raise WysError(
            f"{name} is incomplete: it lacks its network, autoencoder, text encoder, tokenizer or "
            "scheduler."
        )
    if not isinstance(vae, AutoencoderKL | AsymmetricAutoencoderKL):
        raise WysError(
            f"the autoencoder of {name} is {type(vae).__name__}, which is not supported; use an "
            "AutoencoderKL."
        )
    wanted = 2 * vae.config.latent_channels
    if unet.config.in_channels != wanted:
        raise WysError(
            f"{name} is no InstructPix2Pix editor: its network takes "
            f"{unet.config.in_channels} input channels, not twice the "
            f"{vae.config.latent_channels} of its latents."
        )
    width, given = unet.config.cross_attention_dim, pipeline.text_encoder.config.hidden_size
    if width != given:
        raise WysError(
            f"{name} does not fit together: its text encoder gives {given} channels and its "
            f"network takes {width}."
        )
    factor = vae.config.scaling_factor
    if not isinstance(factor, int | float) or not 0 < factor < math.inf:
        raise WysError(
            f"the autoencoder of {name} has the scaling_factor {factor!r}; it must be a number "
            "above 0."
        )
    length, most = tokenizer.model_max_length, pipeline.text_encoder.config.max_position_embeddings
    if not isinstance(length, int):
        raise WysError(
            f"the tokenizer of {name} has the model_max_length {length!r}; it must be a whole "
            "number."
        )
    # A tokenizer whose files were not found comes up empty instead of failing.
    words = len(tokenizer)
    if words <= 3:
        raise WysError(
            f"{name} has an empty tokenizer: its vocabulary was not found; fetch it again."
        )
    if length > _NO_LENGTH:
        raise WysError(
            f"the tokenizer of {name} does not say how long texts may be; set model_max_length to "
            f"{most} in its tokenizer_config.json."
        )
    if words > pipeline.text_encoder.config.vocab_size:
        raise WysError(
            f"{name} does not fit together: its tokenizer has {words} tokens and its text encoder "
            f"{pipeline.text_encoder.config.vocab_size}."
        )
    # Start and end token take a place each.
    if not 2 < length <= most:
        raise WysError(
            f"{name} does not fit together: its tokenizer makes texts of {length} tokens and its "
            f"text encoder takes up to {most}; set model_max_length to {most}."
        )
    if tokenizer.pad_token_id is None:
        raise WysError(
            f"the tokenizer of {name} has no pad_token, with which texts are made equally long; "
            "name one."
        )
