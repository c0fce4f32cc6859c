"""The editors on a machine: the built-in one, directories, and what the hub's cache holds.

Only the heads of their files are read; nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wys.errors import WysError

if TYPE_CHECKING:
    from wys.diffusion.settings import EditorSettings


@dataclass(frozen=True)
class EditorAtHand:
    """An editor on this machine."""

    name: str
    """As --editor takes it."""
    what: str
    usable: bool


def own_editors(directories: Iterable[Path]) -> Iterator[EditorAtHand]:
    """The built-in editor and the directories that the user names."""
    from wys.diffusion.loading import builtin_directory

    try:
        yield _looked_at("builtin", builtin_directory())
    except WysError as error:
        yield EditorAtHand("builtin", str(error), False)
    for path in directories:
        yield _looked_at(str(path), path)


def _looked_at(name: str, path: Path) -> EditorAtHand:
    """A pipeline directory: whole or not, and what it runs with."""
    from wys.diffusion.loading import SETTINGS
    from wys.diffusion.refusals import check_directory
    from wys.diffusion.settings import read_settings

    try:
        check_directory(path)
        if not (path / SETTINGS).is_file():
            return EditorAtHand(name, "no wys.json: runs with the preset 'paper'", True)
        return EditorAtHand(name, _settings(read_settings(path / SETTINGS)), True)
    except WysError as error:
        return EditorAtHand(name, str(error), False)


def _settings(settings: EditorSettings) -> str:
    """The settings that decide most, in a line."""
    found, made = settings.relevance, settings.edit
    size = "" if settings.size is None else f"{settings.size} pixels, "
    return (
        f"wys.json: {size}map by {found.source}, threshold {found.threshold}, guidance "
        f"{made.guidance.text:g} and {made.guidance.image:g}, {made.steps} steps"
    )


def hub_cache() -> Path:
    """Where downloads from the hub lie."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def hub_editors(cache: Path) -> Iterator[EditorAtHand]:
    """The InstructPix2Pix pipelines in the hub's cache."""
    from wys.diffusion.refusals import PIPELINE, check_directory
    from wys.store import read_json

    for entry in sorted(cache.glob("models--*--*")):
        for snapshot in sorted((entry / "snapshots").glob("*")):
            try:
                index = read_json(snapshot / "model_index.json")
            except WysError:
                continue
            if not isinstance(index, dict) or index.get("_class_name") != PIPELINE:
                continue
            name = entry.name.removeprefix("models--").replace("--", "/", 1)
            problem = ""
            for variant in (None, "fp16"):
                try:
                    check_directory(snapshot, variant)
                except WysError as error:
                    problem = problem or str(error)
                    continue
                note = "" if variant is None else f", with --variant {variant}"
                yield EditorAtHand(name, f"in the hub's cache{note}", True)
                break
            else:
                yield EditorAtHand(name, f"in the hub's cache, not whole: {problem}", False)
