"""How a scene is edited: the settings of `edit_scene`, and the methods as presets of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from wys.diffusion.sampler import EditSettings
from wys.errors import WysError
from wys.nerf.region import RegionSettings
from wys.relevance import RelevanceSettings
from wys.thresholds import Threshold


@dataclass(frozen=True)
class SceneEditSettings:
    """How a scene is edited. The defaults are the preset `paper`."""

    relevance: RelevanceSettings | None = None
    """How the maps of the photographs are made; None takes the editor's own."""
    across: bool = True
    """Normalise all maps together, on the raw difference: a view that does not show what is meant
    gets no mask. Otherwise each map reaches 1."""
    maps: Literal["before", "visited", "render"] = "visited"
    """When maps are made: of all photographs before the first edit; of each when its turn comes;
    or, as in the published program, of its render at each turn."""
    learn: int = 40
    """Steps of the relevance field after each map, where maps are not made before."""
    region: Literal["field", "votes", "everywhere"] = "field"
    """What may change: what the relevance field shows in a view; the space that all maps vote for,
    decided before the first edit and then held; or everything."""
    stretched: bool = False
    """Scale each rendered relevance to [0, 1], as in the published program, so that a view without
    the target gets a mask too."""
    threshold: Threshold = 0.5
    """Where the rendered relevance is at least this, the view may change."""
    voting: RegionSettings = field(default_factory=RegionSettings)
    """How maps vote on the region."""
    edit: EditSettings | None = None
    """Guidance and steps of the photographs' edits; None takes the editor's own."""
    noise: tuple[float, float] = (0.02, 0.98)
    """Lowest and highest noise that a photograph's edit begins with, as fractions of the
    diffusion's length; with `together` from its second edit on."""
    begin: Literal["render", "photograph"] = "render"
    """What that noise is added to: what the field shows, or the photograph."""
    together: bool = False
    """Edit all photographs once before the field takes its first step, from the photographs and
    with the noise that a full edit begins with; then take turns."""
    at_once: int = 4
    """Photographs in a batch, where maps are made before the first edit and where all photographs
    are edited once before the field's first step. 1 needs the least memory."""
    passes: float = 2.0
    """Edits of each photograph, on average."""
    every: int = 10
    """Steps of the field for each edit of a photograph."""
    rest: int = 0
    """Steps of the field after the last edit."""
    inside: float = 0.0
    """Share of the field's rays that are drawn from the masks; the others from everywhere."""
    rate: float = 1.0
    """Learning rate of the field in the beginning, relative to the highest of its fit; half a
    cosine leads to a tenth of it."""
    watch: int = 6
    """Edits after which the field must have begun to take them up; 0 does not check."""

    def __post_init__(self) -> None:
        low, high = self.noise
        if not 0 < low <= high <= 1:
            raise WysError(
                f"the noise of a scene's edit is a range within (0, 1], not {low} to {high}."
            )
        if not 0 < self.passes < math.inf or min(self.every, self.learn, self.at_once) < 1:
            raise WysError("passes, every, learn and at_once must be above 0.")
        if min(self.rest, self.watch) < 0:
            raise WysError("rest and watch must be at least 0.")
        if not 0 <= self.inside <= 1 or not 0 < self.rate < math.inf:
            raise WysError("inside is a share between 0 and 1, rate is above 0.")


_PAPER_MAPS = RelevanceSettings(clamp=2.0)

PAPER = SceneEditSettings(relevance=_PAPER_MAPS, across=False)
"""The paper's: maps are made as views come up, the field shows the masks."""

PUBLISHED = replace(PAPER, maps="render", stretched=True, edit=EditSettings(blend="published"))
"""The authors' program: maps of the renders, each rendered relevance scaled to reach 1."""

IN2N = SceneEditSettings(region="everywhere")
"""Instruct-NeRF2NeRF: no relevance; L1 without LPIPS."""

PER_FRAME = replace(IN2N, begin="photograph", noise=(1.0, 1.0), together=True)
"""Every photograph edited for itself."""

OWN = SceneEditSettings(
    maps="before",
    region="votes",
    together=True,
    noise=(0.6, 0.95),
    inside=0.5,
)
"""What works best with the built-in editor; see docs/architecture.md."""

PRESETS: Mapping[str, SceneEditSettings] = {
    "wys": OWN,
    "paper": PAPER,
    "published": PUBLISHED,
    "in2n": IN2N,
    "per-frame": PER_FRAME,
}
