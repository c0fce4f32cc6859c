"""Scene edits against the exact truth of the tabletop world, from cameras never trained on.

Methods:
    noop        the fitted field as it is: its error outside is the fit's own ceiling
    per-frame   every photograph edited for itself, then the field fitted to them
    in2n        Instruct-NeRF2NeRF: no relevance; L1 without LPIPS
    published   the authors' program: maps of the renders, each scaled to reach 1
    wys         ours
    true-views  the field fitted to the exact edited photographs: what a perfect editor would give

Two rows more are of masks alone: `field` is the relevance field that `wys` learns, rendered in the
held-out views; `single-view` are the maps of the held-out photographs themselves, each alone.

All start from the same fitted field and get the same number of view edits and of field steps.
"Inside" and "outside" are the pixels that the true edit changes, and the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wys.camera import Camera
from wys.diffusion.editor import Editor
from wys.errors import WysError
from wys.evaluation import metrics
from wys.evaluation.speed_bench import PeakMemory
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings, Fitter, RelevanceFitSettings, fit
from wys.nerf.layering import Look
from wys.nerf.region import region_mask
from wys.nerf.scene import Scene
from wys.relevance import relevance_mask
from wys.scene_edit import edit_scene, scene_relevance
from wys.scene_settings import IN2N, PRESETS, SceneEditSettings
from wys.scene_state import SceneEditState
from wys.tabletop.edits import Kind
from wys.tabletop.posed import PosedSet, PosedTruth, posed_edit, posed_views
from wys.tabletop.raytracer import render as raytrace
from wys.tabletop.world import Split
from wys.views import Capture

Method = Literal["noop", "per-frame", "in2n", "published", "wys", "true-views"]
METHODS: tuple[Method, ...] = get_args(Method)
STRAY = 0.002
"""A view without the target has a stray mask where more than this share of it is in the mask."""
KINDS: tuple[Kind, ...] = ("recolour", "material", "shape", "remove")


@dataclass(frozen=True)
class SceneCases:
    """Which scenes and edits are measured, and with how much work."""

    scenes: int = 4
    """Scenes; each is fitted once and edited in every kind."""
    kinds: tuple[Kind, ...] = KINDS
    """Kinds of edits."""
    views: int = 24
    """Photographs that a field is fitted to."""
    held_out: int = 6
    """Cameras that figures are made on."""
    size: int = 128
    """Side of the photographs in pixels."""
    iterations: int = 3000
    """Steps of a field's fit."""
    passes: float = 2.0
    """Edits of each photograph, on average, for every method."""
    every: int = 10
    """Field steps for each edit of a photograph, for every method."""
    split: Split = "test"
    """test: scenes and phrasings never trained on; validation: for choices."""
    seed: int = 0
    """Seed of the scenes, the fits and the edits."""

    def __post_init__(self) -> None:
        if self.scenes < 1 or self.views < 3 or self.held_out < 1:
            raise WysError("a bench of scenes needs a scene, 3 views and a held-out one at least.")


QUICK = SceneCases(scenes=2, views=16, held_out=5, iterations=1200, passes=1.25)
"""Two scenes and four kinds, under 25 minutes on two cores."""


@dataclass(frozen=True)
class SceneScore:
    """What one method did to one scene, on its held-out views."""

    method: str
    kind: Kind
    scene: int
    iou: Float[Tensor, " n"]
    """Of the method's mask in each view; NaN where it has none."""
    stray: Float[Tensor, " n"]
    """1 where a view without the target has a mask, 0 where not; NaN for other views."""
    inside: metrics.SquaredError
    outside: metrics.SquaredError
    ssim: Float[Tensor, " n"]
    consistency: metrics.SquaredError
    """Between neighbouring views, one warped onto the other by the exact depth of the edit."""
    seconds: float
    peak_mb: float


def rows_of(scores: Sequence[SceneScore]) -> list[dict[str, Any]]:
    """Rows for each method: every case, each kind over the scenes, and all. PSNR is pooled."""
    rows = []
    for method in dict.fromkeys(score.method for score in scores):
        own = [score for score in scores if score.method == method]
        rows.append(_row(own, method, "all", "all"))
        for kind in dict.fromkeys(score.kind for score in own):
            same = [score for score in own if score.kind == kind]
            rows.append(_row(same, method, kind, "all"))
            rows += [_row([score], method, kind, score.scene) for score in same]
    return rows


def _row(scores: Sequence[SceneScore], method: str, kind: str, scene: int | str) -> dict[str, Any]:
    def pooled(errors: Sequence[metrics.SquaredError]) -> float | None:
        return metrics.SquaredError(
            torch.cat([e.total for e in errors]), torch.cat([e.count for e in errors])
        ).psnr()

    return {
        "method": method,
        "kind": kind,
        "scene": scene,
        "iou": metrics.mean(torch.cat([s.iou for s in scores])),
        "psnr_inside": pooled([s.inside for s in scores]),
        "psnr_outside": pooled([s.outside for s in scores]),
        "ssim": metrics.mean(torch.cat([s.ssim for s in scores])),
        "consistency": pooled([s.consistency for s in scores]),
        "seconds": sum(s.seconds for s in scores) / len(scores),
        "peak_mb": max(s.peak_mb for s in scores),
        "stray": metrics.mean(torch.cat([s.stray for s in scores])),
    }


def warp_error(
    images: Float[Tensor, "n 3 h w"], depth: Float[Tensor, "n h w"], cameras: Camera
) -> metrics.SquaredError:
    """How far neighbouring views disagree about the surfaces that both see.

    Each view is compared with the next, sampled where the next one's camera sees the same point.
    A point counts where the depths agree to 2 %.

    Args:
        depth: exact depth along the camera's z axis; infinite on the background.
        cameras: the n cameras, in the frame of the depth.
    """
    n, _, height, width = images.shape
    totals, counts = torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for i in range(n - 1):
        here, there = cameras[i], cameras[i + 1]
        flat = depth[i].reshape(-1)
        points = here.unproject(here.pixel_centres().reshape(-1, 2), flat.clamp(max=1e6))
        pixels, far = there.project(points)
        place = pixels / pixels.new_tensor([width, height]) * 2 - 1
        grid = place[None, None]
        seen = F.grid_sample(images[i + 1][None], grid, align_corners=False)[0, :, 0]
        known = depth[i + 1].clamp(max=1e6)[None, None]
        theirs = F.grid_sample(known, grid, mode="nearest", align_corners=False)[0, 0, 0]
        both = (flat < torch.inf) & (far > 0) & (place.abs() <= 1).all(-1)
        both &= (theirs - far).abs() < 0.02 * far
        error = (seen - images[i].reshape(3, -1)).double().square().sum(0)
        totals[i], counts[i] = error[both].sum(), 3 * both.sum()
    return metrics.SquaredError(totals, counts)


@dataclass(frozen=True)
class SceneCase:
    """A fitted scene and one edit of it."""

    editor: Editor
    index: int
    kind: Kind
    posed: PosedSet
    capture: Capture
    fitted: Scene
    cases: SceneCases
    fitting: FitSettings
    learning: RelevanceFitSettings

    @property
    def truth(self) -> PosedTruth:
        """What the held-out cameras should see."""
        return self.posed.truth.select(self.posed.held_out_rows)

    @property
    def cameras(self) -> Camera:
        """The held-out cameras, in world coordinates."""
        return self.posed.cameras[torch.tensor(self.posed.held_out_rows)]

    def settings(self, method: Method) -> SceneEditSettings:
        """A preset with the bench's own amount of work."""
        return replace(PRESETS[method], passes=self.cases.passes, every=self.cases.every)

    def run(self, method: Method) -> tuple[list[SceneScore], Float[Tensor, "n 3 h w"]]:
        """Edits, renders the held-out views and scores them; `wys` brings the rows of its masks."""
        with PeakMemory(torch.device("cpu")) as memory:
            started = time.perf_counter()
            look, state = self.edited(method)
            seconds = time.perf_counter() - started
        settings = self.settings(method) if state is not None else IN2N
        masks = None if state is None else self.masks(look, state, settings)
        score, images = self.score(method, look, masks, seconds, memory.megabytes)
        if method != "wys" or state is None:
            return [score], images
        return [score, *self.mask_scores(look, state, settings)], images

    def edited(self, method: Method) -> tuple[Look, SceneEditState | None]:
        """The edited scene, and where the edit ended."""
        if method == "noop":
            return Look(((self.fitted, None),)), None
        if method == "true-views":
            return Look(((self._fitted_to_truth(), None),)), None
        settings = self.settings(method)
        state: SceneEditState | None = None
        before = Look(((self.fitted, None),))
        steps = edit_scene(
            self.editor,
            before,
            self.capture.train,
            self.posed.case.instruction,
            settings,
            fitting=self.fitting,
            relevance_fitting=self.learning,
            seed=self.cases.seed,
        )
        for step in steps:
            state = step.state
        assert state is not None
        return before.with_layer(state.scene, state.room), state

    def masks(
        self, look: Look, state: SceneEditState, settings: SceneEditSettings
    ) -> Bool[Tensor, "n h w"] | None:
        """What an edit's region, or its relevance field, shows in the held-out views."""
        cameras = self.capture.held_out.cameras
        if settings.region == "everywhere":
            return None
        if state.region is None:
            return self.field_masks(look, settings)
        region = state.region
        seen = [
            region_mask(self.fitted, region, cameras[i])[0] for i in range(len(self.truth.mask))
        ]
        return torch.stack(seen)

    def field_masks(self, look: Look, settings: SceneEditSettings) -> Bool[Tensor, "n h w"]:
        """The thresholded relevance field in the held-out views; empty where there is none."""
        views = self.capture.held_out
        shown = [look(views.cameras[i]).relevance for i in range(len(views))]
        values = torch.stack([each for each in shown if each is not None] or [torch.zeros(1, 1, 1)])
        if len(values) < len(views):
            return torch.zeros((len(views), *views.size), dtype=torch.bool)
        return relevance_mask(values, views.size, settings.threshold).at(views.size)[:, 0]

    def mask_scores(
        self, look: Look, state: SceneEditState, settings: SceneEditSettings
    ) -> list[SceneScore]:
        """Masks of the relevance field, and of each held-out photograph's own map."""
        views = self.capture.held_out
        found = scene_relevance(
            self.editor, views, self.posed.case.instruction, seed=self.cases.seed
        )
        alone = torch.cat([each.mask().at(views.size)[:, 0] for _, each in found])
        nothing = metrics.SquaredError(*torch.zeros(2, len(views), dtype=torch.float64))
        undefined = torch.full((len(views),), torch.nan, dtype=torch.float64)
        return [
            SceneScore(
                name,
                self.kind,
                self.index,
                metrics.iou(masks, self.truth.mask),
                self.stray(masks),
                nothing,
                nothing,
                undefined,
                nothing,
                0.0,
                0.0,
            )
            for name, masks in (("field", self.field_masks(look, settings)), ("single-view", alone))
        ]

    def stray(self, masks: Bool[Tensor, "n h w"]) -> Float[Tensor, " n"]:
        """1 where a view that does not show the target has a mask all the same."""
        has_mask = (masks.flatten(1).double().mean(1) > STRAY).double()
        return torch.where(self.truth.target_visible, torch.nan, has_mask)

    def _fitted_to_truth(self) -> Scene:
        rows = torch.tensor(self.posed.train_rows)
        views = self.capture.train
        for i, image in enumerate(self.posed.truth.after[rows]):
            views = views.with_edit(i, image)
        settings = replace(self.fitting, loss="l1")
        fitter = Fitter(scene := self.fitted.clone(), settings, self.cases.seed, rate=settings.rate)
        images = views.images
        for _ in range(round(self.cases.passes * len(views)) * self.cases.every):
            fitter.step(images, views.cameras)
        return scene

    def score(
        self,
        method: Method,
        look: Look,
        masks: Bool[Tensor, "n h w"] | None,
        seconds: float,
        peak_mb: float,
    ) -> tuple[SceneScore, Float[Tensor, "n 3 h w"]]:
        """Scores the renders of the held-out views."""
        truth, cameras = self.truth, self.capture.held_out.cameras
        images = torch.stack([look(cameras[i]).rgb.clamp(0, 1) for i in range(len(truth.mask))])
        after = self.posed.case.after[[0] * len(images)]
        depth = raytrace(after, self.cameras, samples=1).depth
        undefined = torch.full((len(images),), torch.nan, dtype=torch.float64)
        score = SceneScore(
            method=method,
            kind=self.kind,
            scene=self.index,
            iou=undefined if masks is None else metrics.iou(masks, truth.mask),
            stray=undefined if masks is None else self.stray(masks),
            inside=metrics.squared_error(images, truth.after, truth.mask),
            outside=metrics.squared_error(images, truth.after, ~truth.mask),
            ssim=metrics.ssim(images, truth.after),
            consistency=warp_error(images, depth, self.cameras),
            seconds=seconds,
            peak_mb=peak_mb,
        )
        return score, images


@dataclass(frozen=True)
class SceneBenchStep:
    """Some work of the bench is done."""

    done: int
    count: int
    what: str
    pictures: Mapping[str, Float[Tensor, "n 3 h w"]] = field(default_factory=dict)
    """Held-out views of a case that is complete, by method, with "before" and "truth"."""
    rows: list[dict[str, Any]] | None = None
    """The rows of the bench, on the last step only."""


def scene_bench(
    editor: Editor,
    cases: SceneCases,
    methods: Sequence[Method] = METHODS,
    fitting: FitSettings | None = None,
    relevance_fitting: RelevanceFitSettings | None = None,
) -> Iterator[SceneBenchStep]:
    """Fits every scene once and measures the methods on every kind of edit."""
    learning = relevance_fitting or RelevanceFitSettings()
    fitting = replace(fitting or FitSettings(), iterations=cases.iterations)
    scores: list[SceneScore] = []
    count = cases.scenes * (1 + len(cases.kinds) * len(methods))
    done = 0
    for index in range(cases.scenes):
        fitted: Scene | None = None
        for kind in cases.kinds:
            case = posed_edit(cases.seed, index, kind, cases.split)
            posed = posed_views(case, views=cases.views, held_out=cases.held_out, size=cases.size)
            capture = posed.capture()
            if fitted is None:
                fitted = Scene.create(
                    FieldSettings(),
                    cases.seed,
                    unbounded=capture.unbounded,
                    background=capture.background,
                )
                for _ in fit(fitted, capture.train, fitting, seed=cases.seed):
                    pass
                done += 1
                yield SceneBenchStep(done, count, f"scene {index}: fitted")
            whole = SceneCase(editor, index, kind, posed, capture, fitted, cases, fitting, learning)
            shown = {"before": whole.truth.before, "truth": whole.truth.after}
            for method in methods:
                found, images = whole.run(method)
                scores += found
                shown[method] = images
                done += 1
                yield SceneBenchStep(done, count, f"scene {index}, {kind}: {method}")
            yield SceneBenchStep(done, count, f"{index}-{kind}", pictures=shown)
    yield SceneBenchStep(done, count, "done", rows=rows_of(scores))
