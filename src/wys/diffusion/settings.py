"""The settings that belong to a checkpoint: its `wys.json`, or the preset `paper` without one."""

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any

from wys.diffusion.sampler import EditSettings
from wys.edit_score import ScoreSettings
from wys.errors import WysError
from wys.relevance import RelevanceSettings
from wys.store import PathLike, parse_as, read_json

LEAST_SIZE, MOST_SIZE = 16, 16384
"""Pixels below and above which nobody edits an image."""


def check_size(size: int) -> None:
    """Raises WysError where images cannot be edited at so many pixels along their longer side."""
    if not LEAST_SIZE <= size <= MOST_SIZE:
        raise WysError(f"images are edited at {LEAST_SIZE} to {MOST_SIZE} pixels, not at {size}.")


@dataclass(frozen=True)
class EditorSettings:
    """What works best with one checkpoint. The defaults are the preset `paper`."""

    relevance: RelevanceSettings = field(default_factory=RelevanceSettings)
    """How its relevance maps are made."""
    edit: EditSettings = field(default_factory=EditSettings)
    """How its edits are made."""
    size: int | None = None
    """The longer side of the images it works on, in pixels; None: the size its network names."""
    score: ScoreSettings = field(default_factory=ScoreSettings)
    """How automatic edits are judged."""
    rival: float = 0.9
    """In scenes: a thing apart from what all views agree on most is meant too where it is at least
    this share as relevant; 1: one thing alone, 0: all."""

    def __post_init__(self) -> None:
        if self.size is not None:
            check_size(self.size)
        if not 0 <= self.rival <= 1:
            raise WysError(
                f"the rival of a scene's region is a share from 0 to 1, not {self.rival}."
            )


PAPER = EditorSettings()
"""The paper's settings, for any checkpoint that brings none of its own."""


def read_settings(path: PathLike) -> EditorSettings:
    """Reads `wys.json`: {"version": 1, "relevance": {...}, "edit": {...}, "size": ...}.

    What is left out has the value of the preset `paper`.

    Raises:
        WysError: the file is damaged, of another version, or holds an unknown or ill-typed entry.
    """
    values = read_json(path)
    if not isinstance(values, dict) or values.get("version") != 1:
        raise WysError(f'{path} is not a wys settings file: it needs "version": 1.')
    rest = {name: value for name, value in values.items() if name != "version"}
    return typing.cast(EditorSettings, parse_as(EditorSettings, rest, f"{path}"))


def settings_as_json(settings: EditorSettings) -> dict[str, Any]:
    """The content of a `wys.json` that `read_settings` reads back as these settings."""
    return {"version": 1, **dataclasses.asdict(settings)}
