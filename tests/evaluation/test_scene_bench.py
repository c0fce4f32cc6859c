"""The scene bench: its measures against slow references, and a run at toy size."""

import json
from dataclasses import replace

import pytest
import torch

from wys.diffusion.editor import Editor
from wys.errors import WysError
from wys.evaluation import metrics
from wys.evaluation.scene_bench import METHODS, SceneCase, SceneCases, scene_bench
from wys.evaluation.scene_scores import SceneScore, rows_of, warp_error
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings, RelevanceFitSettings
from wys.nerf.rendering import render
from wys.nerf.scene import Scene
from wys.scene_edit import locate
from wys.scene_settings import OWN
from wys.scene_state import SceneEditState
from wys.tabletop import raytracer
from wys.tabletop.posed import posed_edit, posed_views

TOY = SceneCases(
    scenes=1,
    kinds=("recolour", "remove"),
    views=4,
    held_out=2,
    size=32,
    iterations=6,
    passes=0.5,
    every=2,
)


@pytest.fixture(scope="module")
def rows(editor: Editor) -> list[dict[str, object]]:
    learning = RelevanceFitSettings(iterations=5, rays=64)
    steps = list(scene_bench(editor, TOY, METHODS, FitSettings(rays=64), learning))
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == steps[-1].count
    shown = [step.pictures for step in steps if step.pictures]
    assert [set(pictures) for pictures in shown] == [{"before", "truth", *METHODS}] * 2
    assert steps[-1].rows is not None
    return steps[-1].rows


def test_rows_have_the_names_that_scripts_read(rows: list[dict[str, object]]) -> None:
    names = "method kind scene iou psnr_inside psnr_outside ssim consistency seconds peak_mb stray"
    assert all(list(row)[:11] == names.split() for row in rows)
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        assert [(row["kind"], row["scene"]) for row in own] == [
            ("all", "all"),
            ("recolour", "all"),
            ("recolour", 0),
            ("remove", "all"),
            ("remove", 0),
        ]
    json.dumps(rows, allow_nan=False)


def test_methods_without_a_region_have_no_iou(rows: list[dict[str, object]]) -> None:
    known = {row["method"] for row in rows if row["iou"] is not None}
    assert known == {"published", "wys", "field", "single-view"}
    masks = [row for row in rows if row["method"] in ("field", "single-view")]
    assert all(row["psnr_inside"] is None and row["ssim"] is None for row in masks)
    # Only these two are relevance; a region is voted for, and holds a pixel or not.
    judged = {row["method"] for row in rows if row["ap"] is not None or row["ece"] is not None}
    assert judged == {"field", "single-view"}
    drawn = [row for row in masks if row["kind"] == "all"]
    assert len(drawn) == 2 and all(row["precision_recall"] for row in drawn)
    assert all(row["reliability"] for row in drawn)


def test_the_field_is_measured_on_the_scene_before_the_edit(editor: Editor) -> None:
    """Whatever the edit makes of the scene: a removed object would take its relevance along."""
    case = posed_edit(TOY.seed, 0, "remove", TOY.split)
    posed = posed_views(case, views=TOY.views, held_out=TOY.held_out, size=TOY.size)
    capture = posed.capture()
    scene, other = (
        Scene.create(
            FieldSettings(), seed, unbounded=capture.unbounded, background=capture.background
        )
        for seed in (0, 1)
    )
    fitting, learning = FitSettings(rays=64), RelevanceFitSettings(iterations=5, rays=64)
    whole = SceneCase(editor, 0, "remove", posed, capture, scene, TOY, fitting, learning)
    begun = SceneEditState.begin(scene, capture.train)
    *_, last = locate(editor, begun, case.instruction, OWN, fitting=learning)
    relevance, cameras = last.state.scene.relevance, capture.held_out.cameras
    # Some threshold between its values, so that the masks are neither empty nor full.
    shown = [render(last.state.scene, cameras[i]).relevance for i in range(TOY.held_out)]
    values = torch.cat([each for each in shown if each is not None])
    how = replace(OWN, threshold=float(values.median()))
    edited = Scene(other.radiance, relevance, background=other.background)
    field, alone = whole.mask_scores(replace(last.state, scene=edited), how)
    assert (field.method, alone.method) == ("field", "single-view")
    expected = metrics.iou(values >= how.threshold, whole.truth.mask)
    assert field.views["iou"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert 0 < expected.mean() < 1
    precision = metrics.average_precision(values, whole.truth.mask)
    assert field.views["ap"] == pytest.approx(precision.tolist(), abs=1e-6, nan_ok=True)
    assert field.relevance.pixels.sum() == values.numel()
    assert field.relevance.relevance.sum() == pytest.approx(float(values.double().sum()), rel=1e-6)
    assert SceneScore.from_record(json.loads(json.dumps(field.record))).record == field.record


def test_pooling_is_over_pixels(rows: list[dict[str, object]]) -> None:
    noop = {(row["kind"], row["scene"]): row for row in rows if row["method"] == "noop"}
    both = [noop["recolour", 0]["psnr_outside"], noop["remove", 0]["psnr_outside"]]
    assert min(both) <= noop["all", "all"]["psnr_outside"] <= max(both)


def test_exact_renders_agree_with_each_other() -> None:
    """Surfaces of one scene look alike from neighbours, and a change of one view shows."""
    case = posed_edit(0, 0, "recolour", "validation")
    posed = posed_views(case, views=8, held_out=2, size=48)
    cameras = posed.cameras[:4]
    shown = raytracer.render(case.before[[0] * 4], cameras, samples=1)
    alike = warp_error(shown.rgb, shown.depth, cameras).psnr()
    torn = shown.rgb.clone()
    torn[1] = 1 - torn[1]
    apart = warp_error(torn, shown.depth, cameras).psnr()
    assert alike is not None and apart is not None
    assert alike > 20 and apart < alike - 8


def test_views_of_one_colour_agree_perfectly() -> None:
    """Up to their edges, where there is nothing beyond."""
    case = posed_edit(0, 0, "recolour", "validation")
    cameras = posed_views(case, views=6, held_out=2, size=32).cameras[:4]
    depth = raytracer.render(case.before[[0] * 4], cameras, samples=1).depth
    assert warp_error(torch.full((4, 3, 32, 32), 0.7), depth, cameras).psnr() == 99


def test_the_warp_is_a_lookup_through_the_depth() -> None:
    case = posed_edit(0, 1, "remove", "validation")
    posed = posed_views(case, views=6, held_out=2, size=16)
    cameras = posed.cameras[:2]
    shown = raytracer.render(case.before[[0, 0]], cameras, samples=1)
    found = warp_error(shown.rgb, shown.depth, cameras)
    count = 0
    for row in range(16):
        for column in range(16):
            depth = shown.depth[0, row, column]
            if depth == torch.inf:
                continue
            pixel = torch.tensor([[column + 0.5, row + 0.5]])
            point = cameras[0].unproject(pixel, depth[None])
            (there,), (far,) = cameras[1].project(point)
            x, y = there.tolist()
            if far <= 0 or not (0 <= x <= 16 and 0 <= y <= 16):
                continue
            # Rounding in the middle between two pixels may go either way; leave those out.
            i, j = min(int(y), 15), min(int(x), 15)
            if abs(float(shown.depth[1, i, j]) - float(far)) < 0.02 * float(far):
                count += 1
    assert abs(int(found.count[0]) / 3 - count) <= 0.03 * 256
    assert found.count[1] == 0


def test_pooled_rows_of_two_scenes(rows: list[dict[str, object]]) -> None:
    assert rows_of([]) == []
    assert len(rows) == 5 * (len(METHODS) + 2)


@pytest.mark.parametrize("wrong", [{"scenes": 0}, {"views": 2}, {"held_out": 0}])
def test_too_little_to_measure_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(WysError):
        replace(TOY, **wrong)
