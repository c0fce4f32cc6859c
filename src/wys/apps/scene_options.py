"""Groups of command line options of the scene commands; see `options` for the rules they keep."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from wys.apps.options import Flag, before_the_edit, of_source, optional, overridden
from wys.errors import WysError

if TYPE_CHECKING:
    import torch

    from wys.datasets.reading import ReadSettings
    from wys.diffusion.settings import EditorSettings
    from wys.nerf.fitting import FitSettings
    from wys.scene_settings import SceneEditSettings

ScenePath = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SCENE")]
Instruction = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="INSTRUCTION")]
Method = Literal["wys", "paper", "published", "in2n", "per-frame"]
"""The names of `scene_settings.PRESETS`."""


@dataclass(frozen=True)
class ReadOptions:
    """How a capture is read."""

    downscale: float = 1.0
    """Divide the photographs' size by this."""
    holdout: Annotated[int | None, optional("N")] = None
    """Hold out every Nth view for figures (8; tabletop: 5); 0: none."""
    max_views: Annotated[int | None, optional("N")] = None
    """At most so many views, evenly spread (tabletop: 25)."""
    threads: int = 1
    """Threads that look for the poses of plain photos: more are faster, and do not repeat."""

    def check(self) -> None:
        """Raises WysError where a value makes no sense, before anything is read."""
        if not 1 <= self.downscale < math.inf or (self.holdout or 0) < 0 or self.holdout == 1:
            raise WysError("--downscale is at least 1, and --holdout 0 (none) or at least 2.")
        if self.max_views is not None and self.max_views < 3:
            raise WysError(f"a scene needs at least 3 views, and --max-views is {self.max_views}.")

    def settings(self) -> ReadSettings:
        """The reader's settings with what was given."""
        from wys.datasets.reading import ReadSettings

        given = overridden(ReadSettings(), holdout=self.holdout, max_views=self.max_views)
        return replace(given, downscale=self.downscale, threads=self.threads)


@dataclass(frozen=True)
class FitOptions:
    """How long and on what the field is fitted."""

    iterations: Annotated[int | None, optional("N")] = None
    """Optimiser steps (2000)."""
    seconds: Annotated[float | None, optional("S")] = None
    """Or: as many steps as take about this long here (measured first)."""
    rays: Annotated[int | None, optional("N")] = None
    """Rays of each step (512)."""
    decay: Annotated[float | None, optional("WEIGHT")] = None
    """How plain the field stays where few photographs tell: more is plainer, 0 leaves it alone
    (2)."""
    seed: int = 0
    """Seed of the field and of all draws."""
    device: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto"
    """auto (CUDA where there is one), cpu, cuda or cuda:N."""

    def check(self) -> None:
        """Raises WysError where two budgets are given, or one is none."""
        if self.iterations is not None and self.seconds is not None:
            raise WysError("give --iterations or --seconds, not both.")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise WysError(f"a fit takes some seconds, not {self.seconds:g}.")

    def settings(self) -> FitSettings:
        """The default settings with what was given; `seconds` is for the caller to turn."""
        from wys.nerf.fitting import FitSettings

        return overridden(
            FitSettings(), iterations=self.iterations, rays=self.rays, decay=self.decay
        )


@dataclass(frozen=True)
class SceneMapOptions:
    """How the relevance maps of the views are made; what is not given is the method's own, or
    the editor's where the method leaves it open."""

    source: Annotated[
        Literal["difference", "head", "locator"] | None,
        optional("{difference,head,locator}"),
    ] = None
    """From the predicted noise, by the relevance head, or by the locator."""
    draws: Annotated[int | None, optional("N")] = None
    """Noise draws to average each map over (paper: 1)."""
    timesteps: Annotated[tuple[float, ...] | None, optional("FRACTION...")] = None
    """Noise levels of the maps, 0 to 1, averaged (paper: 0.8)."""
    smoothing: Annotated[float | None, optional("SIGMA")] = None
    """Blur of the raw maps, in latent pixels (paper: 0)."""
    edges: Annotated[float | None, optional("PIXELS")] = None
    """Latent pixels within which the maps' edges move to the photographs' (paper: 0)."""
    threshold: Annotated[float | Literal["auto"] | None, optional("FLOAT|auto")] = None
    """Change where the relevance is at least this, 0 to 1, or 'auto'."""
    rival: Annotated[float | None, optional("SHARE")] = None
    """Of things apart, change those at least this share as relevant as the first; 0: all."""
    seed: int = 0
    """Seed of all noise."""

    def check(self, preset: SceneEditSettings) -> None:
        """Raises WysError where a value is out of its range, before an editor is loaded."""
        from wys.diffusion.settings import PAPER

        self.settings(PAPER, preset)

    def settings(self, own: EditorSettings, preset: SceneEditSettings) -> SceneEditSettings:
        """The preset with what was given; what it leaves open is the editor's own."""
        maps = overridden(
            of_source(preset.relevance or own.relevance, self.source),
            first_steps=before_the_edit(None, self.draws, self.timesteps),
            draws=self.draws,
            timesteps=self.timesteps,
            smoothing=self.smoothing,
            edges=self.edges,
            threshold=self.threshold,
        )
        voting = overridden(preset.voting, rival=self.rival)
        return overridden(preset, relevance=maps, threshold=self.threshold, voting=voting)


@dataclass(frozen=True)
class SceneGuideOptions:
    """How the scene is edited; what is not given is the method's own, or the editor's where the
    method leaves it open."""

    guidance_text: Annotated[float | None, optional("S_T")] = None
    """Guidance scale of the instruction (paper: 7.5)."""
    guidance_image: Annotated[float | None, optional("S_I")] = None
    """Guidance scale of the photograph (paper: 1.5)."""
    steps: Annotated[int | None, optional("N")] = None
    """Denoising steps of each edited photograph (paper: 20)."""
    solver: Annotated[Literal["ddim", "dpm++"] | None, optional("{ddim,dpm++}")] = None
    """dpm++ looks back a step, which is made for few steps (paper: ddim)."""
    noise: Annotated[
        tuple[float, float] | None,
        optional("LOW HIGH"),
    ] = None
    """Range of the noise, 0 to 1, that edits begin with (wys: 0.6 0.95, first ones: all of it)."""
    every: Annotated[int | None, optional("N")] = None
    """Steps of the field after each photograph (10)."""
    passes: Annotated[float | None, optional("N")] = None
    """How often each photograph is edited, on average (2)."""
    at_once: Annotated[int | None, optional("N")] = None
    """Photographs in a batch, for maps and first edits (4); 1 needs the least memory."""
    rest: Annotated[int | None, optional("N")] = None
    """Steps of the field after the last edited photograph (0)."""
    rate: Annotated[float | None, optional("SHARE")] = None
    """Learning rate of the field, as a share of its fit's (1)."""
    force: Flag = False
    """Edit also where no view shows what is meant."""

    def check(self, preset: SceneEditSettings) -> None:
        """Raises WysError where a value is out of its range, before an editor is loaded."""
        from wys.diffusion.settings import PAPER

        self.settings(PAPER, preset)

    def settings(self, own: EditorSettings, preset: SceneEditSettings) -> SceneEditSettings:
        """The preset with what was given; what it leaves open is the editor's own."""
        own_edit = preset.edit or own.edit
        guidance = overridden(own_edit.guidance, text=self.guidance_text, image=self.guidance_image)
        edit = overridden(own_edit, guidance=guidance, steps=self.steps, solver=self.solver)
        settings = overridden(
            preset,
            edit=edit,
            noise=self.noise,
            every=self.every,
            passes=self.passes,
            at_once=self.at_once,
            rest=self.rest,
            rate=self.rate,
        )
        if self.noise is not None and settings.together and settings.passes <= 1:
            raise WysError(
                "--noise is for a photograph's second edit, and --passes 1 makes none; give more "
                "passes, or leave --noise out."
            )
        return settings


def field_device(name: str) -> torch.device:
    """The device that a field is put on; auto takes CUDA where there is one.

    Raises:
        WysError: the name is unknown, or this machine has no such device.
    """
    from wys.devices import find_device

    return find_device(name, ("cuda",))
