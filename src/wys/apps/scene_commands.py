"""`wys scene render`, `info`, `undo` and `export`: a scene's folder and what it shows."""

from __future__ import annotations

import json as json_format
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from wys.apps.options import Flag, optional
from wys.apps.scene_options import ScenePath, field_device
from wys.errors import WysError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from wys.nerf.rendering import Rendering
    from wys.scene_folder import SceneFolder
    from wys.scene_layer import Layer

What = Literal["colour", "depth", "opacity", "relevance"]
WhatWords = tyro.conf.arg(metavar="{colour,depth,opacity,relevance}...")
LayerName = Annotated[str | None, optional("NAME")]
Device = Annotated[str, tyro.conf.arg(metavar="NAME")]
Views = Annotated[str, tyro.conf.arg(metavar="{held-out,train,orbit}|FILE")]


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
    from wys.apps.scene_data import check_elsewhere, chosen_views
    from wys.apps.scene_results import check_rate, depth_range, film, spread_indices
    from wys.image import write_image
    from wys.scene_folder import SceneFolder

    if not what:
        raise WysError("--what names nothing to render; leave it out for the colours.")
    folder = SceneFolder.open(scene)
    check_elsewhere(out, scene)
    shown_layer = folder.top if layer is None else folder.find_layer(layer)
    look = folder.look(shown_layer).to(field_device(device))
    if "relevance" in what and not look.has_relevance:
        raise WysError(
            f"{scene} has no relevance field there; 'wys scene edit' makes one with each edit."
        )
    shown = chosen_views(folder.capture(), views, scale, frames, seconds)
    if shown.frames_per_second is not None:
        check_rate(shown.frames_per_second)
    rate, kinds = shown.frames_per_second, tuple(dict.fromkeys(what))
    with result_folder(out) as results, ExitStack() as films, progress("rendering") as advance:
        if rate is not None:
            adds = {
                kind: films.enter_context(film(results / f"{kind}.mp4", rate)) for kind in kinds
            }
        # Of all pictures none is kept, so depth is scaled by what a few views see.
        few = spread_indices(len(shown.names), 8) if "depth" in kinds else []
        seen = [look(shown.cameras[i]) for i in few]
        near, far = depth_range([each.depth for each in seen], [each.opacity for each in seen])
        for i, name in enumerate(shown.names):
            rendering = look(shown.cameras[i])
            for kind in kinds:
                picture = _picture(rendering, kind, near, far)
                if rate is None:
                    write_image(results / kind / f"{name}.png", picture)
                else:
                    adds[kind](picture)
            advance(i + 1, len(shown.names))
    print(f"{len(shown.names)} views rendered; results in {in_words(out)}")


def _picture(rendering: Rendering, what: What, near: float, far: float) -> Float[Tensor, "c h w"]:
    """What a rendering is asked to show; depths from near to far."""
    from wys.apps.scene_results import depth_image
    from wys.image import heat_map

    match what:
        case "colour":
            return rendering.rgb.clamp(0, 1)
        case "opacity":
            return rendering.opacity.clamp(0, 1)
        case "relevance":
            assert rendering.relevance is not None
            return heat_map(rendering.relevance)
        case "depth":
            return depth_image(rendering.depth, rendering.opacity, near, far)


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
    begun = facts["unfinished"]
    if begun is not None and begun["damaged"]:
        lines["unfinished"] = f"{begun['name']} (damaged); 'wys scene undo {scene}' takes it away"
    elif begun is not None:
        lines["unfinished"] = f'"{begun["instruction"]}"; --resume goes on with it'
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
        "unfinished": _unfinished_facts(folder),
        "instructions": record.get("instructions"),
    }


def _layer_facts(layer: Layer) -> dict[str, Any]:
    names = ("instruction", "method", "seed", "result")
    return {"name": layer.name, **{name: layer.record[name] for name in names}}


def _unfinished_facts(folder: SceneFolder) -> dict[str, Any] | None:
    """What is told of an edit that is not done; of a damaged one its name alone."""
    try:
        begun = folder.unfinished
    except WysError:
        return {"name": folder.begun, "damaged": True}
    return None if begun is None else {**_layer_facts(begun), "damaged": False}


def undo(scene: ScenePath) -> None:
    """Take the last edit of a scene away; what it showed before comes back exactly.

    An edit that was begun and not finished is taken away first.

    Args:
        scene: Folder of the scene.
    """
    from wys.scene_folder import SceneFolder
    from wys.store import locked

    SceneFolder.open(scene)
    with locked(scene):
        _, sentence = SceneFolder.open(scene).undone()
    print(sentence)


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
        scale: Multiply the size of the pictures, photographs or renders.
        frames: Pictures of an orbit.
        device: auto (CUDA where there is one), cpu, cuda or cuda:N.
    """
    import torch

    from wys.apps.progress import progress
    from wys.apps.results import in_words, result_folder
    from wys.apps.scene_data import check_elsewhere, chosen_views
    from wys.datasets.export import write_views
    from wys.image import from_uint8, resize, to_uint8
    from wys.scene_folder import SceneFolder

    folder = SceneFolder.open(scene)
    check_elsewhere(out, scene)
    shown_layer = folder.top if layer is None else folder.find_layer(layer)
    capture = folder.capture()
    shown = chosen_views(capture, views, scale, frames)
    with result_folder(out) as results:
        if views == "train":
            size = (shown.cameras.height, shown.cameras.width)
            photographs = folder.train_views(shown_layer).images
            # One by one: as floats they take four times the memory.
            images = torch.stack([to_uint8(resize(from_uint8(p), size)) for p in photographs])
        else:
            look = folder.look(shown_layer).to(field_device(device))
            renders = []
            with progress("rendering") as advance:
                for i in range(len(shown.names)):
                    renders.append(to_uint8(look(shown.cameras[i]).rgb))
                    advance(i + 1, len(shown.names))
            images = torch.stack(renders)
        write_views(
            results,
            shown.names,
            images,
            shown.cameras,
            capture.scene_from_world,
            capture.applied,
        )
    print(f"{len(shown.names)} views with their cameras in {in_words(out)}")
