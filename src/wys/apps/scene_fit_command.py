"""`wys scene fit`: from photographs to a scene's folder with a fitted field."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wys.apps.options import Flag
from wys.apps.scene_options import FitOptions, ReadOptions, field_device
from wys.errors import WysError, WysWarning
from wys.names import resolved

if TYPE_CHECKING:
    import torch

    from wys.nerf.fitting import FitSettings
    from wys.nerf.scene import Scene
    from wys.scene_folder import SceneFolder
    from wys.views import ViewSet

ReadGroup = Annotated[tyro.conf.OmitArgPrefixes[ReadOptions], tyro.conf.arg(name="read")]
FitGroup = Annotated[tyro.conf.OmitArgPrefixes[FitOptions], tyro.conf.arg(name="fit")]


def fit(
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")],
    out: Annotated[Path, tyro.conf.arg(metavar="SCENE")],
    resume: Flag = False,
    read: ReadGroup = ReadOptions(),  # noqa: B008
    how: FitGroup = FitOptions(),  # noqa: B008
) -> None:
    """Fit a radiance field to posed photographs.

    Ends with PSNR and SSIM on held-out views; SCENE/fit.png shows them.

    Args:
        data: A capture (transforms.json, Blender, COLMAP, photos, video) or tabletop:INDEX.
        out: Folder of the scene; made where it is missing.
        resume: Go on with a fit that was stopped; its settings are those it began with.
    """
    read.check()
    how.check()
    device = field_device(how.device)
    from wys.scene_folder import RECORD, SceneFolder
    from wys.store import locked

    if not (out / RECORD).is_file():
        folder = _begin(data, out, read, how, device)
    else:
        folder = SceneFolder.open(out)
        if not resume:
            rest = "choose another --out" if folder.fitted else "add --resume to go on with it"
            state = "a fitted scene" if folder.fitted else "an interrupted fit"
            raise WysError(f"{out} holds {state}; {rest}.")
        _check_source(folder, data)
    with locked(out):
        if not folder.fitted:
            folder = _fit(folder, device)
    _tell_fit(folder)


def _source(data: str) -> str:
    """How a record names the data."""
    from wys.apps.scene_data import TABLETOP

    return data if data.startswith(TABLETOP) else str(resolved(Path(data)))


def _check_source(folder: SceneFolder, data: str) -> None:
    """Raises WysError where a scene is of other data; warns where its data may have been moved."""
    from wys.apps.scene_data import TABLETOP

    known = folder.record["source"]
    if known == _source(data):
        return
    if Path(known).exists() or known.startswith(TABLETOP) or data.startswith(TABLETOP):
        raise WysError(f"{folder.path} was fitted to {known}, not to {data}.")
    warnings.warn(
        f"{folder.path} was fitted to {known}, which is no longer there; its own copies of the "
        "photographs are used.",
        WysWarning,
        stacklevel=3,
    )


def _begin(
    data: str, out: Path, read: ReadOptions, how: FitOptions, device: torch.device
) -> SceneFolder:
    """Reads the photographs into a new folder."""
    from wys.apps.progress import err
    from wys.apps.results import versions
    from wys.apps.scene_data import read_data
    from wys.nerf.field import FieldSettings
    from wys.scene_folder import SceneFolder
    from wys.store import check_vacant

    # Finding poses can take long.
    check_vacant(out)
    settings, field = how.settings(), FieldSettings()
    with err.status("reading the photographs"):
        capture, instructions = read_data(data, read)
    if how.seconds is not None:
        with err.status("measuring the time of a step"):
            capture_views = capture.train
            scene = _new_scene(field, how.seed, capture.unbounded, capture.background, device)
            per_step = _seconds_per_step(scene, capture_views, settings, how.seed)
        settings = replace(settings, iterations=max(1, round(how.seconds / per_step)))
    record = {
        "field": asdict(field),
        "settings": asdict(settings),
        "seed": how.seed,
        "read": asdict(read),
        "versions": versions(),
    }
    capture = replace(capture, source=_source(data))
    return SceneFolder.create(out, capture, record, instructions)


def _new_scene(
    field: Any, seed: int, unbounded: bool, background: Any, device: torch.device
) -> Scene:
    from wys.nerf.scene import Scene

    return Scene.create(field, seed, unbounded=unbounded, background=background).to(device)


def _seconds_per_step(scene: Scene, views: ViewSet, settings: FitSettings, seed: int) -> float:
    """The time of an optimiser step on this machine, from a few of them on a scene of its own."""
    from wys.nerf.fitting import Fitter

    fitter = Fitter(scene, settings, seed)
    images, times = views.images, []
    for _ in range(8):
        started = time.perf_counter()
        fitter.step(images, views.cameras)
        times.append(time.perf_counter() - started)
    return sorted(times[2:])[len(times[2:]) // 2]


def _fit(folder: SceneFolder, device: torch.device) -> SceneFolder:
    """Begins or goes on, with the settings of the record."""
    import torch

    from wys.apps.progress import Saving, progress
    from wys.evaluation.peak_memory import PeakMemory
    from wys.nerf.fitting import Fitter
    from wys.nerf.fitting import fit as fit_steps
    from wys.scene_folder import FIT_SHEET

    field, settings, seed = folder.fit_settings()
    capture = folder.capture()
    scene = _new_scene(field, seed, capture.unbounded, capture.background, device)
    fitter, before = Fitter(scene, settings, seed), 0.0
    state = folder.fit_state()
    if state is not None:
        try:
            before = float(state.pop("seconds"))
        except (KeyError, ValueError, RuntimeError) as error:
            raise WysError(
                f"the saved state of {folder.path} is no fit's; start the fit again."
            ) from error
        fitter.restore(state)
    saving, seconds = Saving(share=0.03), before
    with PeakMemory(device) as memory, progress("fitting") as advance:
        for step in fit_steps(scene, capture.train, settings, seed, fitter):
            seconds = before + step.seconds
            advance(step.iteration, step.count)
            if saving.due():
                with saving:
                    now = {"seconds": torch.tensor(seconds, dtype=torch.float64)}
                    folder.save_fit_state(fitter.state() | now)
    result = {
        "iterations": fitter.iteration,
        "seconds": round(seconds, 1),
        "peak_mb": round(memory.megabytes),
        "device": str(device),
    }
    held_out = capture.held_out if len(capture.held_out) else capture.train
    scores = _score(scene, held_out, folder.path / FIT_SHEET, "fitting: looking at the views")
    if len(capture.held_out):
        result |= scores
    return folder.with_fit(scene, result)


def _score(scene: Scene, views: ViewSet, sheet: Path, what: str) -> dict[str, float]:
    """Renders views, writes a sheet of photographs and renders, and returns mean figures."""
    import torch

    from wys.apps.progress import progress
    from wys.apps.scene_results import depth_image, depth_range, spread_indices, write_sheet
    from wys.evaluation import metrics
    from wys.nerf.rendering import render

    shown = []
    with progress(what) as advance:
        for i in range(len(views)):
            shown.append(render(scene, views.cameras[i]))
            advance(i + 1, len(views))
    photographs = torch.stack([views.original(i) for i in range(len(views))])
    renders = torch.stack([each.rgb.clamp(0, 1) for each in shown])
    everywhere = torch.ones_like(photographs[:, 0], dtype=torch.bool)
    errors = metrics.squared_error(renders, photographs, everywhere)
    near, far = depth_range([s.depth for s in shown], [s.opacity for s in shown])
    rows = []
    for i in spread_indices(len(views)):
        psnr = errors.psnr(torch.arange(len(views)) == i)
        depth = depth_image(shown[i].depth, shown[i].opacity, near, far)
        cells = [(views.names[i], photographs[i]), (f"render, {psnr:.1f} dB", renders[i])]
        rows.append([*cells, ("depth", depth)])
    write_sheet(sheet, rows)
    psnr, ssim = errors.psnr(), metrics.mean(metrics.ssim(renders, photographs))
    assert psnr is not None and ssim is not None
    return {"psnr": round(psnr, 3), "ssim": round(ssim, 4)}


def _tell_fit(folder: SceneFolder) -> None:
    result = folder.record["fit"]["result"]
    print(f"{result['iterations']} steps in {result['seconds']:g} s.")
    if "psnr" in result:
        count = len(folder.record["held_out"])
        print(
            f"On {count} held-out views: PSNR {result['psnr']:.2f} dB, SSIM {result['ssim']:.3f}."
        )
    print(f"Scene in {folder.path}, photographs beside renders in {folder.path / 'fit.png'}")
