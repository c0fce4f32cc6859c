"""Loading InstructPix2Pix pipelines from wherever they are, with errors a person can act on.

Only safetensors weights are read and no code of a checkpoint is run.
"""

import importlib.resources
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel
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
from wys.diffusion.refusals import (
    LOCATOR,
    check_directory,
    check_pipeline_class,
    check_single_file,
    check_weights,
)
from wys.diffusion.settings import PAPER, EditorSettings, check_size, read_settings
from wys.diffusion.silent import skip_silent_branches
from wys.errors import WysError
from wys.store import read_json, read_tensors

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
HEAD = "relevance_head.safetensors"
SETTINGS = "wys.json"


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
    locator: UNet2DConditionModel | None


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
    settings, head, locator = PAPER, None, None
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
        check_weights(pipeline.text_encoder, path / "text_encoder", options.variant)
        if (path / SETTINGS).exists():
            settings = read_settings(path / SETTINGS)
        if (path / HEAD).exists():
            head = read_tensors(path / HEAD)
        if (path / LOCATOR).is_dir():
            # Where it does not come in the variant it is taken without one, like any part.
            has = any((path / LOCATOR).glob(f"*.{options.variant}*.safetensors"))
            locator = _locator(str(path), dtype, options.variant if has else None)
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
        if _from_hub(name, f"{LOCATOR}/config.json") is not None:
            locator = _locator(name, dtype)
    else:
        raise WysError(
            f"there is no editor {name}; give builtin, a pipeline directory, a .safetensors "
            "file or a hub id (owner/name)."
        )
    if options.edit_size is not None:
        settings = replace(settings, size=options.edit_size)
    return Loaded(_place(pipeline, device, options), device, settings, head, locator)


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


def _locator(name: str, dtype: torch.dtype, variant: str | None = None) -> UNet2DConditionModel:
    """The network that says where, of a directory or a hub repository that has one."""
    found = UNet2DConditionModel.from_pretrained(
        name, subfolder=LOCATOR, variant=variant, use_safetensors=True
    )
    if (Path(name) / LOCATOR).is_dir():
        check_weights(found, Path(name) / LOCATOR, variant)
    return found.to(dtype)


def _place(
    pipeline: StableDiffusionInstructPix2PixPipeline, device: torch.device, options: EditorOptions
) -> StableDiffusionInstructPix2PixPipeline:
    """Puts a pipeline that we loaded on its device, with diffusers' memory options."""
    skip_silent_branches(pipeline.vae)
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
