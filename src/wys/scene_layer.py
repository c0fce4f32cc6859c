"""One edit of a scene on disk: its record, its field, its photographs and, until then, its state.

layers/01-NAME/
  layer.json             instruction, method, settings, seed, figures
  scene.safetensors      the field after the edit
  views/NAME.png         the training photographs after the edit
  relevance.safetensors  the relevance maps of the photographs it started from
  region.safetensors     the part of space that the edit may change, where it was decided
  state.safetensors      the state of an edit that is under way
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wys.errors import WysError
from wys.image import Picture, write_picture
from wys.nerf.region import Region
from wys.nerf.scene import Scene
from wys.store import read_json, read_metadata, read_tensors, write_json, write_tensors
from wys.views import ViewSet

_RECORD = "layer.json"
_SCENE = "scene.safetensors"
_VIEWS = "views"
_MAPS = "relevance.safetensors"
_REGION = "region.safetensors"
_STATE = "state.safetensors"
_KEYS = {"instruction", "method", "settings", "seed", "result"}


@dataclass(frozen=True)
class Layer:
    """One edit of a scene."""

    folder: Path
    record: Mapping[str, Any]
    """What `layer.json` holds: "instruction", "method", "settings", "seed" and, once the edit is
    finished, "result" with its figures."""

    @property
    def name(self) -> str:
        """The folder's name: the layer's number and what the user called it."""
        return self.folder.name

    @property
    def stamp(self) -> str:
        """Tells this edit from any other, also from a later one of the same name."""
        path = self.folder / _SCENE
        field = path.stat() if path.exists() else None
        written = None if field is None else (field.st_mtime_ns, field.st_size)
        return f"{self.name} {written} {json.dumps(self.record, sort_keys=True)}"

    @staticmethod
    def begin(folder: Path, record: Mapping[str, Any]) -> Layer:
        """A new folder with its record, without a result."""
        write_json(folder / _RECORD, {**record, "result": None})
        return Layer.open(folder)

    @staticmethod
    def open(folder: Path) -> Layer:
        """Reads the record of a folder.

        Raises:
            WysError: there is none, or it is damaged.
        """
        record = read_json(folder / _RECORD)
        if not isinstance(record, dict) or not set(record) >= _KEYS:
            raise WysError(f"{folder / _RECORD} is damaged.")
        return Layer(folder, record)

    @staticmethod
    def is_begun(folder: Path) -> bool:
        """Whether a folder holds an edit that is under way, also where its record is damaged.

        One with a result and without a state is what an undo that was cut short has left.
        """
        if not (folder / _RECORD).is_file():
            return False
        try:
            result = Layer.open(folder).record["result"]
        except WysError:
            return True
        return result is None or (folder / _STATE).exists()

    def finish(
        self, scene: Scene, views: ViewSet, region: Region | None, result: Mapping[str, Any]
    ) -> None:
        """Writes everything of a finished edit, its record last."""
        scene.save(self.folder / _SCENE)
        for name, image in zip(views.names, views.images, strict=True):
            write_picture(self.folder / _VIEWS / f"{name}.png", Picture(image))
        maps = {
            name: values
            for name, values in zip(views.names, views.relevance, strict=True)
            if values is not None
        }
        write_tensors(self.folder / _MAPS, maps)
        if region is not None:
            extent = torch.tensor(region.extent, dtype=torch.float64)
            write_tensors(self.folder / _REGION, {"inside": region.inside, "extent": extent})
        write_json(self.folder / _RECORD, {**self.record, "result": dict(result)})

    def scene(self) -> Scene:
        """The field after the edit."""
        return Scene.load(self.folder / _SCENE)

    @property
    def pictures(self) -> Path:
        """Where the photographs after the edit lie."""
        return self.folder / _VIEWS

    def maps(self) -> dict[str, Tensor]:
        """The relevance maps by the names of their views."""
        return read_tensors(self.folder / _MAPS)

    def region(self) -> Region | None:
        """The part of space that the edit may change; None where it was not decided."""
        path = self.folder / _REGION
        if not path.exists():
            return None
        tensors = read_tensors(path)
        try:
            return Region(tensors["inside"].bool(), float(tensors["extent"]))
        except (KeyError, ValueError, RuntimeError) as error:
            raise WysError(f"{path} holds no region; 'wys scene undo' takes the edit away.") from (
                error
            )

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """The state and its notes that `save_state` wrote last; None where it never did."""
        path = self.folder / _STATE
        return (read_tensors(path), read_metadata(path)) if path.exists() else None

    def save_state(self, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
        """Replaces the state of an edit that is under way."""
        write_tensors(self.folder / _STATE, tensors, notes)

    def drop_state(self) -> None:
        """Forgets the state, once the edit is finished.

        Raises:
            WysError: it cannot be deleted.
        """
        path = self.folder / _STATE
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise WysError(
                f"cannot delete {path}: {error.strerror or error}; make its folder writable."
            ) from error


def layer_name(instruction: str) -> str:
    """A short name for a layer, from its instruction: letters, digits and dashes."""
    words = re.findall(r"[a-z0-9]+", instruction.lower())
    name = ""
    for word in words:
        if name and len(name) + len(word) > 31:
            break
        name = f"{name}-{word}" if name else word[:31]
    return name or "edit"
