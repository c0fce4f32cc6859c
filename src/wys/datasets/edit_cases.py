"""Folders of image edits: one's own triplets, and the layouts of MagicBrush and PIE-Bench.

One's own folder has `metadata.jsonl`, one JSON object a line, with paths relative to the folder:

    {"before": "a.png", "instruction": "make the sky red", "after": "b.png", "mask": "m.png",
     "caption_before": "a house", "caption_after": "a house under a red sky", "kind": "colour"}

Only `before` and `instruction` are needed. `mask` is light where the edit may change the image.

MagicBrush (Zhang et al. 2023, arXiv 2306.10012) has `edit_turns.json`, a list of {"input", "mask",
"output", "instruction"}, with the files in `images/ID/` where ID is what stands before the first
"-" of a name, and perhaps `global_descriptions.json`, captions by ID and file name. Its masks are
RGBA pictures that are transparent where the edit is, at times of another size than the image.

PIE-Bench (Ju et al. 2023, arXiv 2310.01506) has `mapping_file.json`, an object of entries, and the
images in `annotation_images/`. A mask is a list of starts and lengths of runs in the rows of a
512 x 512 image, one after the other; it knows no edited images.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wys.errors import WysError
from wys.image import read_image, read_mask, read_picture
from wys.names import is_text
from wys.store import read_json

METADATA = "metadata.jsonl"
TURNS = "edit_turns.json"
MAPPING = "mapping_file.json"
ALL = "all"
"""What no kind is called: tables name the rows of all cases so."""
PIE_SIZE = 512
"""Side of PIE-Bench's images in pixels."""


@dataclass(frozen=True)
class EditCase:
    """One edit that is asked for, and what is known of its truth."""

    name: str
    """Its identity within the folder."""
    before: Path
    instruction: str
    after: Path | None = None
    """The true edited image."""
    mask: Path | tuple[int, ...] | None = None
    """A picture that is light where the edit is, or PIE-Bench's runs."""
    mask_is_hole: bool = False
    """The mask is a picture that is transparent where the edit is, as MagicBrush has it."""
    captions: tuple[str, str] | None = None
    """What the image shows before and after the edit."""
    kind: str = "own"
    """A group of cases that get rows of their own."""

    def read_before(self) -> Float[Tensor, "3 h w"]:
        """The image to edit, RGB in [0, 1]; raises WysError where it cannot be read."""
        return read_image(self.before)

    def read_after(self) -> Float[Tensor, "3 h w"] | None:
        """The true edited image; raises WysError where it cannot be read."""
        return None if self.after is None else read_image(self.after)

    def read_mask(self, size: tuple[int, int]) -> Bool[Tensor, "1 h w"] | None:
        """Where the edit may change an image of this (height, width); None where unknown.

        Raises:
            WysError: the mask cannot be read, or is of another size in a layout that forbids it.
        """
        if self.mask is None:
            return None
        if isinstance(self.mask, tuple):
            found = decode_runs(self.mask)
            if size != (PIE_SIZE, PIE_SIZE):
                raise WysError(
                    f"{self.before} has {size[1]} x {size[0]} pixels; the masks of PIE-Bench are "
                    f"for {PIE_SIZE} x {PIE_SIZE}."
                )
            return found[None]
        if self.mask_is_hole:
            alpha = read_picture(self.mask).alpha
            if alpha is None:
                raise WysError(f"{self.mask} has no transparent part to say where the edit is.")
            hole = (alpha < 128).float()
            return F.interpolate(hole[None], size=size, mode="nearest")[0] >= 0.5
        found = read_mask(self.mask)
        if found.shape[-2:] != torch.Size(size):
            raise WysError(f"{self.mask} and {self.before} differ in size.")
        return found


def read_cases(folder: Path) -> list[EditCase]:
    """The cases of a folder, whatever its layout; see the module.

    Raises:
        WysError: it has none of the layouts, or an entry lacks something or names a missing file.
    """
    readers: dict[str, Callable[[Path], list[EditCase]]] = {
        METADATA: read_metadata_lines,
        TURNS: read_magicbrush,
        MAPPING: read_pie_bench,
    }
    for name, reader in readers.items():
        if (folder / name).is_file():
            cases = reader(folder)
            if not cases:
                raise WysError(f"{folder / name} lists no case.")
            return cases
    raise WysError(
        f"{folder} holds no cases: it has no {METADATA} (one's own), {TURNS} (MagicBrush) or "
        f"{MAPPING} (PIE-Bench)."
    )


def read_metadata_lines(folder: Path, needed: Sequence[str] = ()) -> list[EditCase]:
    """One's own cases, from `metadata.jsonl`.

    Args:
        needed: keys that every line must have beside "before" and "instruction".

    Raises:
        WysError: the file is missing, or a line is not as the module tells.
    """
    metadata = folder / METADATA
    needed = ("before", *needed, "instruction")
    if not metadata.is_file():
        words = ", ".join(f'"{key}"' for key in needed[:-1])
        raise WysError(
            f"{folder} has no {METADATA}: one line of JSON for each triplet, with {words} and "
            f'"{needed[-1]}".'
        )
    try:
        # Programs on Windows put a mark before UTF-8.
        lines = metadata.read_text(encoding="utf-8-sig").split("\n")
    except ValueError as error:
        raise WysError(f"{metadata} is not UTF-8 text; save it as that.") from error
    cases = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{metadata}, line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise WysError(f"{place} is not valid JSON: {error}.") from error
        entry = _Entry(values, place, needed)
        if entry.get("kind") == ALL:
            raise WysError(f'{place}: the kind "{ALL}" stands for all cases; name it otherwise.')
        captions = entry.get("caption_before"), entry.get("caption_after")
        cases.append(
            EditCase(
                name=f"line {number}",
                before=entry.path(folder, "before"),
                instruction=entry["instruction"],
                after=entry.optional_path(folder, "after"),
                mask=entry.optional_path(folder, "mask"),
                captions=(captions[0], captions[1]) if all(captions) else None,
                kind=entry.get("kind") or "own",
            )
        )
    return cases


def read_magicbrush(folder: Path) -> list[EditCase]:
    """The turns of a split of MagicBrush, each from the true image before it; see the module."""
    captions = {}
    if (folder / "global_descriptions.json").is_file():
        captions = read_json(folder / "global_descriptions.json")
    return list(_turns(folder, _list(read_json(folder / TURNS), folder / TURNS), captions))


def _turns(folder: Path, turns: list[Any], captions: Any) -> Iterator[EditCase]:
    for number, values in enumerate(turns, start=1):
        place = f"{folder / TURNS}, entry {number}"
        entry = _Entry(values, place, ("input", "mask", "output", "instruction"))
        picture = entry["input"].split("-")[0]
        images = folder / "images" / picture
        said = captions.get(picture, {}) if isinstance(captions, dict) else {}
        said = said if isinstance(said, dict) else {}
        words = said.get(entry["input"]), said.get(entry["output"])
        yield EditCase(
            name=entry["output"],
            before=entry.path(images, "input"),
            instruction=entry["instruction"],
            after=entry.path(images, "output"),
            mask=entry.path(images, "mask"),
            mask_is_hole=True,
            captions=(words[0], words[1]) if words[0] and words[1] else None,
        )


def read_pie_bench(folder: Path) -> list[EditCase]:
    """The entries of PIE-Bench; see the module. The kind of a case is its editing type."""
    mapping = read_json(folder / MAPPING)
    if not isinstance(mapping, dict):
        raise WysError(f"{folder / MAPPING} holds no object of entries.")
    cases = []
    for name, values in mapping.items():
        place = f"{folder / MAPPING}, entry {name}"
        entry = _Entry(values, place, ("image_path", "editing_instruction"))
        runs = values.get("mask")
        # Square brackets mark the words in which the two prompts differ.
        prompts = [
            entry.get(key).replace("[", "").replace("]", "")
            for key in ("original_prompt", "editing_prompt")
        ]
        if runs is not None and not _is_runs(runs):
            raise WysError(f'{place}: "mask" is not a list of starts and lengths of runs.')
        cases.append(
            EditCase(
                name=name,
                before=entry.path(folder / "annotation_images", "image_path"),
                instruction=entry["editing_instruction"],
                mask=None if runs is None else tuple(runs),
                captions=(prompts[0], prompts[1]) if all(prompts) else None,
                kind=f"type {values.get('editing_type_id') or 'unknown'}",
            )
        )
    return cases


def decode_runs(runs: Sequence[int], side: int = PIE_SIZE) -> Bool[Tensor, "side side"]:
    """PIE-Bench's mask from its list of start, length, start, length, ... over the rows.

    As the authors' own program does, the image's outermost pixels always count as edited: the
    annotation is not reliable there.
    """
    flat = torch.zeros(side * side, dtype=torch.bool)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = True
    mask = flat.reshape(side, side)
    mask[[0, -1]] = True
    mask[:, [0, -1]] = True
    return mask


class _Entry:
    """An entry of a list of cases; what is wrong with it names its place."""

    def __init__(self, values: Any, place: str, needed: Sequence[str]) -> None:
        if not isinstance(values, dict):
            raise WysError(f"{place} is not a JSON object.")
        self._values, self._place = values, place
        for key in needed:
            if not self.get(key):
                raise WysError(f'{place} has no "{key}".')

    def get(self, key: str) -> str:
        """The words under a key; empty where there are none."""
        value = self._values.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise WysError(f'{self._place}: "{key}" must be words, not {value!r}.')
        if not is_text(value):
            raise WysError(f'{self._place}: "{key}" holds what is no Unicode text.')
        return value.strip()

    def __getitem__(self, key: str) -> str:
        return self.get(key)

    def path(self, folder: Path, key: str) -> Path:
        path = folder / self[key]
        if not path.is_file():
            raise WysError(f"{self._place} names {path}, which does not exist.")
        return path

    def optional_path(self, folder: Path, key: str) -> Path | None:
        return self.path(folder, key) if self.get(key) else None


def _list(values: Any, path: Path) -> list[Any]:
    if not isinstance(values, list):
        raise WysError(f"{path} holds no list of edits.")
    return values


def _is_runs(values: Any) -> bool:
    """Whether this is an even number of whole numbers from 0."""
    return (
        isinstance(values, list)
        and len(values) % 2 == 0
        and all(isinstance(value, int) and value >= 0 for value in values)
    )
