"""A scene and edits of it, rendered as one: each field holds inside its own region of space.

A point takes density and colour of the last edit whose region contains it, and of the fitted field
where none does. A ray that does not meet what an edit may change is rendered with the samples and
weights that it had before, so that it comes out the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from wys.camera import Camera, Rays
from wys.nerf.region import Region, region_mask
from wys.nerf.rendering import Rendering, Samples, Shading, composite, render, sample, shade
from wys.nerf.scene import Scene


@dataclass(frozen=True)
class Look:
    """What a scene shows after some of its edits, from any camera."""

    fields: tuple[tuple[Scene, Region | None], ...]
    """The fitted field (with None), then that of each edit with the region that it may change;
    None: all of space."""

    @property
    def scene(self) -> Scene:
        """The field of the last edit."""
        return self.fields[-1][0]

    @property
    def has_relevance(self) -> bool:
        return self.scene.relevance is not None

    def to(self, device: torch.device | str) -> Look:
        """The same on another device."""
        return Look(tuple((scene.to(device), region) for scene, region in self.fields))

    def with_scene(self, scene: Scene) -> Look:
        """The same with another field for the last edit."""
        return Look((*self.fields[:-1], (scene, self.fields[-1][1])))

    def with_layer(self, scene: Scene, region: Region | None) -> Look:
        """The same after one more edit."""
        return Look((*self.fields, (scene, region)))

    def __call__(self, camera: Camera, *, chunk: int = 4096) -> Rendering:
        """What one camera sees: rgb [3, h, w], the others [1, h, w], float32 on the CPU.

        The relevance is that of the last edit.

        Args:
            chunk: rays at once.
        """
        *_, shown = Look(self._visible).stages(camera, chunk=chunk)
        return shown

    def stages(self, camera: Camera, *, chunk: int = 4096) -> Iterator[Rendering]:
        """What one camera sees with the first field alone, with the first two, up to all of them.

        Each differs from the one before in those pixels alone that look at what the edit may
        change, and has the relevance of the last edit.
        """
        relevance = self.scene.relevance
        shown: Rendering | None = None
        first = 0
        for last, (scene, region) in enumerate(self.fields):
            if region is None:
                whole = Scene(scene.radiance, relevance, background=scene.background)
                shown, first = render(whole, camera, chunk=chunk), last
            else:
                assert shown is not None
                changed = region.seen_by(camera, shown.surface)[0]
                if bool(changed.any()):
                    stack = Look(self.fields[first : last + 1])
                    shown = stack._over(shown, camera, changed, relevance, chunk)
            yield shown

    @property
    def _visible(self) -> tuple[tuple[Scene, Region | None], ...]:
        """The fields from the last one of all of space: it hides those before."""
        first = max(i for i, (_, region) in enumerate(self.fields) if region is None)
        return self.fields[first:]

    def sees(self, region: Region, camera: Camera) -> Bool[Tensor, "1 h w"]:
        """The pixels of one camera that look at a region, past what stands in front of it now."""
        if len(self._visible) == 1:
            return region_mask(self.scene, region, camera)
        return region.seen_by(camera, self(camera).surface)

    @torch.no_grad()
    def _over(
        self,
        shown: Rendering,
        camera: Camera,
        changed: Bool[Tensor, "h w"],
        relevance: torch.nn.Module | None,
        chunk: int,
    ) -> Rendering:
        """`shown` with the pixels in `changed` rendered from all fields."""
        rays, device = camera.rays(), self.scene.device
        origins, directions = rays.origins[changed], rays.directions[changed]
        parts = []
        for o, d in zip(origins.split(chunk), directions.split(chunk), strict=True):
            samples = self._samples(Rays(o.to(device), d.to(device)))
            shading = self._shade(samples)
            if relevance is not None:
                shading = replace(shading, relevance=relevance(samples.points))
            parts.append(composite(samples, shading, self.scene.background)[0])

        def put(name: str) -> Tensor:
            image = getattr(shown, name).clone()
            values = torch.cat([getattr(part, name) for part in parts]).float().cpu()
            image[:, changed] = values.reshape(len(values), -1).T
            return image

        return Rendering(
            rgb=put("rgb"),
            depth=put("depth"),
            opacity=put("opacity"),
            relevance=None if relevance is None else put("relevance"),
        )

    def _samples(self, rays: Rays) -> Samples:
        """The intervals that all fields ask for, cut into each other."""
        each = [sample(scene, rays) for scene, _ in self.fields]
        return replace(
            each[0],
            edges=torch.cat([s.edges for s in each], dim=1).sort(dim=1).values,
            distances=torch.cat([s.distances for s in each], dim=1).sort(dim=1).values,
        )

    def _shade(self, samples: Samples) -> Shading:
        """Every interval by the field that holds there."""
        shading = replace(shade(self.fields[0][0], samples), relevance=None)
        points = samples.points
        for scene, region in self.fields[1:]:
            assert region is not None
            own = shade(scene, samples)
            inside = replace(region, inside=region.inside.to(points.device)).contains(points)
            shading = Shading(
                density=torch.where(inside, own.density, shading.density),
                rgb=torch.where(inside[..., None], own.rgb, shading.rgb),
                relevance=None,
            )
        return shading
