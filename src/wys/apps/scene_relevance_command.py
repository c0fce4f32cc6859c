"""`wys scene relevance`: where an instruction matters in a scene, before anything is edited."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from wys.apps.options import EditorOptions, check_instruction
from wys.apps.scene_options import Instruction, SceneMapOptions, ScenePath
from wys.errors import WysError
from wys.names import resolved

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor

    from wys.camera import Camera
    from wys.diffusion.editor import Editor
    from wys.nerf.layering import Look
    from wys.nerf.region import Region
    from wys.nerf.rendering import Rendering
    from wys.relevance import Verdict
    from wys.scene_settings import SceneEditSettings
    from wys.views import Capture, ViewSet

EditorGroup = tyro.conf.OmitArgPrefixes[EditorOptions]
MapGroup = Annotated[tyro.conf.OmitArgPrefixes[SceneMapOptions], tyro.conf.arg(name="map")]


def relevance(
    scene: ScenePath,
    instruction: Instruction,
    out: Path = Path("out"),
    points: int = 100_000,
    editor: EditorGroup = EditorOptions(),  # noqa: B008
    how: MapGroup = SceneMapOptions(),  # noqa: B008
) -> None:
    """Show where an instruction would change a scene, before anything is edited.

    Writes a sheet, all views' relevance and masks, and coloured points (.ply).

    Args:
        scene: Folder of the scene.
        instruction: What to do, such as "make the red cube blue".
        out: Folder for the results; made where it is missing.
        points: Most points of the cloud.
    """
    check_instruction(instruction)
    if points < 1:
        raise WysError(f"--points is at least 1, not {points}.")
    from wys.apps.progress import err
    from wys.apps.results import in_words, result_folder, run_record
    from wys.apps.scene_data import check_elsewhere
    from wys.apps.scene_results import VERDICTS
    from wys.devices import beside
    from wys.scene_edit import no_place
    from wys.scene_folder import SceneFolder
    from wys.scene_settings import PRESETS

    how.check(PRESETS["wys"])
    folder = SceneFolder.open(scene)
    check_elsewhere(out, scene)
    look = folder.look(folder.top)
    views = folder.views_to_edit(folder.top)
    capture = folder.capture()
    with result_folder(out) as results:
        with err.status("loading the editor"):
            loaded = editor.load()
        settings = how.settings(loaded.settings, PRESETS["wys"])
        look = look.to(beside(loaded.device))
        found = _find(loaded, look, views, instruction, settings, how.seed)
        record = run_record(instruction, editor, loaded, how.seed) | {"scene": str(resolved(scene))}
        shares = _write_preview(results, found, capture, points, record)
    print(f"{no_place(found.verdict, found.region) or VERDICTS[found.verdict]} {_in_words(shares)}")
    print(f"Results in {in_words(out)}")


@dataclass(frozen=True)
class Found:
    """Where an instruction matters in a scene."""

    look: Look
    """The scene with its relevance field."""
    region: Region | None
    """What space may change; None where the relevance field alone decides."""
    verdict: Verdict
    settings: SceneEditSettings

    def mask(self, shown: Rendering, camera: Camera) -> Bool[Tensor, "1 h w"]:
        """The pixels of a view that may change."""
        from wys.apps.scene_data import mask_of

        return mask_of(shown, camera, self.region, self.settings.threshold, self.settings.stretched)


def _find(
    editor: Editor,
    look: Look,
    views: ViewSet,
    instruction: str,
    settings: SceneEditSettings,
    seed: int,
) -> Found:
    """What the edit finds out before it begins."""
    from wys.apps.progress import progress_of_kinds
    from wys.scene_edit import locate, verdict_of
    from wys.scene_state import SceneEditState

    state = SceneEditState.begin(look.scene, views)
    kinds = {"relevance": "maps", "field": "relevance"}
    with progress_of_kinds("looking", tuple(kinds.values())) as advance:
        for step in locate(editor, state, instruction, settings, seed=seed):
            state = step.state
            advance(kinds[step.phase], step.index, step.count)
    verdict = verdict_of([found for found in state.maps if found is not None])
    return Found(look.with_scene(state.scene), state.region, verdict, settings)


def _write_preview(
    results: Path, found: Found, capture: Capture, most: int, record: dict[str, Any]
) -> dict[str, float]:
    """Every file of a preview; returns the shares that it tells of."""
    import torch

    from wys.apps.progress import progress
    from wys.apps.scene_data import surface_points, to_world
    from wys.apps.scene_results import spread_indices, write_points, write_sheet
    from wys.image import draw_outline, overlay_heat, write_image
    from wys.seeds import generator
    from wys.store import write_json

    rows, shares = [], {}
    renders: list[Rendering] = []
    for split, views in (("training", capture.train), ("held-out", capture.held_out)):
        shown, masks = [], []
        with progress(f"rendering {split} views") as advance:
            for i in range(len(views)):
                shown.append(found.look(views.cameras[i]))
                masks.append(found.mask(shown[i], views.cameras[i]))
                advance(i + 1, len(views))
        for i, (each, mask) in enumerate(zip(shown, masks, strict=True)):
            assert each.relevance is not None
            colour = each.rgb.clamp(0, 1)
            heat = overlay_heat(colour, each.relevance)
            write_image(results / "relevance" / f"{views.names[i]}.png", heat)
            write_image(results / "mask" / f"{views.names[i]}.png", mask.float())
            if i in spread_indices(len(views), 4):
                title = f"{split} {views.names[i]}"
                cells = [(title, colour), ("relevance", heat), ("mask", draw_outline(colour, mask))]
                rows.append(cells)
        if len(views):
            shares[f"{split} pixels"] = float(torch.stack(masks).double().mean())
        if split == "training":
            renders = shown
    places, rgb = surface_points(renders, capture.train.cameras)
    chosen = torch.randperm(len(places), generator=generator(0, len(places), "points"))[:most]
    places, rgb = places[chosen], rgb[chosen]
    field = found.look.scene.relevance
    assert field is not None
    with torch.no_grad():
        values = field(places.to(found.look.scene.device)).cpu()
    heat = overlay_heat(rgb.T[:, None], values[None, None])[:, 0].T if len(places) else rgb
    write_points(results / "points.ply", to_world(places, capture.scene_from_world), heat, values)
    if found.region is not None and len(places):
        shares["surface"] = float(found.region.contains(places).double().mean())
    write_sheet(results / "sheet.png", rows, title=record["instruction"])
    write_json(
        results / "run.json",
        record
        | {
            "verdict": found.verdict,
            "shares": {name: round(value, 5) for name, value in shares.items()},
            "settings": asdict(found.settings),
            "points": len(places),
        },
    )
    return shares


def _in_words(shares: dict[str, float]) -> str:
    parts = [f"{value:.1%} of the {name}" for name, value in shares.items()]
    return f"It may change {', '.join(parts)}."
