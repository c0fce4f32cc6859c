"""An editor's `rival`, found on scenes of the validation split.

Views vote on the region of an edit, and may agree on several things. How much less relevant may
what stands apart be, and still be meant? No field is fitted for that: the exact depth tells what
hides a region from a held-out camera, whose exact mask is the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wys.camera import Camera
from wys.diffusion.editor import Editor
from wys.evaluation import metrics
from wys.image_edit import relevance_map
from wys.relevance import RelevanceSettings
from wys.scene_edit import agreed_region, scaled_maps
from wys.scene_settings import OWN
from wys.tabletop.edits import Kind
from wys.tabletop.posed import posed_edit, posed_views
from wys.tabletop.raytracer import render
from wys.views import ViewSet

KINDS: tuple[Kind, ...] = ("recolour", "material", "shape", "remove")
RIVALS = (0.0, 0.8, 0.9, 0.95, 0.98, 1.0)
VIEWS, HELD_OUT = 16, 4
WORTH_IOU = 0.005
"""Leaving parts out has to gain at least this much."""
FAR = 1e5
"""Scene units at which the sky stands."""


@dataclass(frozen=True)
class LocatedEdit:
    """The maps of a scene's photographs, and the truth in cameras that made none."""

    views: ViewSet
    maps: tuple[Float[Tensor, "1 hm wm"], ...]
    """By one scale for all, as a scene edit takes them."""
    cameras: Camera
    """Held-out cameras in the scene frame."""
    distance: Float[Tensor, "n h w"]
    """Exact distance along their rays, in scene units."""
    truth: Bool[Tensor, "n h w"]


@dataclass(frozen=True)
class RivalTrial:
    """One share and how well the regions that it leaves fit."""

    rival: float
    iou: float
    """Mean IoU of the regions with the exact masks, in held-out cameras; 1 where both are empty."""


def located_edit(
    editor: Editor, how: RelevanceSettings, index: int, kind: Kind, size: int, seed: int
) -> LocatedEdit:
    """The edit of a kind of validation scene `index`, as all its photographs see it."""
    case = posed_edit(seed, index, kind, "validation")
    posed = posed_views(case, views=VIEWS, held_out=HELD_OUT, size=size)
    capture, rows = posed.capture(), posed.held_out_rows
    photographs = [capture.train.original(i) for i in range(VIEWS)]
    maps = [
        relevance_map(editor, photograph, case.instruction, how, seed=seed, items=[name])
        for photograph, name in zip(photographs, capture.train.names, strict=True)
    ]
    cameras, world = capture.held_out.cameras, posed.cameras[torch.tensor(rows)]
    depth = render(case.before[[0] * len(rows)], world, samples=1).depth.clamp(max=FAR)
    ahead = torch.einsum("nhwc,nc->nhw", world.rays().directions, world.world_from_camera[:, :3, 2])
    scale = float(capture.scene_from_world[:3, 0].norm())
    return LocatedEdit(
        capture.train,
        tuple(scaled_maps(maps, photographs, OWN)),
        cameras,
        depth / ahead * scale,
        posed.truth.mask[rows],
    )


def region_iou(edit: LocatedEdit, how: RelevanceSettings, rival: float) -> float:
    """The mean IoU of what held-out cameras see of the agreed region with the exact masks."""
    region = agreed_region(edit.maps, edit.views, how, replace(OWN.voting, rival=rival))
    seen = torch.stack(
        [region.seen_by(edit.cameras[i], edit.distance[i][None])[0] for i in range(HELD_OUT)]
    )
    return float(metrics.iou(seen, edit.truth).mean())


def tune_rival(
    editor: Editor, how: RelevanceSettings, *, scenes: int, seed: int
) -> Iterator[RivalTrial]:
    """Every share on all kinds of edit of some scenes; the last one is the best.

    Args:
        how: how maps are made; its threshold makes the masks that vote.
    """
    edits = [
        located_edit(editor, how, index, kind, editor.native_size, seed)
        for index in range(scenes)
        for kind in KINDS
    ]
    trials = []
    for rival in RIVALS:
        ious = [region_iou(edit, how, rival) for edit in edits]
        trials.append(RivalTrial(rival, sum(ious) / len(ious)))
        yield trials[-1]
    # Of about equal ones the lowest: it takes the least away.
    top = max(trial.iou for trial in trials)
    yield next(trial for trial in trials if trial.iou >= top - WORTH_IOU)
