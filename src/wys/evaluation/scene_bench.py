"""Scene edits against the exact truth of the tabletop world, from cameras never trained on.

Methods:
    noop        the fitted field as it is: its error outside is the fit's own ceiling
    per-frame   every photograph edited for itself, then the field fitted to them
    in2n        Instruct-NeRF2NeRF: no relevance; L1 without LPIPS
    published   the authors' program: maps of the renders, each scaled to reach 1
    wys         ours
    true-views  the field fitted to the exact edited photographs: what a perfect editor would give

Two rows more are of masks alone: `field` is the relevance field that `wys` learns, rendered in the
held-out views before anything is edited; `single-view` are the maps of the held-out photographs
themselves, each alone.

All start from the same fitted field and get the same number of view edits and of field steps.
"Inside" and "outside" are the pixels that the true edit changes, and the others. `noop` is in every
table.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wys.camera import Camera
from wys.diffusion.editor import Editor
from wys.errors import WysError
from wys.evaluation import metrics
from wys.evaluation.captions import captions
from wys.evaluation.clip_metrics import direction_consistency
from wys.evaluation.curves import leakage, relevance_counts
from wys.evaluation.journal import Journal
from wys.evaluation.judges import NO_JUDGES, Judges
from wys.evaluation.peak_memory import PeakMemory
from wys.evaluation.predictions import enlarged
from wys.evaluation.scene_scores import SceneScore, case_name, rows_of, scene_score, warp_error
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings, Fitter, RelevanceFitSettings, fit
from wys.nerf.layering import Look
from wys.nerf.region import region_mask
from wys.nerf.scene import Scene
from wys.relevance import field_mask, relevance_mask
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
MASKS = ("field", "single-view")
"""The rows of masks alone."""
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
        """A preset with the bench's own amount of work; an edit that gets nowhere is a result."""
        return replace(PRESETS[method], passes=self.cases.passes, every=self.cases.every, watch=0)

    def run(
        self, method: Method, judges: Judges = NO_JUDGES
    ) -> tuple[list[SceneScore], Float[Tensor, "n 3 h w"]]:
        """Edits, renders the held-out views and scores them; `wys` brings the rows of its masks."""
        with PeakMemory(torch.device("cpu")) as memory:
            started = time.perf_counter()
            look, state = self.edited(method)
            seconds = time.perf_counter() - started
        settings = self.settings(method) if state is not None else IN2N
        masks = None if state is None else self.masks(look, state, settings)
        score, images = self.score(method, look, masks, seconds, memory.megabytes, judges)
        if method != "wys" or state is None:
            return [score], images
        return [score, *self.mask_scores(state, settings)], images

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

    def field_values(self, look: Look) -> Float[Tensor, "n 1 h w"]:
        """R of the relevance field in the held-out views; zero where there is none."""
        cameras = self.capture.held_out.cameras
        shown = [look(cameras[i]).relevance for i in range(len(self.capture.held_out))]
        nothing = torch.zeros(1, *self.capture.held_out.size)
        return torch.stack([nothing if each is None else each for each in shown])

    def field_masks(self, look: Look, settings: SceneEditSettings) -> Bool[Tensor, "n h w"]:
        """The thresholded relevance field in the held-out views; empty where there is none."""
        size, values = self.capture.held_out.size, self.field_values(look)
        if not values.any():
            return torch.zeros_like(values[:, 0], dtype=torch.bool)
        return field_mask(values, size, settings.threshold, settings.stretched).at(size)[:, 0]

    def mask_scores(self, state: SceneEditState, settings: SceneEditSettings) -> list[SceneScore]:
        """Masks of the relevance field, and of each held-out photograph's own map.

        The field lies on surfaces. It tells what is to be edited on those of the scene before the
        edit; afterwards a removed object's relevance is seen by no camera.
        """
        before = Scene(
            self.fitted.radiance, state.scene.relevance, background=self.fitted.background
        )
        views = self.capture.held_out
        asked = self.posed.case.instruction
        found = list(
            scene_relevance(
                self.editor, views, asked, seed=self.cases.seed, at_once=settings.at_once
            )
        )
        # Hard ones, as scenes hold them.
        alone = torch.cat(
            [
                relevance_mask(each.values, views.size, each.settings.threshold).at(views.size)
                for _, each in found
            ]
        )[:, 0]
        maps = torch.cat([enlarged(each.values, views.size) for _, each in found])
        look = Look(((before, None),))
        named = (
            ("field", self.field_masks(look, settings), self.field_values(look)[:, 0]),
            ("single-view", alone, maps),
        )
        exact = self.truth.mask
        return [
            scene_score(
                name,
                self.kind,
                self.index,
                self.cases.seed,
                {**self.mask_measures(masks), "ap": metrics.average_precision(values, exact)},
                relevance=relevance_counts(values, exact),
            )
            for name, masks, values in named
        ]

    def mask_measures(self, masks: Bool[Tensor, "n h w"] | None) -> dict[str, Float[Tensor, " n"]]:
        """What is measured of masks alone."""
        if masks is None:
            undefined = torch.full((len(self.truth.mask),), torch.nan, dtype=torch.float64)
            return {"iou": undefined, "stray": undefined}
        return {"iou": metrics.iou(masks, self.truth.mask), "stray": self.stray(masks)}

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
        judges: Judges = NO_JUDGES,
    ) -> tuple[SceneScore, Float[Tensor, "n 3 h w"]]:
        """Scores the renders of the held-out views."""
        truth, images = self.truth, self.renders(look)
        after = self.posed.case.after[[0] * len(images)]
        depth = raytrace(after, self.cameras, samples=1).depth
        views = {**self.mask_measures(masks), "ssim": metrics.ssim(images, truth.after)}
        if judges != NO_JUDGES:
            # Against renders of the scene, not photographs: an edit is not to blame for the fit.
            before = self.renders(Look(((self.fitted, None),)))
            said = captions(self.posed.case.before) + captions(self.posed.case.after)
            told = [(said[0], said[1])] * len(images)
            views |= judges.measures(images, before, truth.after, told)
            if judges.clip is not None:
                views["clip_consistency"] = direction_consistency(judges.clip, images, before)
        errors = {
            "inside": metrics.squared_error(images, truth.after, truth.mask),
            "outside": metrics.squared_error(images, truth.after, ~truth.mask),
            "consistency": warp_error(images, depth, self.cameras),
        }
        leaked = leakage(images, truth.after, truth.mask)
        score = scene_score(
            method,
            self.kind,
            self.index,
            self.cases.seed,
            views,
            errors,
            leaked,
            seconds=seconds,
            peak_mb=peak_mb,
        )
        return score, images

    def renders(self, look: Look) -> Float[Tensor, "n 3 h w"]:
        """What the held-out cameras see."""
        cameras = self.capture.held_out.cameras
        return torch.stack([look(cameras[i]).rgb.clamp(0, 1) for i in range(len(self.truth.mask))])


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
    *,
    seeds: Sequence[int] | None = None,
    judges: Judges = NO_JUDGES,
    journal: Journal | None = None,
) -> Iterator[SceneBenchStep]:
    """Fits every scene once and measures the methods on every kind of edit.

    Args:
        methods: `noop` is always among them.
        seeds: of the scenes, the fits and the edits; the cases' own if not given.
        judges: networks that judge the renders, too.
        journal: what is in it is not measured again.
    """
    learning = relevance_fitting or RelevanceFitSettings()
    fitting = replace(fitting or FitSettings(), iterations=cases.iterations)
    journal = journal or Journal()
    chosen = [method for method in METHODS if method in ("noop", *methods)]
    seeds = (cases.seed,) if seeds is None else seeds
    count = len(seeds) * cases.scenes * (1 + len(cases.kinds) * len(chosen))
    done = 0
    for seed, index in itertools.product(seeds, range(cases.scenes)):
        fitted: Scene | None = None
        for kind in cases.kinds:
            name = case_name(index, kind)
            if all(_is_known(journal, seed, name, method) for method in chosen):
                continue
            case = posed_edit(seed, index, kind, cases.split)
            posed = posed_views(case, views=cases.views, held_out=cases.held_out, size=cases.size)
            capture = posed.capture()
            if fitted is None:
                fitted = Scene.create(
                    FieldSettings(),
                    seed,
                    unbounded=capture.unbounded,
                    background=capture.background,
                )
                for _ in fit(fitted, capture.train, fitting, seed=seed):
                    pass
                done += 1
                yield SceneBenchStep(done, count, f"scene {index}: fitted")
            own = replace(cases, seed=seed)
            whole = SceneCase(editor, index, kind, posed, capture, fitted, own, fitting, learning)
            shown: dict[str, Tensor] = {"before": whole.truth.before, "truth": whole.truth.after}
            if seed == seeds[0]:
                journal.keep_picture(name, "input", whole.truth.before[0])
                journal.keep_picture(name, "truth", whole.truth.after[0])
            for method in chosen:
                if not _is_known(journal, seed, name, method):
                    found, images = whole.run(method, judges)
                    if seed == seeds[0]:
                        journal.keep_picture(name, method, images[0])
                    told = {"instruction": case.instruction}
                    journal.add([{**score.record, **told} for score in found])
                    shown[method] = images
                done += 1
                yield SceneBenchStep(done, count, f"scene {index}, {kind}: {method}")
            yield SceneBenchStep(done, count, f"{index}-{kind}", pictures=shown)
    order = [name for method in chosen for name in _lines_of(method)]
    known = journal.comparable(order, seeds)
    rows = rows_of([SceneScore.from_record(record) for record in known])
    yield SceneBenchStep(count, count, "done", rows=rows)


def _lines_of(method: Method) -> tuple[str, ...]:
    """The names under which a method's lines stand."""
    return (method, *MASKS) if method == "wys" else (method,)


def _is_known(journal: Journal, seed: int, case: str, method: Method) -> bool:
    return all(journal.has(seed, [case], line) for line in _lines_of(method))
