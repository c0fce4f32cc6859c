"""A tiny scene with two edits that are made by hand, and a studio with a tiny editor."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wys.apps.options import EditorOptions
from wys.apps.scene_options import SceneGuideOptions, SceneMapOptions
from wys.apps.view.stack import Place, ShownLayer, Stack
from wys.apps.view.studio import Studio, StudioSettings
from wys.apps.view.viewpoint import Viewpoint
from wys.camera import Camera
from wys.nerf.field import FieldSettings
from wys.nerf.region import Region
from wys.nerf.relevance_field import RelevanceFieldSettings
from wys.nerf.scene import Scene


def _scene(small_field: FieldSettings, seed: int) -> Scene:
    """A field of noise that is dense enough to be seen, with a relevance field."""
    made = Scene.create(replace(small_field, initial=1.0), seed, unbounded=True, background="scene")
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        made.radiance.grid.table.uniform_(-1, 1, generator=draw)
    made = made.with_relevance(0, RelevanceFieldSettings(grids=(4,), initial=0.0))
    assert made.relevance is not None
    with torch.no_grad():
        for parameter in made.relevance.parameters():
            parameter.uniform_(-3, 3, generator=draw)
    return made


def _half(axis: int) -> Region:
    """Half of the cube."""
    inside = torch.zeros(8, 8, 8, dtype=torch.bool)
    inside.movedim(axis, 0)[4:] = True
    return Region(inside, 0.6)


@pytest.fixture(scope="session")
def stack(small_field: FieldSettings) -> Stack:
    """Two edits whose rooms overlap."""
    layers = []
    for number, axis in ((1, 0), (2, 1)):
        place = Place(_scene(small_field, number), _half(axis), 0.5)
        layers.append(ShownLayer(f"0{number}", place, _half(axis)))
    return Stack(_scene(small_field, 0), tuple(layers))


@pytest.fixture(scope="session")
def camera() -> Camera:
    """From which both edits are seen, before what is left as it was."""
    return Viewpoint((0.0, 0.0, -2.0), (1.0, 0.0, 0.0, 0.0), 0.9).camera(20, 30)


@pytest.fixture
def studio(small: None, scene: Path) -> Studio:
    """Of a tiny scene; its edits take a few steps."""
    del small
    guide = SceneGuideOptions(passes=1, every=2, steps=2, force=True)
    return Studio(
        scene, StudioSettings(EditorOptions(device="cpu"), SceneMapOptions(), guide, film=0)
    )
