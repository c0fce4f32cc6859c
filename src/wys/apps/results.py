"""What a run leaves in its folder: pictures, the relevance map itself, the record of the run."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wys.errors import WysError
from wys.image import Picture, draw_outline, in_sheet, labelled_sheet, overlay_heat, resize
from wys.names import resolved
from wys.relevance import RelevanceMap, Verdict
from wys.relevance_file import read_relevance
from wys.store import is_stream, read_metadata

if TYPE_CHECKING:
    from wys.apps.options import EditorOptions
    from wys.diffusion.editor import Editor

MAP_FILE = "relevance.safetensors"
RUN_FILES = ("edited.png", "mask.png", "relevance.png", MAP_FILE, "run.json", "sheet.png")
"""What a run of `wys relevance` or `wys edit` leaves in its folder."""
SHEET_HEIGHT = 256
VERDICTS: dict[Verdict, str] = {
    "nothing to edit": "Nothing to edit: the instruction changes nothing in this image.",
    "local": "A local edit.",
    "whole image": "The instruction concerns the whole image.",
}
"""The verdicts as sentences."""


@contextmanager
def result_folder(out: Path, replaces: Sequence[str] = ()) -> Iterator[Path]:
    """Yields a temporary folder whose files move to `out` together once all are written.

    Args:
        replaces: files of an earlier run that go, where this one has none of that name.

    On entry `out` is tried, so that a place that cannot be written is found before the work, and
    on failure nothing new is left there.

    Raises:
        WysError: `out` cannot be made or written, or the disk is full.
    """
    new = [folder for folder in (out, *out.parents) if not folder.exists()]
    temporary: Path | None = None
    complete = False
    kept: set[Path] = set()
    try:
        out.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".wys-", dir=out))
        yield temporary
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        _check_places(out, [file.relative_to(temporary) for file in files])
        for file in files:
            target = out / file.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
            kept.add(target)
        for stale in {out / name for name in replaces} - kept:
            stale.unlink(missing_ok=True)
        complete = True
    except OSError as error:
        reason = error.strerror or str(error)
        raise WysError(f"cannot write to {out}: {reason}; choose another --out.") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for folder in () if complete else new:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _check_places(out: Path, files: Sequence[Path]) -> None:
    """Raises WysError where a folder lies in a file's place, or a file in a folder's."""
    for file in files:
        if (out / file).is_dir():
            raise WysError(f"{out / file} is a folder, not a file; choose another --out.")
        for parent in file.parents:
            if (out / parent).exists() and not (out / parent).is_dir():
                raise WysError(f"{out / parent} is a file, not a folder; choose another --out.")


def check_replaceable(out: Path, inputs: Sequence[Path]) -> None:
    """Says before the work whether a run's files can take the place of what is in its folder.

    Args:
        inputs: files that the run reads.

    Raises:
        WysError: one of them, a folder, or a file that no run left there would be lost.
    """
    for name in RUN_FILES:
        target = out / name
        if target.is_dir():
            raise WysError(
                f"{target} is a folder, and a run writes a file there; choose another --out."
            )
        if any(resolved(path) == resolved(target) for path in inputs):
            raise WysError(
                f"{target} is read by this run, which would replace it; choose another --out."
            )
        if target.exists() and not (out / "run.json").is_file():
            raise WysError(
                f"{target} is there already, and no run.json beside it says that a run left it; "
                "choose another --out."
            )


def check_writable(path: Path) -> None:
    """Raises WysError where a file could not be written: before the work, not after it."""
    if path.is_dir():
        raise WysError(f"cannot write {path}: there is a folder of that name; name a file.")
    if is_stream(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise WysError(
            f"cannot write {path}: {error.strerror or error}; choose another place."
        ) from error


def load_map(path: Path) -> tuple[RelevanceMap, str | None]:
    """The map in a file, or in the folder of a run, and the digest of its picture where it has one.

    Raises:
        WysError: there is no such map, or it is damaged.
    """
    path = path / MAP_FILE if path.is_dir() else path
    return read_relevance(path), read_metadata(path).get("image")


def with_threshold(relevance: RelevanceMap, threshold: Any) -> RelevanceMap:
    """The same map with another threshold; None leaves it."""
    if threshold is None:
        return relevance
    return replace(relevance, settings=replace(relevance.settings, threshold=threshold))


def sheet(
    original: Float[Tensor, "3 h w"],
    relevance: RelevanceMap,
    region: Bool[Tensor, "1 h w"],
    edited: Float[Tensor, "3 h w"] | None,
    instruction: str,
) -> Float[Tensor, "3 H W"]:
    """Input, relevance, mask outline and edited image side by side, under what was asked for."""
    size = in_sheet(original, SHEET_HEIGHT)
    if size[0] < original.shape[-2]:
        # Nothing that is drawn on them would be seen in more pixels than the sheet has.
        original, edited = resize(original, size), None if edited is None else resize(edited, size)
        region = F.adaptive_max_pool2d(region.float(), size) > 0
    heat = overlay_heat(original, relevance.values[0].cpu())
    cells = [("input", original), ("relevance", heat), ("mask", draw_outline(original, region))]
    if edited is not None:
        cells.append(("edited", edited))
    return labelled_sheet([cells], height=SHEET_HEIGHT, title=instruction)


def digest(picture: Picture) -> str:
    """SHA-256 of a picture's colour and alpha bytes, whatever file they came in."""
    parts = [picture.rgb] if picture.alpha is None else [picture.rgb, picture.alpha]
    return hashlib.sha256(torch.cat(parts).contiguous().numpy().tobytes()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    packages = ("wys", "torch", "diffusers", "transformers", "numpy", "pillow")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def run_record(
    instruction: str, options: EditorOptions, editor: Editor, seed: int
) -> dict[str, Any]:
    """What the record of a scene's preview or edit begins with."""
    return {
        "command": shlex.join(["wys", *sys.argv[1:]]),
        "instruction": instruction,
        "editor": asdict(options) | {"device": str(editor.device)},
        "seed": seed,
        "versions": versions(),
    }


def share(region: Bool[Tensor, "1 h w"]) -> float:
    """The share of pixels that are true."""
    return float(region.double().mean())


def bytes_changed(before: Picture, after: Picture, region: Bool[Tensor, "1 h w"]) -> dict[str, Any]:
    """How much of a picture's bytes changed, and the largest change outside the region."""
    difference = (before.rgb.int() - after.rgb.int()).abs().amax(dim=0, keepdim=True)
    outside = torch.where(region, 0, difference)
    return {
        "share_changed": share(difference > 0),
        "largest_change_outside_mask": int(outside.max()),
    }


def in_words(path: Path) -> str:
    """A folder as the user would type it."""
    return f"{path}{os.sep}"
