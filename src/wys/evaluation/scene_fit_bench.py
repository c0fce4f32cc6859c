"""How good a fitted scene is after how many seconds: PSNR and SSIM on held-out photographs.

The clock runs while the scene is fitted and stands still while it is judged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from wys.errors import WysError
from wys.evaluation.metrics import SquaredError, mean, squared_error, ssim
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings, Fitter
from wys.nerf.rendering import render
from wys.nerf.scene import Scene
from wys.views import Capture, ViewSet


@dataclass(frozen=True)
class SceneFitBenchSettings:
    """What is fitted, and how."""

    radiance: FieldSettings = field(default_factory=FieldSettings)
    """The radiance field."""
    fit: FitSettings = field(default_factory=FitSettings)
    """The fit; how many iterations there are follows from the seconds."""


@dataclass(frozen=True)
class SceneQuality:
    """Rendered views against photographs."""

    psnr: float
    """In dB; the squared error is pooled over all views."""
    ssim: float
    """Mean over the views."""


def scene_quality(scene: Scene, views: ViewSet) -> SceneQuality:
    """Renders every view and compares it with its original photograph.

    Raises:
        WysError: there is no view.
    """
    if not len(views):
        raise WysError("no view is held out; keep some back with --holdout 8.")
    errors, similarity = [], []
    for i in range(len(views)):
        shown = render(scene, views.cameras[i]).rgb[None].clamp(0, 1)
        truth = views.original(i)[None]
        everywhere = torch.ones(1, *views.size, dtype=torch.bool)
        errors.append(squared_error(shown, truth, everywhere))
        similarity.append(ssim(shown, truth))
    pooled = SquaredError(
        torch.cat([error.total for error in errors]), torch.cat([error.count for error in errors])
    ).psnr()
    similar = mean(torch.cat(similarity))
    assert pooled is not None and similar is not None
    return SceneQuality(pooled, similar)


def scene_fit_bench(
    capture: Capture,
    settings: SceneFitBenchSettings | None = None,
    seed: int = 0,
    at: Sequence[float] = (10, 20, 40),
) -> Iterator[dict[str, Any]]:
    """Rows {"seconds", "iterations", "psnr", "ssim"} along one fit, on held-out views.

    Args:
        at: seconds of fitting after which a row is due, rising. The learning rate falls over the
            whole of it: what a fit of `at[-1]` seconds is worth is the last row.

    Raises:
        WysError: no view is held out, or no second is asked for.
    """
    settings = settings or SceneFitBenchSettings()
    if not at or sorted(set(at)) != list(at) or not (at[0] > 0 and at[-1] < math.inf):
        raise WysError("the seconds to judge a fit at are numbers above 0 that rise.")
    if not len(capture.held_out):
        raise WysError("no view is held out; keep some back with --holdout 8.")
    scene = Scene.create(
        settings.radiance, seed, unbounded=capture.unbounded, background=capture.background
    )
    fitter = Fitter(scene, settings.fit, seed)
    images, cameras = capture.train.images, capture.train.cameras
    seconds = 0.0
    for due in at:
        while seconds < due:
            started = time.perf_counter()
            # The schedule is in iterations: how many there will be shows on the way.
            progress = seconds / at[-1]
            planned = round(fitter.iteration / progress) if progress > 0.02 else None
            if planned is not None:
                fitter.settings = replace(settings.fit, iterations=max(planned, 1))
            fitter.step(images, cameras)
            seconds += time.perf_counter() - started
        quality = scene_quality(scene, capture.held_out)
        yield {
            "seconds": round(seconds, 2),
            "iterations": fitter.iteration,
            "psnr": quality.psnr,
            "ssim": quality.ssim,
        }
