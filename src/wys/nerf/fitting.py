"""Fitting a scene to photographs, and its relevance field to relevance maps.

All randomness of a step is a function of (seed, step), so that a fit that was interrupted goes on
as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from wys.camera import Camera, Rays
from wys.errors import WysError
from wys.nerf.intervals import distortion_loss, interlevel_loss
from wys.nerf.rendering import Samples, Shading, composite, sample, shade
from wys.nerf.scene import Scene
from wys.nerf.volume import rendering_weights
from wys.seeds import generator
from wys.views import ViewSet

_FEW = 16
"""So many photographs leave much of space open."""
MOST_RAYS = 1_000_000
"""Of a step: more do not fit into any memory."""


@dataclass(frozen=True)
class FitSettings:
    """How a scene is fitted to photographs."""

    iterations: int = 2000
    """Optimiser steps."""
    rays: int = 512
    """Rays of a step."""
    rate: float = 2e-2
    """Highest learning rate of the field."""
    proposal_rate: float = 5e-2
    """Highest learning rate of the proposal."""
    final: float = 0.03
    """Last learning rate, as a share of the highest; half a cosine leads there."""
    warmup: int = 20
    """Steps over which the learning rate rises."""
    loss: Literal["l2", "l1", "huber"] = "l2"
    """Of the colours; huber: squared up to 0.1, then linear."""
    interlevel: float = 1.0
    """Weight of the interlevel loss, which trains the proposal."""
    distortion: float = 2e-3
    """Weight of the distortion loss, which gathers the density of a ray in one place."""
    decay: float = 2.0
    """Weight of the mean square of each grid's features, less where photographs are many: what few
    leave open stays plain, instead of filling with specks that each explain one."""

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 1 <= self.rays <= MOST_RAYS or self.warmup < 0:
            raise WysError(
                f"a fit needs at least 1 iteration, and 1 to {MOST_RAYS:,} rays in a step."
            )
        rates = all(0 < rate < math.inf for rate in (self.rate, self.proposal_rate))
        if not rates or not 0 < self.final <= 1:
            raise WysError("learning rates are above 0, and final is a share above 0, up to 1.")
        weights = (self.interlevel, self.distortion, self.decay)
        if not all(0 <= weight < math.inf for weight in weights):
            raise WysError("the weights of a fit's losses are numbers of at least 0.")

    def share(self, iteration: int) -> float:
        """The learning rate of a step as a share of the highest (Loshchilov 2017)."""
        rise = min(1.0, (iteration + 1) / (self.warmup + 1))
        progress = min(1.0, iteration / self.iterations)
        fall = self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
        return rise * fall


@dataclass(frozen=True)
class Pixels:
    """Rays and the colours that they should show."""

    rays: Rays
    """[n, 3] each."""
    rgb: Float[Tensor, "n 3"]


def draw_pixels(
    images: UInt8[Tensor, "n 3 h w"],
    cameras: Camera,
    count: int,
    draw: torch.Generator,
    *,
    among: Int[Tensor, " k"] | None = None,
    share: float = 0.5,
) -> Pixels:
    """Pixels of any of the images, with their rays, on the CPU.

    Args:
        cameras: batch n, of the images' size.
        among: this `share` of the pixels is drawn from these, which are counted through all images
            row by row (a mask's `flatten().nonzero()`), the others from everywhere.
    """
    view, row, column = _draw_places(images, count, draw, among, share)
    rays = pixel_rays(cameras, view, row, column)
    return Pixels(rays, images[view, :, row, column].to(torch.float32) / 255)


def _draw_places(
    images: Tensor, count: int, draw: torch.Generator, among: Tensor | None, share: float
) -> tuple[Tensor, Tensor, Tensor]:
    n, _, height, width = images.shape
    flat = torch.randint(n * height * width, (count,), generator=draw)
    if among is not None and len(among):
        special = round(share * count)
        flat[:special] = among[torch.randint(len(among), (special,), generator=draw)]
    return flat // (height * width), flat // width % height, flat % width


def pixel_rays(cameras: Camera, view: Tensor, row: Tensor, column: Tensor) -> Rays:
    """The rays through the centres of single pixels, given by view, row and column [n]."""
    own = cameras[view]
    pixels = torch.stack([column, row], dim=-1) + 0.5
    directions = own.pixel_directions(pixels[:, None].to(own.intrinsics))[:, 0]
    return Rays(own.centre, F.normalize(directions, dim=-1))


def _on(device: torch.device, rays: Rays) -> Rays:
    return Rays(rays.origins.to(device), rays.directions.to(device))


class Fitter:
    """A scene's radiance field on its way: optimiser and position.

    Args:
        scene: is changed by the steps; its relevance field is not.
        seed: with the step's number, decides all randomness.
        rate: a constant learning rate of the field instead of the settings' schedule (the
            proposal's keeps its proportion to it).
    """

    def __init__(
        self, scene: Scene, settings: FitSettings, seed: int, *, rate: float | None = None
    ) -> None:
        self.scene, self.settings, self.seed, self.rate = scene, settings, seed, rate
        self.iteration = 0
        self._named = dict(scene.radiance.named_parameters())
        proposal = [p for name, p in self._named.items() if name.startswith("proposal.")]
        others = [p for name, p in self._named.items() if not name.startswith("proposal.")]
        self._highest = (settings.rate, settings.proposal_rate)
        self._optimiser = torch.optim.Adam(
            [{"params": others}, {"params": proposal}],
            lr=settings.rate,
            betas=(0.9, 0.99),
            eps=1e-15,
            fused=True,
        )

    def step(
        self,
        images: UInt8[Tensor, "n 3 h w"],
        cameras: Camera,
        *,
        among: Int[Tensor, " k"] | None = None,
        share: float = 0.5,
    ) -> dict[str, float]:
        """One optimiser step on rays of the images; the losses by name.

        Args:
            among, share: as of `draw_pixels`.
        """
        draw = generator(self.seed, self.iteration, "fit step")
        pixels = draw_pixels(images, cameras, self.settings.rays, draw, among=among, share=share)
        losses = self.losses(pixels, draw)
        torch.stack(list(losses.values())).sum().backward()
        self._decay(len(images))
        factor = self.settings.share(self.iteration)
        if self.rate is not None:
            factor = self.rate / self.settings.rate
        for group, highest in zip(self._optimiser.param_groups, self._highest, strict=True):
            group["lr"] = highest * factor
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self.iteration += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def losses(self, pixels: Pixels, draw: torch.Generator | None) -> dict[str, Tensor]:
        """The weighted losses of a batch of pixels, by name; their sum is minimised."""
        samples = sample(self.scene, _on(self.scene.device, pixels.rays), draw)
        shading = shade(self.scene, samples)
        if self.scene.unbounded:
            _calm_near(samples, shading)
        shown, weights = composite(samples, shading, self.scene.background)
        return {
            "colour": _colour_loss(shown.rgb, pixels.rgb.to(shown.rgb), self.settings.loss),
            **self._regularisers(samples, weights),
        }

    def _regularisers(self, samples: Samples, weights: Tensor) -> dict[str, Tensor]:
        interlevel = interlevel_loss(
            samples.proposed_edges, samples.proposed_weights, samples.edges, weights
        )
        return {
            "interlevel": self.settings.interlevel * interlevel,
            "distortion": self.settings.distortion * distortion_loss(samples.edges, weights),
        }

    @torch.no_grad()
    def _decay(self, photographs: int) -> None:
        """Adds the gradient of the sum over the grids of their mean square, weighted.

        Normalised weight decay (Barron et al., "Zip-NeRF", arXiv 2304.06706): a mean over each
        grid, so that coarse grids are held as firmly as fine ones. From `_FEW` photographs on the
        weight falls with the fourth power of their number: thirty-seven need hardly any of it.
        """
        grid = self.scene.radiance.grid
        if self.settings.decay and grid.table.grad is not None:
            weight = self.settings.decay * min(1.0, _FEW / photographs) ** 4
            grid.table.grad.add_(grid.table, alpha=2 * weight * grid.levels / grid.table.numel())

    def state(self) -> dict[str, Tensor]:
        """Everything that `restore` needs to go on exactly: weights, moments, position."""
        tensors = {"iteration": torch.tensor(self.iteration)}
        for name, parameter in self._named.items():
            tensors[f"weight.{name}"] = parameter.detach().clone()
            for key, value in self._optimiser.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = value.detach().clone()
        return tensors

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on from a `state` of a fitter with the same settings and seed.

        Raises:
            WysError: the state belongs to a field of other settings.
        """
        fits = {k.removeprefix("weight.") for k in state if k.startswith("weight.")}
        if fits != set(self._named) or any(
            state[f"weight.{name}"].shape != parameter.shape
            for name, parameter in self._named.items()
        ):
            raise WysError("the saved state belongs to other settings; start the fit again.")
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(state[f"weight.{name}"])
                own = self._optimiser.state[parameter]
                own.clear()
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    if f"{key}.{name}" in state:
                        own[key] = state[f"{key}.{name}"].to(parameter.device).clone()
        self.iteration = int(state["iteration"])


def _calm_near(samples: Samples, shading: Shading) -> None:
    """Scales the gradients of what lies near the cameras by the square of its distance.

    Space close to a camera is sampled far more densely than the rest and would fill with floating
    specks (Philip and Deschaintre, "Floaters No More", arXiv 2305.02756, equation 8).
    """
    factor = samples.middles.detach().square().clamp(max=1)
    for values, scale in ((shading.density, factor), (shading.rgb, factor[..., None])):
        if values.requires_grad:
            values.register_hook(lambda gradient, scale=scale: gradient * scale)


def _colour_loss(shown: Tensor, true: Tensor, kind: Literal["l2", "l1", "huber"]) -> Tensor:
    if kind == "l1":
        return (shown - true).abs().mean()
    if kind == "huber":
        return F.huber_loss(shown, true, delta=0.1)
    return (shown - true).square().mean()


@dataclass(frozen=True)
class FitStep:
    """One optimiser step is done."""

    iteration: int
    """Steps done, of `count`."""
    count: int
    losses: dict[str, float]
    """Weighted losses of the step by name."""
    seconds: float
    """Since the fit (or its continuation) began."""


def fit(
    scene: Scene,
    views: ViewSet,
    settings: FitSettings,
    seed: int,
    fitter: Fitter | None = None,
) -> Iterator[FitStep]:
    """Fits the scene to the views' current images, one step at a time.

    Args:
        fitter: goes on from where this one is, instead of from the start.
    """
    fitter = fitter or Fitter(scene, settings, seed)
    images, cameras = views.images, views.cameras
    started = time.perf_counter()
    while fitter.iteration < settings.iterations:
        losses = fitter.step(images, cameras)
        seconds = time.perf_counter() - started
        yield FitStep(fitter.iteration, settings.iterations, losses, seconds)


@dataclass(frozen=True)
class RelevanceFitSettings:
    """How a relevance field is fitted to relevance maps."""

    iterations: int = 60
    """Optimiser steps."""
    rays: int = 1024
    """Rays of a step."""
    traced: int = 16
    """Steps on new rays. Density stays as it is, so that where their rays end is known; later steps
    go through them again, at a fraction of the cost."""
    rate: float = 5e-2
    """Learning rate."""

    def __post_init__(self) -> None:
        if min(self.iterations, self.rays, self.traced) < 1 or self.rate <= 0:
            raise WysError(
                "a relevance fit needs at least 1 iteration, 1 ray, 1 traced step and a rate above "
                "0."
            )


def fit_relevance(
    scene: Scene, views: ViewSet, settings: RelevanceFitSettings, seed: int
) -> Iterator[FitStep]:
    """Fits the scene's relevance field to the views whose relevance map is known.

    The loss is the mean squared error of the rendered relevance. Density and colour stay what they
    are, bit for bit.

    Raises:
        WysError: the scene has no relevance field, or no view a map.
    """
    field = scene.relevance
    if field is None:
        raise WysError("the scene has no relevance field; make one with scene.with_relevance().")
    known = [i for i, values in enumerate(views.relevance) if values is not None]
    if not known:
        raise WysError("no view has a relevance map to fit to.")
    height, width = views.size
    maps = torch.cat(
        [
            F.interpolate(values[None].float(), (height, width), mode="bilinear")
            for values in views.relevance
            if values is not None
        ]
    )
    cameras = views.cameras[torch.tensor(known)]
    optimiser = torch.optim.Adam(
        field.parameters(), lr=settings.rate, betas=(0.9, 0.99), fused=True
    )
    started = time.perf_counter()
    traced: list[tuple[Tensor, Tensor, Tensor]] = []
    for iteration in range(settings.iterations):
        if iteration < settings.traced:
            draw = generator(seed, iteration, "relevance step")
            traced.append(_trace(scene, cameras, maps, settings.rays, draw))
        points, weights, known_there = traced[iteration % settings.traced]
        shown = (weights * field(points)).sum(1)
        loss = F.mse_loss(shown, known_there)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - started
        yield FitStep(
            iteration + 1, settings.iterations, {"relevance": float(loss.detach())}, seconds
        )


@torch.no_grad()
def _trace(
    scene: Scene,
    cameras: Camera,
    maps: Float[Tensor, "n 1 h w"],
    count: int,
    draw: torch.Generator,
) -> tuple[Float[Tensor, "r k 3"], Float[Tensor, "r k"], Float[Tensor, " r"]]:
    """Points along random rays, their rendering weights, and the relevance that each ray shows."""
    view, row, column = _draw_places(maps, count, draw, None, 0)
    samples = sample(scene, _on(scene.device, pixel_rays(cameras, view, row, column)), draw)
    density, _ = scene.radiance.density(samples.points)
    weights = rendering_weights(density, samples.lengths, closed=samples.closed)
    return samples.points, weights, maps[view, 0, row, column].to(scene.device)
