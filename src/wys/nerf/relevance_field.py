"""r(x) in [0, 1]: how relevant a point of the scene is to an instruction.

Mirzaei et al., "Watch Your Steps" (arXiv 2308.08947), section 4.2: a third field beside density and
colour. It never moves the geometry: what a ray shows of it is sum over i of w_i r(x_i) with the
rendering weights of the density taken as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wys.nerf.encoding import ScalarGrid
from wys.nerf.field import contract


@dataclass(frozen=True)
class RelevanceFieldSettings:
    """How fine a relevance field is."""

    grids: tuple[int, ...] = (16, 32, 64, 128)
    """Corners along an edge of the grids whose sum, through a sigmoid, is the relevance."""
    initial: float = -2.0
    """The sum where no view says anything: a relevance of 0.12."""


class RelevanceField(nn.Module):
    """Relevance of points, in the same space as the radiance field it belongs to.

    Args:
        unbounded: space is contracted; otherwise the field fills the ball of `radius`.
    """

    def __init__(self, settings: RelevanceFieldSettings, *, unbounded: bool, radius: float) -> None:
        super().__init__()
        self.settings, self.unbounded, self.radius = settings, unbounded, radius
        self.grid = ScalarGrid(settings.grids, settings.initial)

    def forward(self, points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
        """r at points of the scene frame."""
        cube = contract(points) / 4 if self.unbounded else points / (2 * self.radius)
        return torch.sigmoid(self.grid((cube + 0.5).reshape(-1, 3))).reshape(points.shape[:-1])
