"""The scene edit on a real capture, with an editor that paints a known part of space.

The built-in editor knows nothing of foxes: this one paints blue wherever a ball in space,
known in advance, is seen. What is tested is all around it: maps, votes, masks, composite, field.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wys.datasets.reading import ReadSettings, read_capture
from wys.diffusion.editor import Editor
from wys.image import from_model, from_uint8, to_uint8
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings, RelevanceFitSettings, fit
from wys.nerf.layering import Look
from wys.nerf.region import Region, region_mask
from wys.nerf.rendering import render
from wys.nerf.scene import Scene
from wys.relevance import RelevanceSettings, VerdictSettings
from wys.scene_edit import edit_scene
from wys.scene_settings import OWN

FOX = Path(os.environ.get("WYS_DATA", Path(__file__).parents[2] / "shared/data")) / "fox"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOX.is_dir(), reason="the fox capture is not here; set WYS_DATA"),
]


def bluish(pixels: torch.Tensor, dark: float) -> torch.Tensor:
    """Mostly blue: red and green lead towards the value `dark`, blue towards 1."""
    blue = torch.tensor([dark, dark, 1.0]).view(1, 3, 1, 1).expand_as(pixels)
    return torch.lerp(pixels, blue, 0.7)


def repainted(
    photographs: torch.Tensor, masks: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Makes the photographs' pixels that were said to show the ball bluish."""
    known = {photo.numpy().tobytes(): mask for photo, mask in zip(photographs, masks, strict=True)}

    def painted(pixels: torch.Tensor) -> torch.Tensor:
        shown = [known[to_uint8(from_model(p)).numpy().tobytes()] for p in pixels]
        return torch.where(torch.stack(shown), bluish(pixels, -1.0), pixels)

    return painted


def test_a_known_part_of_a_real_scene_is_repainted(painter: Callable[..., Editor]) -> None:
    capture = read_capture(FOX / "transforms.json", ReadSettings(downscale=4, holdout=8))
    views, held_out = capture.train, capture.held_out
    assert len(views) > 30 and len(held_out) > 4
    scene = Scene.create(
        FieldSettings(log2_size=14, samples=16), 0, unbounded=True, background="scene"
    )
    fitting = FitSettings(iterations=400, rays=384)
    for _ in fit(scene, views, fitting, seed=0):
        pass
    shown = torch.stack([render(scene, held_out.cameras[i]).rgb for i in range(len(held_out))])
    error = (shown - from_uint8(held_out.originals)).square().mean()
    assert -10 * torch.log10(error) > 18

    axis = ((torch.arange(64) + 0.5) / 64 * 2 - 1) * 1.25
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    ball = Region(points.norm(dim=-1) < 0.35, 1.25)
    masks = torch.stack([region_mask(scene, ball, views.cameras[i]) for i in range(len(views))])
    assert 0.01 < float(masks.float().mean()) < 0.6

    before = {key: value.clone() for key, value in scene.state_dict().items()}
    settings = replace(OWN, passes=1.5, every=10)
    maps = RelevanceSettings(
        space="x0",
        normalisation="absolute",
        scale=0.1,
        verdict=VerdictSettings(nothing_below=0.02),
    )
    fitted = Look(((scene, None),))
    *_, last = edit_scene(
        painter(repainted(views.originals, masks), maps),
        fitted,
        views,
        "paint it in other colours",
        settings,
        fitting=fitting,
        relevance_fitting=RelevanceFitSettings(iterations=80, rays=512),
    )
    state = last.state
    assert state.region is not None
    look = fitted.with_layer(state.scene, state.room)
    moved, kept, overlap = [], [], []
    for i in range(len(held_out)):
        camera = held_out.cameras[i]
        truth = region_mask(scene, ball, camera)[0]
        own = region_mask(scene, state.region, camera)[0]
        overlap.append(float((truth & own).sum() / (truth | own).sum().clamp(min=1)))
        old, new = render(scene, camera).rgb, look(camera).rgb
        inside = truth & own
        if bool(inside.any()):
            wanted = bluish(old[None], 0.0)[0]
            moved.append(
                float((new - wanted).abs()[:, inside].mean())
                / float((old - wanted).abs()[:, inside].mean())
            )
        assert state.room is not None
        far = ~state.room.seen_by(camera)[0]
        kept.append(torch.equal(old[:, far], new[:, far]))
    assert sum(overlap) / len(overlap) > 0.4
    assert max(moved) < 1 and sum(moved) / len(moved) < 0.7
    # Rays that do not meet the region show what they did, bit for bit; so does the field below.
    assert all(kept)
    assert all(torch.equal(scene.state_dict()[key], value) for key, value in before.items())
    for i, edit in enumerate(state.views.edits):
        assert edit is not None
        allowed = region_mask(scene, state.region, views.cameras[i])[0]
        assert not bool(((edit != views.originals[i]).any(0) & ~allowed).any())
