"""The scene jobs of `wys bench speed`: a fit up to a quality, and a small edit of its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from wys.diffusion.editor import Editor
from wys.errors import WysError
from wys.evaluation.scene_fit_bench import scene_quality
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings, Fitter, RelevanceFitSettings
from wys.nerf.layering import Look
from wys.nerf.scene import Scene
from wys.scene_edit import edit_scene
from wys.scene_settings import OWN, PUBLISHED, SceneEditSettings
from wys.tabletop.posed import posed_edit, posed_views


@dataclass(frozen=True)
class SceneJobSettings:
    """A tabletop scene, and how much is done to it."""

    size: int = 64
    """Side of the photographs in pixels."""
    views: int = 16
    """Photographs that the field is fitted to."""
    psnr: float = 22.0
    """The fit ends where two held-out photographs are shown this well, in dB."""
    every: int = 25
    """Steps of the fit between two looks at that."""
    radiance: FieldSettings = field(default_factory=FieldSettings)
    """The radiance field."""
    fit: FitSettings = field(default_factory=lambda: FitSettings(iterations=1500))
    """The fit, which takes so many steps at most."""
    learning: RelevanceFitSettings = field(default_factory=RelevanceFitSettings)
    """The fit of the relevance field."""
    edit: SceneEditSettings = field(
        default_factory=lambda: replace(OWN, passes=1.0, every=5, watch=0)
    )
    """The edit; nothing watches whether so short a one gets anywhere."""


def scene_jobs(
    editor: Editor, settings: SceneJobSettings, seed: int
) -> dict[str, Callable[[], object]]:
    """`scene fit`, `scene edit` and, as the authors' program edits, `published scene edit`.

    A step's randomness is a function of (seed, step): how many steps the quality takes is found
    here, once, so that no job looks at a held-out photograph.

    Raises:
        WysError: the fit does not reach the quality.
    """
    case = posed_edit(seed, 0, "recolour")
    posed = posed_views(case, views=settings.views, held_out=2, size=settings.size, astray=0)
    capture = posed.capture()
    images, cameras = capture.train.images, capture.train.cameras

    def started() -> Fitter:
        scene = Scene.create(
            settings.radiance, seed, unbounded=capture.unbounded, background=capture.background
        )
        return Fitter(scene, settings.fit, seed)

    fitter, reached = started(), False
    while not reached:
        if fitter.iteration >= settings.fit.iterations:
            raise WysError(
                f"the scene does not reach {settings.psnr:g} dB in {fitter.iteration} steps."
            )
        for _ in range(settings.every):
            fitter.step(images, cameras)
        reached = scene_quality(fitter.scene, capture.held_out).psnr >= settings.psnr
    steps = fitter.iteration

    def fit() -> None:
        own = started()
        for _ in range(steps):
            own.step(images, cameras)

    def edit(how: SceneEditSettings) -> None:
        for _ in edit_scene(
            editor,
            Look(((fitter.scene, None),)),
            capture.train,
            case.instruction,
            replace(how, passes=settings.edit.passes, every=settings.edit.every, watch=0),
            fitting=settings.fit,
            relevance_fitting=settings.learning,
            seed=seed,
            force=True,
        ):
            pass

    return {
        "scene fit": fit,
        "scene edit": lambda: edit(settings.edit),
        "published scene edit": lambda: edit(PUBLISHED),
    }
