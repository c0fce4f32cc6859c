"""The order in which the photographs of a scene and its field take turns."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wys.scene_settings import SceneEditSettings
from wys.seeds import generator


@dataclass(frozen=True)
class Turn:
    """An action of the plan: the edit of one photograph, or some steps of the field."""

    view: int | None
    """Which photograph is edited; None for steps of the field."""
    whole: bool = False
    """Whether the edit begins with the photograph and a full edit's noise."""


def plan(count: int, settings: SceneEditSettings, seed: int) -> list[Turn]:
    """Edits and field steps in their order; every pass takes the views in an order of its own."""
    edits: list[int] = []
    total = max(1, round(settings.passes * count))
    while len(edits) < total:
        draw = generator(seed, len(edits) // count, "view order")
        edits += torch.randperm(count, generator=draw).tolist()
    edits = edits[:total]
    fit, rest = Turn(None), -(-settings.rest // settings.every)
    turns: list[Turn] = []
    if settings.together:
        first, edits = edits[:count], edits[count:]
        turns += [Turn(view, whole=True) for view in first] + [fit] * len(first)
    for view in edits:
        turns += [Turn(view), fit]
    return turns + [fit] * rest
