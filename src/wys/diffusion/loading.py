"""Loading InstructPix2Pix pipelines from wherever they are, with errors a person can act on.

Only safetensors weights are read and no code of a checkpoint is run.
"""

import importlib.resources
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AsymmetricAutoencoderKL,
    AutoencoderKL,
    StableDiffusionInstructPix2PixPipeline,
)
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from torch import Tensor
from transformers.utils import logging as transformers_logging

from wys.devices import find_device
from wys.diffusion.settings import PAPER, EditorSettings, check_size, read_settings
from wys.errors import WysError
from wys.store import read_header, read_json, read_tensors

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PIPELINE = StableDiffusionInstructPix2PixPipeline.__name__
HEAD = "relevance_head.safetensors"
SETTINGS = "wys.json"
_NO_LENGTH = 1_000_000
"""Beyond it a tokenizer's length stands for none: transformers then has one of 30 digits."""


@dataclass(frozen=True)
class EditorOptions:
    """How an editor is loaded and where it runs."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    """Number format of the weights; auto is fp16 on CUDA and fp32 elsewhere."""
    variant: str | None = None
    """Variant of the checkpoint's files, such as fp16."""
    config: str | None = None
    """For a single file: a pipeline directory or hub id that gives its configuration."""
    offload: Literal["none", "model", "sequential"] = "none"
    """Keep weights in CPU memory until they are needed: whole models, or layer by layer."""
    vae_tiling: bool = False
    """Encode and decode images in tiles."""
    vae_slicing: bool = False
    """Encode and decode a batch one image at a time."""
    attention_slicing: bool = False
    """Compute attention in slices."""
    max_batch: int | None = None
    """Most predictions run through the network at once; None: all that are needed."""
    edit_size: int | None = None
    """The longer side of the images as they are edited, in pixels; None: the editor's own."""


@dataclass(frozen=True)
class Loaded:
    """A pipeline on its device, with what stood beside it."""

    pipeline: StableDiffusionInstructPix2PixPipeline
    device: torch.device
    settings: EditorSettings
    head: dict[str, Tensor] | None


def load(name: str, options: EditorOptions) -> Loaded:
    """Loads "builtin", a pipeline directory, a .safetensors file or a hub id.

    What the libraries raise comes through as it is; `explained` turns it into a sentence.

    Raises:
        WysError: it is missing, cut short, or no InstructPix2Pix pipeline of Stable Diffusion's
            kind, or the device or an option does not fit.
    """
    device = find_device(options.device)
    if options.edit_size is not None:
        check_size(options.edit_size)
    if options.dtype not in ("auto", *DTYPES):
        raise WysError(f"the dtype {options.dtype} is unknown; use auto, fp32, fp16 or bf16.")
    automatic = "fp16" if device.type == "cuda" else "fp32"
    dtype = DTYPES[automatic if options.dtype == "auto" else options.dtype]
    if options.offload != "none" and device.type == "cpu":
        raise WysError(
            "offloading moves weights between a GPU and the CPU; on the CPU leave it out."
        )
    path = builtin_directory() if name == "builtin" else Path(name).expanduser()
    settings, head = PAPER, None
    single = path.is_file() or path.suffix in (".safetensors", ".ckpt", ".pt", ".bin", ".pth")
    if single and options.variant is not None:
        raise WysError(f"{name} is a single file, which has no variants; leave --variant out.")
    if options.config is not None and not single:
        raise WysError(
            f"{name} is no single file and has its own configuration; leave --config out."
        )
    if path.is_dir():
        check_directory(path, options.variant)
        pipeline = _from_pretrained(str(path), dtype, options.variant)
        check_text_weights(pipeline.text_encoder, path / "text_encoder", options.variant)
        if (path / SETTINGS).exists():
            settings = read_settings(path / SETTINGS)
        if (path / HEAD).exists():
            head = read_tensors(path / HEAD)
    elif single:
        check_single_file(path)
        pipeline = StableDiffusionInstructPix2PixPipeline.from_single_file(
            str(path),
            dtype=dtype,
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
            **({} if options.config is None else {"config": _config(options.config)}),
        )
    elif name.count("/") == 1 and not name.startswith((".", "~", "/")):
        check_pipeline_class(_hub_index(name), name)
        pipeline = _from_pretrained(name, dtype, options.variant)
        own, weights = _from_hub(name, SETTINGS), _from_hub(name, HEAD)
        settings = settings if own is None else read_settings(own)
        head = None if weights is None else read_tensors(weights)
    else:
        raise WysError(
            f"there is no editor {name}; give builtin, a pipeline directory, a .safetensors "
            "file or a hub id (owner/name)."
        )
    if options.edit_size is not None:
        settings = replace(settings, size=options.edit_size)
    return Loaded(_place(pipeline, device, options), device, settings, head)


@contextmanager
def explained(name: str, options: EditorOptions) -> Iterator[None]:
    """Loads, and builds, an editor inside: what the libraries raise is told in one sentence."""
    try:
        yield
    except WysError:
        raise
    except torch.OutOfMemoryError as error:
        raise WysError(
            f"the editor {name} does not fit in the memory of {find_device(options.device)}; try "
            "--dtype fp16 or --offload model."
        ) from error
    # What the libraries raise for damaged and unreachable checkpoints has no common base.
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        RuntimeError,
        AttributeError,
    ) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        lacks_config = Path(name).suffix == ".safetensors" and options.config is None
        cure = (
            " (a single file takes its configuration from the hub; offline give --config a "
            "pipeline directory)"
            if lacks_config
            else ""
        )
        raise WysError(f"cannot load the editor {name}{cure}: {reason[0]}") from error


def builtin_directory() -> Path:
    """The directory of the built-in editor; WysError where its weights are not installed."""
    path = Path(str(importlib.resources.files("wys"))) / "builtin"
    if not (path / "model_index.json").is_file():
        raise WysError(
            "the built-in editor's weights are not part of this installation; reinstall wys or "
            "give --editor a checkpoint."
        )
    return path


def hide_library_bars() -> None:
    """Turns off the progress bars of diffusers and transformers in this process.

    For programs that show their own; a library has no business to do it unasked.
    """
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()


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


def check_text_weights(encoder: torch.nn.Module, part: Path, variant: str | None = None) -> None:
    """Raises WysError where a loaded text encoder found weights of its own missing.

    transformers fills those with random numbers and only prints a report.
    """
    # Releases differ in whether names begin with "text_model."; files may be of either kind.
    given = {name.removeprefix("text_model.") for name in weight_names(part, variant)}
    needed = {name.removeprefix("text_model.") for name, _ in encoder.named_parameters()}
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


def _config(name: str) -> str:
    """A directory with a single file's configuration, or a hub id as it is."""
    path = Path(name).expanduser()
    return str(path) if path.is_dir() else name


def _hub_index(name: str) -> dict[str, Any]:
    """A repository's model_index.json; WysError where it has none, or cannot be asked."""
    # The hub's client tells of each of its tries to connect.
    log = logging.getLogger("huggingface_hub")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        index = read_json(hf_hub_download(name, "model_index.json"))
    except LocalEntryNotFoundError as error:
        raise WysError(
            f"the hub cannot be reached, and {name} is not in its cache; connect, or give a "
            "pipeline directory."
        ) from error
    except EntryNotFoundError as error:
        raise WysError(
            f"{name} on the hub is no diffusers pipeline: it has no model_index.json."
        ) from error
    except RepositoryNotFoundError as error:
        raise WysError(
            f"the hub has no {name} that you may read; check the name, or log in with "
            "'hf auth login'."
        ) from error
    finally:
        log.setLevel(level)
    if not isinstance(index, dict):
        raise WysError(f"the model_index.json of {name} is damaged: it holds no object.")
    return index


def _from_hub(name: str, file: str) -> Path | None:
    """A file of a repository, downloaded or from the cache; None where the repository has none."""
    try:
        return Path(hf_hub_download(name, file))
    except EntryNotFoundError:
        return None


def _from_pretrained(
    name: str, dtype: torch.dtype, variant: str | None
) -> StableDiffusionInstructPix2PixPipeline:
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(
        name,
        dtype=dtype,
        variant=variant,
        use_safetensors=True,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    return pipeline


def _place(
    pipeline: StableDiffusionInstructPix2PixPipeline, device: torch.device, options: EditorOptions
) -> StableDiffusionInstructPix2PixPipeline:
    """Puts a pipeline that we loaded on its device, with diffusers' memory options."""
    if options.vae_tiling:
        pipeline.vae.enable_tiling()
    if options.vae_slicing:
        pipeline.vae.enable_slicing()
    if options.attention_slicing:
        pipeline.enable_attention_slicing()
    if options.offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif options.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)
    return pipeline
