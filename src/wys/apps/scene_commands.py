"""`wys scene fit`, `render`, `info`, `undo` and `export`: a scene's folder and what it shows."""

from __future__ import annotations

import json as json_format
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from wys.apps.options import Flag, optional
from wys.apps.scene_options import FitOptions, ReadOptions, field_device
from wys.errors import WysError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

    from wys.nerf.fitting import FitSettings
    from wys.nerf.rendering import Rendering
    from wys.nerf.scene import Scene
    from wys.scene_folder import Layer, SceneFolder
    from wys.views import ViewSet

ReadGroup = Annotated[tyro.conf.OmitArgPrefixes[ReadOptions], tyro.conf.arg(name="read")]
FitGroup = Annotated[tyro.conf.OmitArgPrefixes[FitOptions], tyro.conf.arg(name="fit")]
ScenePath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
What = Literal["colour", "depth", "opacity", "relevance"]
WhatWords = tyro.conf.arg(metavar="{colour,depth,opacity,relevance}...")
LayerName = Annotated[str | None, optional("NAME")]
Device = Annotated[str, tyro.conf.arg(metavar="NAME")]
Views = Annotated[str, tyro.conf.arg(metavar="{held-out,train,orbit}|FILE")]


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
    from wys.scene_folder import RECORD, SceneFolder, locked

    if not (out / RECORD).is_file():
        folder = _begin(data, out, read, how, device)
    else:
        folder = SceneFolder.open(out)
        if not resume:
            rest = "choose another --out" if folder.fitted else "add --resume to go on with it"
            state = "a fitted scene" if folder.fitted else "an interrupted fit"
            raise WysError(f"{out} holds {state}; {rest}.")
        if folder.record["source"] != _source(data):
            raise WysError(f"{out} was fitted to {folder.record['source']}, not to {data}.")
    with locked(out):
        if not folder.fitted:
            folder = _fit(folder, device)
    _tell_fit(folder)


def _source(data: str) -> str:
    """How a record names the data."""
    from wys.apps.scene_data import TABLETOP

    return data if data.startswith(TABLETOP) else str(Path(data).resolve())


def _begin(
    data: str, out: Path, read: ReadOptions, how: FitOptions, device: torch.device
) -> SceneFolder:
    """Reads the photographs into a new folder."""
    from wys.apps.progress import err
    from wys.apps.results import versions
    from wys.apps.scene_data import read_data
    from wys.nerf.field import FieldSettings
    from wys.scene_folder import SceneFolder

    with err.status("reading the photographs"):
        capture, instructions = read_data(data, read)
    settings, field = how.settings(), FieldSettings()
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
    from wys.evaluation.speed_bench import PeakMemory
    from wys.nerf.fitting import Fitter
    from wys.nerf.fitting import fit as fit_steps
    from wys.scene_folder import FIT_SHEET

    field, settings, seed = folder.fit_settings()
    capture = folder.capture()
    scene = _new_scene(field, seed, capture.unbounded, capture.background, device)
    fitter, before = Fitter(scene, settings, seed), 0.0
    state = folder.fit_state()
    if state is not None:
        before = float(state.pop("seconds"))
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


def render(
    scene: ScenePath,
    out: Path = Path("out"),
    views: Views = "held-out",
    what: Annotated[tuple[What, ...], WhatWords] = ("colour",),
    layer: LayerName = None,
    scale: float = 1.0,
    frames: int = 120,
    seconds: float = 5.0,
    device: Device = "auto",
) -> None:
    """Render a scene: pictures of views, or films of an orbit or a recorded path.

    Args:
        scene: Folder of the scene.
        out: Folder for the results; made where it is missing.
        views: held-out, train, orbit, or nerfstudio's camera_path.json.
        what: What the pictures show; a picture or film for each.
        layer: Show the scene after this edit; 'original': before any; else after the last.
        scale: Multiply the size of the pictures.
        frames: Pictures of an orbit.
        seconds: How long an orbit's film lasts.
        device: auto (CUDA where there is one), cpu, cuda or cuda:N.
    """
    from wys.apps.progress import progress
    from wys.apps.results import in_words, result_folder
    from wys.apps.scene_data import chosen_views
    from wys.apps.scene_results import write_film
    from wys.image import write_image
    from wys.scene_folder import SceneFolder

    folder = SceneFolder.open(scene)
    shown_layer = folder.top if layer is None else folder.find_layer(layer)
    look = folder.look(shown_layer).to(field_device(device))
    if "relevance" in what and not look.has_relevance:
        raise WysError(
            f"{scene} has no relevance field there; 'wys scene edit' makes one with each edit."
        )
    shown = chosen_views(folder.capture(), views, scale, frames, seconds)
    with result_folder(out) as results:
        renderings = []
        with progress("rendering") as advance:
            for i in range(len(shown.names)):
                renderings.append(look(shown.cameras[i]))
                advance(i + 1, len(shown.names))
        for each in dict.fromkeys(what):
            pictures = _pictures(renderings, each)
            if shown.frames_per_second is not None:
                write_film(results / f"{each}.mp4", pictures, shown.frames_per_second)
                continue
            for name, picture in zip(shown.names, pictures, strict=True):
                write_image(results / each / f"{name}.png", picture)
    print(f"{len(shown.names)} views rendered; results in {in_words(out)}")


def _pictures(renderings: list[Rendering], what: What) -> list[Float[Tensor, "c h w"]]:
    """One picture for each rendering."""
    from wys.apps.scene_results import depth_image, depth_range
    from wys.image import heat_map

    if what == "colour":
        return [each.rgb.clamp(0, 1) for each in renderings]
    if what == "opacity":
        return [each.opacity.clamp(0, 1) for each in renderings]
    if what == "relevance":
        return [heat_map(each.relevance) for each in renderings if each.relevance is not None]
    near, far = depth_range([r.depth for r in renderings], [r.opacity for r in renderings])
    return [depth_image(each.depth, each.opacity, near, far) for each in renderings]


def info(scene: ScenePath, json: Flag = False) -> None:
    """Say what a scene's folder holds: views, fit, figures, edits.

    Args:
        scene: Folder of the scene.
        json: Print it as JSON.
    """
    from wys.apps.scene_data import as_text
    from wys.scene_folder import SceneFolder

    folder = SceneFolder.open(scene)
    facts = _facts(folder)
    if json:
        json_format.dump(facts, sys.stdout, indent=2, ensure_ascii=False)
        print()
        return
    result = facts["fit"]
    height, width = facts["size"]
    lines = {
        "scene": folder.path,
        "photographs": facts["source"],
        "views": f"{facts['train_views']} to fit, {facts['held_out_views']} held out, "
        f"{width} x {height} pixels",
        "fit": "interrupted; 'wys scene fit ... --resume' goes on"
        if result is None
        else f"{result['iterations']} steps in {result['seconds']:g} s, seed {facts['seed']}",
    }
    if result is not None and "psnr" in result:
        lines["held out"] = f"PSNR {result['psnr']:.2f} dB, SSIM {result['ssim']:.3f}"
    for i, layer in enumerate(facts["layers"]):
        words = f'{layer["name"]}: "{layer["instruction"]}" ({layer["method"]})'
        lines["edits" if i == 0 else " " * (i + 1)] = words
    if facts["unfinished"] is not None:
        lines["unfinished"] = f'"{facts["unfinished"]["instruction"]}"; --resume goes on with it'
    print(as_text(lines))
    if facts["instructions"]:
        print("\nEdits with a known truth:")
        print(as_text({f"  {kind}": f'"{t}"' for kind, t in facts["instructions"].items()}))


def _facts(folder: SceneFolder) -> dict[str, Any]:
    """What `info` tells."""
    record = folder.record
    return {
        "path": str(folder.path.resolve()),
        "source": record["source"],
        "size": record["size"],
        "train_views": len(record["train"]),
        "held_out_views": len(record["held_out"]),
        "unbounded": record["unbounded"],
        "background": record["background"],
        "seed": record["fit"]["seed"],
        "fit": record["fit"]["result"],
        "layers": [_layer_facts(layer) for layer in folder.layers],
        "unfinished": None if folder.unfinished is None else _layer_facts(folder.unfinished),
        "instructions": record.get("instructions"),
    }


def _layer_facts(layer: Layer) -> dict[str, Any]:
    names = ("instruction", "method", "seed", "result")
    return {"name": layer.name, **{name: layer.record[name] for name in names}}


def undo(scene: ScenePath) -> None:
    """Take the last edit of a scene away; what it showed before comes back exactly.

    An edit that was begun and not finished is taken away first.

    Args:
        scene: Folder of the scene.
    """
    from wys.scene_folder import SceneFolder, locked

    SceneFolder.open(scene)
    with locked(scene):
        folder = SceneFolder.open(scene)
        begun = folder.unfinished
        if begun is not None:
            folder.drop_unfinished()
            print(f'The unfinished edit "{begun.record["instruction"]}" is gone.')
            return
        folder, name = folder.without_top()
    left = len(folder.record["layers"])
    rest = f"{left} edit{'s' if left > 1 else ''} left" if left else "the scene is as it was fitted"
    print(f"The edit {name} is undone; {rest}.")


def export(
    scene: ScenePath,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    views: Views = "train",
    layer: LayerName = None,
    scale: float = 1.0,
    frames: int = 120,
    device: Device = "auto",
) -> None:
    """Write views with a transforms.json that nerfstudio and splatting trainers read.

    Training views: the (edited) photographs; others: what the scene shows.

    Args:
        scene: Folder of the scene.
        out: Folder for transforms.json and images/; made where it is missing.
        views: train, held-out, orbit, or nerfstudio's camera_path.json.
        layer: Take the scene after this edit; 'original': before any; else after the last.
        scale: Multiply the size of rendered pictures.
        frames: Pictures of an orbit.
        device: auto (CUDA where there is one), cpu, cuda or cuda:N.
    """
    import torch

    from wys.apps.progress import progress
    from wys.apps.results import in_words, result_folder
    from wys.apps.scene_data import chosen_views
    from wys.datasets.export import write_views
    from wys.image import to_uint8
    from wys.scene_folder import SceneFolder

    folder = SceneFolder.open(scene)
    shown_layer = folder.top if layer is None else folder.find_layer(layer)
    capture = folder.capture()
    shown = chosen_views(capture, views, scale, frames)
    with result_folder(out) as results:
        if views == "train" and scale == 1:
            images = folder.train_views(shown_layer).images
        else:
            look = folder.look(shown_layer).to(field_device(device))
            renders = []
            with progress("rendering") as advance:
                for i in range(len(shown.names)):
                    renders.append(to_uint8(look(shown.cameras[i]).rgb))
                    advance(i + 1, len(shown.names))
            images = torch.stack(renders)
        write_views(results, shown.names, images, shown.cameras, capture.scene_from_world)
    print(f"{len(shown.names)} views with their cameras in {in_words(out)}")
