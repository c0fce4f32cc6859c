"""A way out: images with their cameras in a form that nerfstudio and splatting trainers read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wys.camera import Camera
from wys.datasets.frames import OPENCV_FROM_OPENGL
from wys.errors import WysError
from wys.image import Picture, write_picture
from wys.store import write_json
from wys.views import Applied, moved


def write_views(
    folder: Path,
    names: Sequence[str],
    images: UInt8[Tensor, "n 3 h w"],
    cameras: Camera,
    scene_from_world: Float[Tensor, "4 4"],
    applied: Applied | None = None,
) -> None:
    """Writes images/NAME.png and, once all are there, transforms.json in nerfstudio's dialect.

    Poses are in the capture's own coordinates with OpenGL's axes, so that they fit whatever else
    was made of the capture.

    Args:
        cameras: n of them, in the scene frame.
        scene_from_world: of the capture.
        applied: of the capture; passed on, so that a training on what is written here counts from
            the same coordinates as one on the capture.

    Raises:
        WysError: counts or sizes do not agree, a name comes twice or is no file name, or the
            folder cannot be written.
    """
    count = len(names)
    if not (count == len(images) == len(cameras.intrinsics) == len(cameras.world_from_camera)):
        raise WysError(
            f"there are {count} names, {len(images)} images and {len(cameras.intrinsics)} cameras; "
            "give one each."
        )
    if (cameras.height, cameras.width) != tuple(images.shape[-2:]):
        raise WysError(
            f"the cameras are for {cameras.width} x {cameras.height} pixels, and the images have "
            f"{images.shape[-1]} x {images.shape[-2]}."
        )
    for name in names:
        if not name or Path(name).name != name or names.count(name) > 1:
            raise WysError(f"{name!r} does not name one image in a folder; give it another name.")
    for name, image in zip(names, images, strict=True):
        write_picture(folder / "images" / f"{name}.png", Picture(image))
    world_from_scene = torch.linalg.inv(scene_from_world.double())
    world = moved(cameras.exact(), world_from_scene)
    signs = torch.tensor(OPENCV_FROM_OPENGL, dtype=torch.float64)
    lenses = [_lens(row.tolist()) for row in world.intrinsics]
    shared = all(lens == lenses[0] for lens in lenses)
    frames: list[dict[str, Any]] = [
        {
            "file_path": f"images/{name}.png",
            "transform_matrix": (pose * signs).tolist(),
            **({} if shared else lens),
        }
        for name, pose, lens in zip(names, world.world_from_camera, lenses, strict=True)
    ]
    common = {"camera_model": "OPENCV", "w": cameras.width, "h": cameras.height}
    bends = {key: 0.0 for key in ("k1", "k2", "p1", "p2")}
    lens = lenses[0] if shared and lenses else {}
    before = _applied(applied) if applied else {}
    write_json(folder / "transforms.json", {**common, **lens, **bends, **before, "frames": frames})


def _applied(applied: Applied) -> dict[str, Any]:
    scale = {} if applied.scale == 1 else {"applied_scale": applied.scale}
    return {"applied_transform": applied.transform[:3].tolist(), **scale}


def _lens(values: list[float]) -> dict[str, float]:
    return dict(zip(("fl_x", "fl_y", "cx", "cy"), values, strict=True))
