"""How far the edit of a scene is, and that as named tensors, from which it goes on exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from wys.errors import WysError
from wys.nerf.region import Region
from wys.nerf.scene import Scene
from wys.relevance import RelevanceMap, RelevanceSettings
from wys.views import ViewSet


@dataclass(frozen=True)
class SceneEditState:
    """Everything from which an edit goes on exactly.

    The field and its optimiser go on changing with the next step: what is to be kept is written, or
    copied, before that.
    """

    views: ViewSet
    """Photographs with the maps and the edits made so far."""
    scene: Scene
    """The field as it stands."""
    maps: tuple[RelevanceMap | None, ...]
    """The map of each photograph, each normalised for itself."""
    region: Region | None = None
    position: int = 0
    """Actions of the plan that are done."""
    fitter: Mapping[str, Tensor] = field(default_factory=dict)
    """The field's optimiser."""
    watch: Mapping[str, Tensor] = field(default_factory=dict)
    """What is noted of the first edits (see `Watchdog`); empty once they have proved to work."""

    @staticmethod
    def begin(scene: Scene, views: ViewSet) -> SceneEditState:
        """Before anything is done: a copy of the field, and no map known."""
        return SceneEditState(views, _without_relevance(scene), (None,) * len(views))

    def copied(self) -> SceneEditState:
        """The same with a field of its own, which an edit may go on changing."""
        return replace(self, scene=self.scene.clone())

    def with_map(self, i: int, found: RelevanceMap) -> SceneEditState:
        """With the map of photograph i, which is not normalised with the others yet."""
        maps = list(self.maps)
        maps[i] = found
        return replace(self, maps=tuple(maps))

    @property
    def room(self) -> Region | None:
        """Where the edited field takes the place of the one before; None: everywhere."""
        return None if self.region is None else self.region.room

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, for `from_tensors`."""
        found = {f"scene.{key}": value for key, value in self.scene.state_dict().items()}
        found |= {f"fitter.{key}": value for key, value in self.fitter.items()}
        found |= {f"watch.{key}": value for key, value in self.watch.items()}
        columns = {
            "edit": self.views.edits,
            "relevance": self.views.relevance,
            "raw": [None if m is None else m.raw for m in self.maps],
            "spread": [None if m is None else m.spread for m in self.maps],
            "values": [None if m is None else m.values for m in self.maps],
        }
        for name, values in columns.items():
            found |= {f"{name}.{i}": v for i, v in enumerate(values) if v is not None}
        if self.region is not None:
            found |= {
                "region": self.region.inside,
                "extent": torch.tensor(self.region.extent, dtype=torch.float64),
            }
        found["position"] = torch.tensor(self.position)
        return found

    @staticmethod
    def from_tensors(
        tensors: Mapping[str, Tensor],
        scene: Scene,
        views: ViewSet,
        instruction: str,
        settings: RelevanceSettings,
    ) -> SceneEditState:
        """What `tensors` gave; `scene` and `views` are those that the edit began with.

        Args:
            settings: how the maps were made.

        Raises:
            WysError: the tensors belong to another scene.
        """

        def part(prefix: str) -> dict[str, Tensor]:
            start = f"{prefix}."
            return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}

        indices = range(len(views))
        edits, relevance, raw, spread, values = (
            [part(name).get(str(i)) for i in indices]
            for name in ("edit", "relevance", "raw", "spread", "values")
        )
        known = part("scene")
        field_of = _without_relevance(scene)
        if any(key.startswith("relevance.") for key in known):
            field_of = field_of.with_relevance(0)
        try:
            field_of.load_state_dict(known)
            changed = replace(views, edits=tuple(edits), relevance=tuple(relevance))
            position = int(tensors["position"])
        except (RuntimeError, KeyError) as error:
            raise WysError("the saved state belongs to another scene; begin anew.") from error
        maps: list[RelevanceMap | None] = [None] * len(views)
        for i, (own, mean) in enumerate(zip(values, raw, strict=True)):
            if own is not None and mean is not None:
                maps[i] = RelevanceMap(own, mean, spread[i], (instruction,), views.size, settings)
        region = None
        if "region" in tensors:
            region = Region(tensors["region"].bool(), float(tensors["extent"]))
        return SceneEditState(
            changed, field_of, tuple(maps), region, position, part("fitter"), part("watch")
        )


def _without_relevance(scene: Scene) -> Scene:
    """A copy of the radiance field alone: an earlier edit's relevance is not this one's."""
    return Scene(scene.clone().radiance, None, background=scene.background)
