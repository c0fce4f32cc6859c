"""A fitted scene: the radiance field, perhaps a relevance field, and how its rays end."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from typing import Any, get_args

import torch
from torch import nn

from wys.errors import WysError
from wys.nerf.field import FieldSettings, RadianceField
from wys.nerf.relevance_field import RelevanceField, RelevanceFieldSettings
from wys.seeds import generator
from wys.store import PathLike, read_metadata, read_tensors, with_tuples, write_tensors
from wys.views import Background

VERSION = 1


class Scene(nn.Module):
    """What `render` shows.

    Args:
        unbounded: the scene has no end and space is contracted; otherwise it lies in a ball.
        background: "scene": every ray ends in something that the photographs show; "white" or
            "black": what shines through where nothing is.
    """

    def __init__(
        self,
        radiance: RadianceField,
        relevance: RelevanceField | None,
        *,
        background: Background,
    ) -> None:
        super().__init__()
        self.radiance, self.relevance = radiance, relevance
        self.background: Background = background

    @staticmethod
    def create(
        settings: FieldSettings, seed: int, *, unbounded: bool, background: Background
    ) -> Scene:
        """A scene with nothing learnt; the same seed gives the same scene."""
        draw = generator(seed, 0, "radiance field")
        return Scene(RadianceField(settings, unbounded, draw), None, background=background)

    @property
    def settings(self) -> FieldSettings:
        """The radiance field's."""
        return self.radiance.settings

    @property
    def unbounded(self) -> bool:
        """Whether space is contracted."""
        return self.radiance.unbounded

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.radiance.grid.table.device

    def clone(self) -> Scene:
        """A deep copy that shares nothing."""
        return copy.deepcopy(self)

    def with_relevance(
        self, seed: int = 0, settings: RelevanceFieldSettings | None = None
    ) -> Scene:
        """The same radiance field (shared, not copied) with a fresh relevance field.

        The relevance field starts level, so `seed` draws nothing yet.
        """
        del seed
        field = RelevanceField(
            settings or RelevanceFieldSettings(),
            unbounded=self.unbounded,
            radius=self.settings.radius,
        )
        return Scene(self.radiance, field.to(self.device), background=self.background)

    def save(self, path: PathLike) -> None:
        """Writes the scene as one safetensors file, atomically; its settings are the metadata."""
        record: dict[str, Any] = {
            "version": VERSION,
            "unbounded": self.unbounded,
            "background": self.background,
            "field": asdict(self.settings),
            "relevance": None if self.relevance is None else asdict(self.relevance.settings),
        }
        write_tensors(path, self.state_dict(), {"scene": json.dumps(record)})

    @staticmethod
    def load(path: PathLike) -> Scene:
        """Reads a file of `save`.

        Raises:
            WysError: the file is missing, damaged, no scene, or of a newer version.
        """
        tensors, metadata = read_tensors(path), read_metadata(path)
        try:
            record = json.loads(metadata["scene"])
            version = record["version"]
            if version != VERSION:
                raise WysError(
                    f"{path} has version {version} and this program reads {VERSION}; update wys."
                )
            settings = FieldSettings(**with_tuples(record["field"]))
            background = record["background"]
            if background not in get_args(Background):
                raise ValueError(f"unknown background {background}")
            scene = Scene.create(
                settings, 0, unbounded=bool(record["unbounded"]), background=background
            )
            if record["relevance"] is not None:
                scene = scene.with_relevance(
                    settings=RelevanceFieldSettings(**with_tuples(record["relevance"]))
                )
            scene.load_state_dict(tensors, strict=True)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise WysError(
                f"{path} holds no scene that fits this program; fit it again."
            ) from error
        return scene
