"""Relevance maps in files, so that another threshold or guidance need not make them again."""

import json
from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor

from wys.errors import WysError
from wys.relevance import RelevanceMap, RelevanceSettings
from wys.store import PathLike, parse_as, read_metadata, read_tensors, write_tensors

FORMAT = "wys relevance map 1"


def write_relevance(path: PathLike, relevance: RelevanceMap, image: str | None = None) -> None:
    """Writes a relevance map as safetensors, atomically.

    Args:
        image: a digest of the picture that it is of, kept beside it.

    Raises:
        WysError: the file cannot be written.
    """
    tensors = {"values": relevance.values, "raw": relevance.raw}
    if relevance.spread is not None:
        tensors["spread"] = relevance.spread
    metadata = {
        "format": FORMAT,
        "instructions": json.dumps(relevance.instructions),
        "image_size": json.dumps(relevance.image_size),
        "settings": json.dumps(asdict(relevance.settings)),
    }
    write_tensors(path, tensors, metadata if image is None else {**metadata, "image": image})


def read_relevance(path: PathLike) -> RelevanceMap:
    """Reads what `write_relevance` or a run of `wys relevance` wrote.

    Raises:
        WysError: there is no such map, or it is damaged.
    """
    tensors, metadata = read_tensors(path), read_metadata(path)
    if metadata.get("format") != FORMAT:
        raise WysError(f"{path} is no relevance map of this version; make it with 'wys relevance'.")
    try:
        return _map_of(tensors, metadata)
    except (KeyError, TypeError, ValueError, WysError) as error:
        # What a sentence says of it is worth telling; what Python says is not.
        reason = f" ({str(error).removesuffix('.')})" if isinstance(error, WysError) else ""
        raise WysError(
            f"{path} is a damaged relevance map{reason}; make it again with 'wys relevance'."
        ) from error


def _map_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> RelevanceMap:
    """The map of a file's content; an error of whatever kind where it is not one."""
    instructions, settings = (json.loads(metadata[key]) for key in ("instructions", "settings"))
    height, width = parse_as(tuple[int, ...], json.loads(metadata["image_size"]), "the image size")
    if not isinstance(instructions, list) or not all(isinstance(x, str) for x in instructions):
        raise WysError("its instructions are no list of sentences.")
    if not settings:
        raise WysError("it has no settings.")
    if min(height, width) < 1:
        raise WysError("it is of an image without pixels.")
    made_by = parse_as(RelevanceSettings, settings, "its settings")
    count = len(instructions)
    values, raw, spread = tensors["values"], tensors["raw"], tensors.get("spread")
    for name, tensor in {"values": values, "raw": raw, "spread": spread}.items():
        if tensor is None:
            continue
        if tensor.dtype != torch.float32 or tensor.ndim != 4 or tensor.shape[:2] != (count, 1):
            raise WysError(
                f"its {name} are {tensor.dtype} {list(tensor.shape)}, not float32 "
                f"[{count}, 1, h, w]."
            )
        if tensor.numel() == 0 or not bool(torch.isfinite(tensor).all()):
            raise WysError(f"its {name} are not all numbers.")
    if values.min() < 0 or values.max() > 1:
        raise WysError("its values are not between 0 and 1.")
    # Along edges a map is led at the editor's size: a whole number of times that of its latents.
    factors = {
        divmod(fine, coarse) for fine, coarse in zip(values.shape[2:], raw.shape[2:], strict=True)
    }
    spread_fits = spread is None or spread.shape == raw.shape
    if len(factors) != 1 or factors.pop()[1] or not spread_fits:
        raise WysError("the sizes of its tensors do not fit together.")
    return RelevanceMap(values, raw, spread, tuple(instructions), (height, width), made_by)
