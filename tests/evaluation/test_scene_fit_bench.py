"""The bench of a fit: its rows, what it judges, and what it refuses; SSIM against its formula."""

import math
from dataclasses import replace

import pytest
import torch

from wys.camera import Camera, look_at
from wys.errors import WysError
from wys.evaluation.metrics import ssim
from wys.evaluation.scene_fit_bench import (
    SceneFitBenchSettings,
    scene_fit_bench,
    scene_quality,
)
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings
from wys.nerf.scene import Scene
from wys.views import Capture, ViewSet

SETTINGS = SceneFitBenchSettings(
    FieldSettings(
        levels=2,
        log2_size=8,
        coarsest=4,
        finest=8,
        width=8,
        proposal_grids=(8,),
        proposal_samples=8,
        samples=4,
    ),
    FitSettings(rays=32),
)


def _capture(size: int = 12) -> Capture:
    """Four cameras in a room of one colour."""
    angle = torch.arange(4) * (math.pi / 2)
    eye = torch.stack([2 * angle.cos(), 2 * angle.sin(), torch.ones(4)], dim=-1)
    pose = look_at(eye, torch.zeros(4, 3), torch.tensor([0.0, 0.0, 1.0]))
    intrinsics = torch.tensor([1.0 * size, 1.0 * size, size / 2, size / 2]).expand(4, 4)
    images = torch.tensor([200, 100, 50], dtype=torch.uint8)[None, :, None, None]
    views = ViewSet(
        ("a", "b", "c", "d"),
        images.expand(4, 3, size, size).contiguous(),
        Camera(intrinsics, pose, size, size),
    )
    return Capture(views.select([0, 1, 2]), views.select([3]), torch.eye(4), True, "scene", "test")


def test_rows_follow_the_clock_and_the_fit_gets_better() -> None:
    rows = list(scene_fit_bench(_capture(), SETTINGS, seed=0, at=(0.02, 1.5)))
    assert [set(row) for row in rows] == [{"seconds", "iterations", "psnr", "ssim"}] * 2
    assert rows[0]["seconds"] >= 0.02 and rows[1]["seconds"] >= 1.5
    assert rows[1]["iterations"] > rows[0]["iterations"] > 0
    assert rows[1]["psnr"] > rows[0]["psnr"]


def test_quality_is_that_of_the_rendered_views() -> None:
    capture = _capture()
    scene = Scene.create(SETTINGS.radiance, 0, unbounded=True, background="scene")
    with torch.no_grad():
        # A network without weights shows one colour: the logit of 0.25 everywhere.
        scene.radiance.colour_net[-1].weight.zero_()
        scene.radiance.colour_net[-1].bias.fill_(-math.log(3))
    quality = scene_quality(scene, capture.held_out)
    differences = [c / 255 - 0.25 for c in (200, 100, 50)]
    expected = -10 * math.log10(sum(d * d for d in differences) / 3)
    # bfloat16 rounds the logit.
    assert quality.psnr == pytest.approx(expected, abs=0.05)
    assert -1 <= quality.ssim <= 1


def test_without_held_out_views_or_seconds_there_is_no_bench() -> None:
    capture = _capture()
    alone = replace(capture, held_out=capture.held_out.select([]))
    with pytest.raises(WysError, match="no view is held out"):
        next(scene_fit_bench(alone, SETTINGS))
    for at in ((), (2, 1), (0, 1)):
        with pytest.raises(WysError, match="seconds"):
            next(scene_fit_bench(capture, SETTINGS, at=at))


def _slow_ssim(x: torch.Tensor, y: torch.Tensor) -> float:
    """Wang et al. 2004, equation 13, averaged over windows around all pixels."""
    x, y = (torch.nn.functional.pad(image, (5, 5, 5, 5), mode="reflect") for image in (x, y))
    offsets = torch.arange(11, dtype=torch.double) - 5
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2
    values = []
    for channel in range(3):
        for row in range(x.shape[1] - 10):
            for column in range(x.shape[2] - 10):
                a = x[channel, row : row + 11, column : column + 11]
                b = y[channel, row : row + 11, column : column + 11]
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb = (window * a * a).sum() - ma**2, (window * b * b).sum() - mb**2
                cov = (window * a * b).sum() - ma * mb
                top = (2 * ma * mb + 0.01**2) * (2 * cov + 0.03**2)
                values.append(top / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2)))
    return float(torch.stack(values).mean())


def test_ssim_is_that_of_the_formula_and_one_for_equal_images() -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 15, 14, generator=draw)
    other = (images + 0.2 * torch.randn(2, 3, 15, 14, generator=draw)).clamp(0, 1)
    found = ssim(images, other)
    assert found.shape == (2,)
    for i in range(2):
        assert float(found[i]) == pytest.approx(
            _slow_ssim(images[i].double(), other[i].double()), abs=1e-4
        )
    assert torch.allclose(ssim(images, images), torch.ones(2, dtype=torch.double))
