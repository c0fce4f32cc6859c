"""What the scene commands work on: captures by name, choices of views, truth where it is known."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wys.apps.scene_options import ReadOptions
from wys.camera import Camera
from wys.datasets.camera_path import orbit, read_camera_path
from wys.datasets.reading import LEAST_VIEWS, read_capture
from wys.errors import WysError
from wys.names import resolved
from wys.nerf.region import Region
from wys.nerf.rendering import Rendering
from wys.relevance import field_mask
from wys.scene_folder import SceneFolder
from wys.tabletop.instructions import plainly
from wys.tabletop.posed import POSED_KINDS, PosedTruth, posed_edit, posed_views
from wys.thresholds import Threshold
from wys.views import Capture, ViewSet, moved

TABLETOP = "tabletop:"
"""`tabletop:INDEX` names a scene of the built-in world in the place of a path."""
MOST_FRAMES, MOST_PIXELS = 100_000, 16384
"""Of a film, and along a side of its pictures."""

_SEED = 0
_SPLIT: Literal["validation"] = "validation"  # The test split is for figures to publish.
_VIEWS, _EVERY, _SIZE = 25, 5, 128


def check_elsewhere(out: Path, scene: Path) -> None:
    """Raises WysError where results would lie among the files of the scene itself."""
    if resolved(out) == resolved(scene):
        raise WysError(f"{out} is the scene's own folder; choose another --out.")


def read_data(data: str, options: ReadOptions) -> tuple[Capture, dict[str, str] | None]:
    """The capture of a path or of `tabletop:INDEX`.

    Returns:
        The capture, and for a scene of the built-in world the instruction of each kind of edit
        whose truth is known.

    Raises:
        WysError: there is no such capture, or it cannot be used.
    """
    if not data.startswith(TABLETOP):
        return read_capture(Path(data), options.settings()), None
    index = _index(data)
    count, every = options.max_views or _VIEWS, _EVERY
    if options.holdout is not None:
        every = options.holdout
    held_out = round(count / every) if every else 0
    if count - held_out < LEAST_VIEWS:
        raise WysError(
            f"{count - held_out} views are left to fit to; hold out fewer, or take more."
        )
    case = posed_edit(_SEED, index, "recolour", _SPLIT)
    size = max(8, round(_SIZE / options.downscale))
    posed = posed_views(case, views=count - held_out, held_out=held_out, size=size)
    known = {kind: posed_edit(_SEED, index, kind, _SPLIT) for kind in POSED_KINDS}
    instructions: dict[str, str] = {
        kind: plainly(each.edit, each.description) for kind, each in known.items()
    }
    return replace(posed.capture(), source=data), instructions


def _index(data: str) -> int:
    found = re.fullmatch(rf"{TABLETOP}(\d+)", data)
    if found is None:
        raise WysError(
            f"'{data}' is no scene of the built-in world; write {TABLETOP} and a number, such as "
            f"{TABLETOP}3."
        )
    return int(found[1])


def truth_of(folder: SceneFolder, instruction: str, views: ViewSet) -> PosedTruth | None:
    """What the views of a scene of the built-in world should show; None where that is not known.

    It is known for the instructions that the record lists, as long as no other edit came before.
    """
    instructions: Mapping[str, str] = folder.record.get("instructions") or {}
    kind = next((k for k in POSED_KINDS if instructions.get(k) == instruction), None)
    if kind is None or folder.layers or not len(views):
        return None
    case = posed_edit(_SEED, _index(folder.record["source"]), kind, _SPLIT)
    world_from_scene = torch.linalg.inv(case.scene_from_world.double())
    return case.truth(moved(views.cameras, world_from_scene))


@dataclass(frozen=True)
class Shown:
    """Cameras to render from, as single pictures or as a film."""

    names: tuple[str, ...]
    cameras: Camera
    """One for each name, in the scene frame."""
    frames_per_second: float | None
    """None for single pictures."""
    views: ViewSet | None = None
    """The photographs of these cameras, where they are those of the scene."""


def chosen_views(
    capture: Capture, which: str, scale: float = 1.0, frames: int = 120, seconds: float = 5.0
) -> Shown:
    """The cameras that a user names: held-out, train, orbit, or the file of a recorded path.

    Args:
        scale: multiplies the size of the pictures.
        frames: of an orbit.
        seconds: that an orbit lasts.

    Raises:
        WysError: there are no held-out views, or the file holds no path.
    """
    if not (0 < scale < math.inf and 0 < seconds < math.inf and frames >= 2):
        raise WysError("--scale and --seconds are above 0, and --frames is at least 2.")
    if frames > MOST_FRAMES or scale * max(capture.train.size) > MOST_PIXELS:
        raise WysError(
            f"--frames is at most {MOST_FRAMES:,}, and pictures have at most {MOST_PIXELS} pixels "
            "along a side; lower --frames or --scale."
        )
    height, width = (max(1, round(scale * side)) for side in capture.train.size)
    if which in ("held-out", "train"):
        views = capture.train if which == "train" else capture.held_out
        if not len(views):
            raise WysError("the scene has no held-out views; choose --views train or orbit.")
        return Shown(views.names, views.cameras.resized(height, width), None, views)
    if which == "orbit":
        cameras, rate = orbit(capture, frames, height, width), frames / seconds
    else:
        if not Path(which).exists():
            raise WysError(
                f"--views is train, held-out, orbit or a recorded path's file, and {which} is none."
            )
        path = read_camera_path(Path(which), capture.scene_from_world, capture.applied)
        cameras = path.cameras
        if scale != 1:
            height = max(1, round(scale * cameras.height))
            cameras = cameras.resized(height, max(1, round(scale * cameras.width)))
        rate = len(cameras.intrinsics) / path.seconds
    count = len(cameras.intrinsics)
    return Shown(tuple(f"{i:04d}" for i in range(count)), cameras, rate)


def mask_of(
    shown: Rendering,
    camera: Camera,
    region: Region | None,
    threshold: Threshold,
    stretched: bool = False,
) -> Bool[Tensor, "1 h w"]:
    """The pixels of a view that look at a region; without one, those of high relevance.

    Args:
        stretched: as the edit's own settings have it.
    """
    if region is not None:
        return region.seen_by(camera, shown.surface)
    if shown.relevance is None:
        return torch.ones_like(shown.depth, dtype=torch.bool)
    size = (camera.height, camera.width)
    return field_mask(shown.relevance[None], size, threshold, stretched).at(size)[0]


def surface_points(
    renderings: Sequence[Rendering], cameras: Camera
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """The points that the renderings of some views show, in the scene frame, and their colours."""
    points, rgb = [], []
    for i, shown in enumerate(renderings):
        rays, surface = cameras[i].rays(), shown.surface[0]
        solid = surface < torch.inf
        points.append((rays.origins + surface[..., None] * rays.directions)[solid])
        rgb.append(shown.rgb.permute(1, 2, 0)[solid])
    return torch.cat(points), torch.cat(rgb)


def to_world(
    points: Float[Tensor, "n 3"], scene_from_world: Float[Tensor, "4 4"]
) -> Float[Tensor, "n 3"]:
    """Points of the scene frame in the capture's own coordinates, float64."""
    inverse = torch.linalg.inv(scene_from_world.double())
    return points.cpu().double() @ inverse[:3, :3].T + inverse[:3, 3]


def as_text(record: Mapping[str, Any]) -> str:
    """Names and values below each other."""
    width = max(len(name) for name in record)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in record.items())
