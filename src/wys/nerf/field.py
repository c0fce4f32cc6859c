"""What is where: density and colour as functions of a point, and a cheap proposal of the density.

All points are in the scene frame (what the cameras look at within about the unit ball).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wys.devices import multiplies_bfloat16
from wys.errors import WysError
from wys.nerf.encoding import HashGrid, ScalarGrid, spherical_harmonics

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class FieldSettings:
    """How large a radiance field is, and how its rays are sampled."""

    levels: int = 8
    """Grids of the hash encoding."""
    log2_size: int = 16
    """Rows of one grid's table, as a power of 2."""
    features: int = 4
    """Numbers in a row of the table; even."""
    coarsest: int = 16
    """Cells along an edge of the coarsest grid."""
    finest: int = 1024
    """Cells along an edge of the finest grid."""
    width: int = 64
    """Width of the hidden layers."""
    geometry: int = 15
    """Features that the colour network gets from the density network."""
    initial: float = -0.5
    """Logarithm of the density at first, per scene unit, in the unit ball."""
    thinning: float = 2.0
    """How much lower the initial log density is at twice the unit ball's radius and beyond."""
    proposal_grids: tuple[int, ...] = (64,)
    """Corners along an edge of the grids whose sum is the proposed log density."""
    proposal_samples: int = 96
    """Intervals of a ray at which the proposed density is read."""
    samples: int = 24
    """Intervals of a ray at which density and colour are computed."""
    near: float = 0.1
    """Distance from the camera at which rays begin at the least, in scene units."""
    approach: float = 0.8
    """Share of a camera's way to the unit ball that is taken to be empty, in scenes without end."""
    far: float = 1000.0
    """Distance at which rays end, in scene units."""
    radius: float = 1.5
    """Of the ball that holds a bounded scene; a scene without end has none."""
    precision: Precision = "auto"
    """Of the networks' matrix products; auto: bfloat16 where the processor multiplies it."""

    def __post_init__(self) -> None:
        if self.features < 2 or self.features % 2:
            raise WysError(f"features must be an even number from 2 on, not {self.features}.")
        if not 0 <= self.approach < 1:
            raise WysError(f"approach is a share from 0 up to below 1, not {self.approach}.")
        if not 0 < self.near < self.far:
            raise WysError(f"near ({self.near}) must be above 0 and below far ({self.far}).")
        if min(self.samples, self.proposal_samples, self.levels, self.width) < 1:
            raise WysError("samples, levels and width must be at least 1.")
        if not 1 <= self.log2_size <= 24 or not 1 <= self.coarsest <= self.finest:
            raise WysError("log2_size is 1 to 24, and coarsest at least 1 and at most finest.")


def contract(points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """All of space into the ball of radius 2, the unit ball staying as it is.

    Mip-NeRF 360, equation 10: (2 - 1 / |x|) x / |x| where |x| > 1.
    """
    norm = points.norm(dim=-1, keepdim=True).clamp(min=1)
    return points * ((2 - 1 / norm) / norm)


def uncontract(points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """The inverse of `contract` inside the open ball of radius 2."""
    norm = points.norm(dim=-1, keepdim=True).clamp(min=1)
    return points / (norm * (2 - norm))


class RadianceField(nn.Module):
    """Density and colour of points, and the proposal for where to look.

    Args:
        unbounded: space is contracted; otherwise the field fills the ball of `settings.radius`.
        draw: makes the initial values.
    """

    def __init__(self, settings: FieldSettings, unbounded: bool, draw: torch.Generator) -> None:
        super().__init__()
        self.settings, self.unbounded = settings, unbounded
        self.grid = HashGrid(
            settings.levels,
            settings.log2_size,
            settings.features,
            settings.coarsest,
            settings.finest,
            draw,
        )
        width = settings.width
        self.density_net = _network([self.grid.width, width, 1 + settings.geometry], draw)
        self.colour_net = _network([16 + settings.geometry, width, width, 3], draw)
        self.proposal = ScalarGrid(settings.proposal_grids, initial=0.0)

    def unit_cube(self, points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
        """Where points lie in the cube [0, 1]^3 of the grids."""
        if self.unbounded:
            return contract(points) / 4 + 0.5
        return points / (2 * self.settings.radius) + 0.5

    def proposed_density(self, points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
        """A cheap density for finding where the true one matters; per scene unit."""
        raw = self.proposal(self.unit_cube(points).reshape(-1, 3))
        return _density(raw.reshape(points.shape[:-1]) + self._prior(points))

    def density(
        self, points: Float[Tensor, "*b 3"]
    ) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b g"]]:
        """Density per scene unit, and features from which `colour` starts."""
        encoded = self.grid(self.unit_cube(points).reshape(-1, 3))
        with autocast(self.settings.precision, encoded.device):
            out = self.density_net(encoded)
        out = out.reshape(*points.shape[:-1], -1)
        return _density(out[..., 0].float() + self._prior(points)), out[..., 1:]

    def _prior(self, points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
        """Logarithm of the density before anything is learnt: a fog that thins out from |x| = 1.

        Cameras that look at a thing from all sides never share a piece of sky: from even fog they
        learn to paint the sky behind the thing, each its own, instead of the thing (compare the
        blob of Poole et al., "DreamFusion", arXiv 2209.14988, appendix A.2).
        """
        beyond = (points.norm(dim=-1) - 1).clamp(0, 1)
        return self.settings.initial - self.settings.thinning * beyond

    def colour(
        self, features: Float[Tensor, "*b g"], directions: Float[Tensor, "*b 3"]
    ) -> Float[Tensor, "*b 3"]:
        """Colour in [0, 1] as seen along unit directions."""
        with autocast(self.settings.precision, features.device):
            harmonics = spherical_harmonics(directions).to(features.dtype)
            out = self.colour_net(torch.cat([harmonics, features], dim=-1))
        return out.float().sigmoid()


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context of a field's networks: bfloat16 where asked for or, with auto, where faster."""
    wanted = precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted)


def _density(raw: Tensor) -> Tensor:
    # exp as in Instant NGP; beyond exp(10) nothing is more opaque.
    return torch.exp(raw.clamp(max=10))


def _network(widths: list[int], draw: torch.Generator) -> nn.Sequential:
    """Linear layers with ReLU between; weights as He et al. 2015, uniform, biases 0."""
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        if i:
            layers.append(nn.ReLU())
        linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
        bound = (6 / inputs) ** 0.5 if i + 2 < len(widths) else (3 / inputs) ** 0.5
        weight = torch.rand(outputs, inputs, generator=draw)
        with torch.no_grad():
            linear.weight.copy_((2 * weight - 1) * bound)
            linear.bias.zero_()
        layers.append(linear)
    return nn.Sequential(*layers)
