"""What `scene.json` has to hold: a damaged record is named before anything is made of it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import torch

from wys.errors import WysError
from wys.names import is_plain_name
from wys.store import read_json
from wys.views import Background

FORMAT = "wys scene 1"
_LONGEST = 65536
"""Most pixels along a side of a photograph."""


def read_record(path: Path) -> dict[str, Any]:
    """The record of a scene.

    Raises:
        WysError: the file is missing, of another version, or damaged.
    """
    record = read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise WysError(f"{path} is not of this version ({FORMAT}); fit the scene again.")
    record = {"applied": None, **record}  # Older records do not have it.
    for key, fits in _KEYS.items():
        if key not in record:
            raise WysError(f"{path} is damaged: it has no {key!r}; fit it again.")
        if not fits(record[key]):
            raise WysError(f"{path} is damaged: its {key!r} is not valid; fit it again.")
    return record


def _is_similarity(value: Any) -> bool:
    """Whether it has a scale that can be undone."""
    try:
        matrix = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    if matrix.shape != (4, 4) or matrix[3].tolist() != [0, 0, 0, 1]:
        return False
    volume = float(torch.linalg.det(matrix[:3, :3]).abs())
    return bool(matrix.isfinite().all()) and 0 < volume < math.inf


def _is_applied(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or not _is_similarity(value.get("transform")):
        return False
    scale = value.get("scale")
    return isinstance(scale, int | float) and 0 < scale <= sys.float_info.max


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, list)
        and [type(side) for side in value] == [int, int]
        and all(0 < side <= _LONGEST for side in value)
    )


def _is_views(value: Any) -> bool:
    """Whether it lists views, none of whose names leads out of the scene's folder."""
    return isinstance(value, list) and all(
        isinstance(view, dict) and is_plain_name(view.get("name")) for view in value
    )


def _is_fit(value: Any) -> bool:
    if not isinstance(value, dict) or not {"field", "settings", "seed", "result"} <= set(value):
        return False
    return value["result"] is None or _is_result(value["result"])


def _is_result(value: Any) -> bool:
    """Whether it has the figures of a fit; PSNR and SSIM only where views were held out."""
    if not isinstance(value, dict) or ("psnr" in value) != ("ssim" in value):
        return False
    known = {"iterations", "seconds"} | ({"psnr", "ssim"} & set(value))
    return all(isinstance(value.get(name), int | float) for name in known)


_KEYS: Mapping[str, Callable[[Any], bool]] = {
    "source": lambda value: isinstance(value, str),
    "size": _is_size,
    "background": lambda value: value in get_args(Background),
    "unbounded": lambda value: isinstance(value, bool),
    "scene_from_world": _is_similarity,
    "applied": _is_applied,
    "train": lambda value: _is_views(value) and len(value) > 0,
    "held_out": _is_views,
    "instructions": lambda value: value is None or isinstance(value, dict),
    "fit": _is_fit,
    "layers": lambda value: isinstance(value, list) and all(map(is_plain_name, value)),
}
"""What a record has to hold, and what each of it has to be."""
