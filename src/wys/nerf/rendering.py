"""From rays to what they show: sample, look up, accumulate.

    rays -> sample (even intervals, refined by the proposed density)
         -> shade (density, colour and relevance in each interval)
         -> composite (rendering weights, sums along the ray)

`render_rays` is the three in a row; a caller that mixes two fields calls them one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wys.camera import Camera, Rays
from wys.nerf.intervals import even_edges, refine, spacing
from wys.nerf.scene import Scene
from wys.nerf.volume import accumulate, rendering_weights
from wys.views import Background

_PADDING = 0.01  # Weight that every interval of a proposal keeps at least: surprises stay possible.


@dataclass(frozen=True)
class Rendering:
    """What rays (or the pixels of a view) show."""

    rgb: Float[Tensor, "*b 3"] | Float[Tensor, "3 h w"]
    """Colour in [0, 1]; [3, h, w] for a view."""
    depth: Float[Tensor, "*b"] | Float[Tensor, "1 h w"]
    """Distance along the ray in scene units, weighted by what stands there: sum over i of w_i t_i;
    [1, h, w] for a view."""
    opacity: Float[Tensor, "*b"] | Float[Tensor, "1 h w"]
    """Share of the ray's light that comes from the scene, in [0, 1]; [1, h, w] for a view."""
    relevance: Float[Tensor, "*b"] | Float[Tensor, "1 h w"] | None
    """sum over i of w_i r(x_i) with w_i taken as they are; None without a relevance field."""

    @property
    def surface(self) -> Float[Tensor, "*b"]:
        """Distance along the ray of what stands there; infinite where mostly nothing does."""
        solid = self.opacity > 0.5
        return torch.where(solid, self.depth / self.opacity.clamp(min=0.5), torch.inf)


@dataclass(frozen=True)
class Samples:
    """Intervals along n rays, in which a field is looked up."""

    rays: Rays
    """[n, 3] each."""
    edges: Float[Tensor, "n k1"]
    """In the normalised distance s."""
    distances: Float[Tensor, "n k1"]
    """The edges in scene units."""
    proposed_edges: Float[Tensor, "n j1"]
    """The histogram from which the intervals were drawn ..."""
    proposed_weights: Float[Tensor, "n j"]
    """... and its weights, which carry the proposal's gradient."""
    closed: bool
    """The last interval takes all the light that reaches it."""

    @property
    def lengths(self) -> Float[Tensor, "n k"]:
        """Of the intervals, in scene units."""
        return self.distances[:, 1:] - self.distances[:, :-1]

    @property
    def middles(self) -> Float[Tensor, "n k"]:
        """Distances of the intervals' middles, in scene units."""
        return (self.distances[:, 1:] + self.distances[:, :-1]) / 2

    @property
    def points(self) -> Float[Tensor, "n k 3"]:
        """The intervals' middles in the scene frame."""
        along = self.rays.directions[:, None] * self.middles[..., None]
        return self.rays.origins[:, None] + along


@dataclass(frozen=True)
class Shading:
    """A field in each interval."""

    density: Float[Tensor, "n k"]
    """Per scene unit."""
    rgb: Float[Tensor, "n k 3"]
    relevance: Float[Tensor, "n k"] | None


def sample(scene: Scene, rays: Rays, draw: torch.Generator | None = None) -> Samples:
    """Intervals along rays [n, 3]: even ones first, then shares of what the proposal sees.

    Args:
        draw: jitters the intervals; None places them the same way every time.
    """
    settings, field = scene.settings, scene.radiance
    radius = None if scene.unbounded else settings.radius
    near = torch.full_like(rays.origins[:, :1], settings.near)
    if scene.unbounded:
        to_ball = rays.origins.norm(dim=-1, keepdim=True) - 1
        near = torch.maximum(near, settings.approach * to_ball)
    place = spacing(rays, near, settings.far, radius)
    closed = scene.background == "scene"

    edges = even_edges(len(rays.origins), settings.proposal_samples, draw, rays.origins)
    distances = place.distance(edges)
    middles = (distances[:, 1:] + distances[:, :-1]) / 2
    points = rays.origins[:, None] + rays.directions[:, None] * middles[..., None]
    density = field.proposed_density(points)
    weights = rendering_weights(density, distances[:, 1:] - distances[:, :-1], closed=closed)

    with torch.no_grad():
        fine = refine(
            edges, weights.detach() + _PADDING / settings.proposal_samples, settings.samples, draw
        )
    return Samples(rays, fine, place.distance(fine), edges, weights, closed)


def shade(scene: Scene, samples: Samples) -> Shading:
    """Density, colour and relevance in the intervals' middles."""
    points = samples.points
    density, features = scene.radiance.density(points)
    directions = samples.rays.directions[:, None].expand_as(points)
    rgb = scene.radiance.colour(features, directions)
    relevance = None if scene.relevance is None else scene.relevance(points)
    return Shading(density, rgb, relevance)


def composite(
    samples: Samples, shading: Shading, background: Background
) -> tuple[Rendering, Float[Tensor, "n k"]]:
    """What the rays show, and the rendering weights w_i."""
    weights = rendering_weights(shading.density, samples.lengths, closed=samples.closed)
    opacity = weights.sum(1)
    rgb = accumulate(weights, shading.rgb)
    if background == "white":
        rgb = rgb + (1 - opacity)[:, None]
    depth = (weights * samples.middles).sum(1)
    relevance = None
    if shading.relevance is not None:
        relevance = (weights.detach() * shading.relevance).sum(1)
    return Rendering(rgb, depth, opacity, relevance), weights


def render_rays(scene: Scene, rays: Rays, *, draw: torch.Generator | None = None) -> Rendering:
    """What rays [*b, 3] show; differentiable.

    Args:
        draw: jitters the intervals; None places them the same way every time.
    """
    shape = rays.origins.shape[:-1]
    flat = Rays(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
    samples = sample(scene, flat, draw)
    shown, _ = composite(samples, shade(scene, samples), scene.background)
    return Rendering(
        shown.rgb.reshape(*shape, 3),
        shown.depth.reshape(shape),
        shown.opacity.reshape(shape),
        None if shown.relevance is None else shown.relevance.reshape(shape),
    )


@torch.no_grad()
def render(scene: Scene, camera: Camera, *, chunk: int = 4096) -> Rendering:
    """What one camera sees: rgb [3, h, w], the others [1, h, w], float32 on the CPU.

    Args:
        chunk: rays at once.
    """
    rays = camera.rays()
    origins, directions = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    parts = []
    for o, d in zip(origins.split(chunk), directions.split(chunk), strict=True):
        part = render_rays(scene, Rays(o.to(scene.device), d.to(scene.device)))
        columns = [part.rgb, part.depth[:, None], part.opacity[:, None]]
        if part.relevance is not None:
            columns.append(part.relevance[:, None])
        parts.append(torch.cat(columns, dim=1).float().cpu())
    image = torch.cat(parts).T.reshape(-1, camera.height, camera.width)
    return Rendering(image[:3], image[3:4], image[4:5], image[5:6] if len(image) > 5 else None)
