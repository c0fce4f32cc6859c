"""The mean of several editors' weights.

Editors of which one was trained on from the other often lie in one valley of the loss, and their
mean can be better than either (Wortsman et al. 2022, Model soups): measure it before it is used.

    python -m wys.training.average --editors FIRST SECOND --out DIR
"""

from __future__ import annotations

import filecmp
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from wys.diffusion.loading import HEAD, builtin_directory
from wys.diffusion.refusals import LOCATOR, check_directory
from wys.errors import WysError
from wys.store import read_metadata, read_tensors, whole_folder, write_tensors

PARTS = ("unet", "text_encoder", LOCATOR, HEAD)
"""What is averaged; the rest, the autoencoder among it, is the first editor's."""
_NOTE = """
## A mean

The weights are the mean of those of {} editors; what stands above is of the first of them.
"""


def average(editors: Sequence[Path], out: Path) -> None:
    """Writes an editor whose weights are the mean of those of `editors`, whole or not at all.

    Raises:
        WysError: there are fewer than two editors, one of them is none, or they differ in their
            tensors, autoencoders or tokenizers.
    """
    if len(editors) < 2:
        raise WysError("a mean is of two editors or more; give another with --editors.")
    editors = [builtin_directory() if e == Path("builtin") else Path(e) for e in editors]
    first, *others = editors
    for editor in editors:
        check_directory(editor)
    for other in others:
        _check_alike(first, other)
    with whole_folder(Path(out)) as new:
        shutil.copytree(first, new, dirs_exist_ok=True)
        with (new / "README.md").open("a", encoding="utf-8") as card:
            card.write(_NOTE.format(len(editors)))
        for path in sorted(file for part in PARTS for file in _weights(first / part)):
            name = path.relative_to(first)
            mean = _mean([read_tensors(editor / name) for editor in editors], name)
            write_tensors(new / name, mean, read_metadata(path))


def _check_alike(first: Path, other: Path) -> None:
    """Raises WysError where what is not averaged differs: the same latents would mean others."""
    has = [(editor / LOCATOR).is_dir() for editor in (first, other)]
    if has[0] != has[1]:
        lacking = other if has[0] else first
        raise WysError(f"the editors cannot be averaged: {lacking} has no {LOCATOR}.")
    for part in ("vae", "tokenizer"):
        files = sorted(file.name for file in (first / part).iterdir() if file.is_file())
        _, changed, absent = filecmp.cmpfiles(first / part, other / part, files, shallow=False)
        if changed or absent:
            name = f"{part}/{(changed + absent)[0]}"
            raise WysError(f"the editors cannot be averaged: {first} and {other} differ in {name}.")


def _weights(part: Path) -> list[Path]:
    """The files of a part; none where an editor lacks it, as many lack head and locator."""
    return [part] if part.is_file() else list(part.glob("*.safetensors"))


def _mean(parts: Sequence[Mapping[str, Tensor]], name: Path) -> dict[str, Tensor]:
    """The mean of each tensor, in its own type."""
    shapes = [{key: value.shape for key, value in part.items()} for part in parts]
    if any(other != shapes[0] for other in shapes[1:]):
        raise WysError(f"the editors cannot be averaged: their tensors in {name} differ.")
    return {
        key: torch.stack([part[key].double() for part in parts]).mean(dim=0).to(value.dtype)
        for key, value in parts[0].items()
    }


@dataclass(frozen=True)
class Average:
    """Averages the weights of editors."""

    editors: tuple[Path, ...]
    """Pipeline directories of one architecture, or builtin; settings are those of the first."""
    out: Path
    """The directory to write."""


def main() -> None:
    """Command line."""
    chosen = tyro.cli(Average)
    try:
        average(chosen.editors, chosen.out)
    except WysError as error:
        print(f"wys: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
