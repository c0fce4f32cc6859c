"""Whether the edit of a scene gets anywhere: its first edits and what the field makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.camera import Camera, Rays
from wys.errors import WysError
from wys.masks import Mask
from wys.nerf.rendering import render_rays
from wys.nerf.scene import Scene

_PIXELS = 1024
"""Pixels of a view that are watched at most: enough to tell, and a view has many times as many."""


class Watchdog:
    """Stops an edit that goes nowhere: nothing is changed, or the field does not follow.

    Args:
        count: edits that are watched; 0 watches none.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.watched: list[tuple[Rays, Tensor, Tensor]] = []
        """Rays of each watched edit, what the field showed there, and what it is to show."""
        self.changes: list[float] = []
        self.rounds = 0
        self.settled = count == 0

    def state(self) -> dict[str, Tensor]:
        """What it has noted, as named tensors, for `restore`; nothing once it is settled."""
        if self.settled:
            return {}
        noted = {
            f"{name}.{i}": values
            for i, (rays, shown, edit) in enumerate(self.watched)
            for name, values in (
                ("origins", rays.origins),
                ("directions", rays.directions),
                ("shown", shown),
                ("edit", edit),
            )
        }
        changes = torch.tensor(self.changes, dtype=torch.float64)
        return noted | {"changes": changes, "rounds": torch.tensor(self.rounds)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` gave."""
        self.settled = "rounds" not in state
        if self.settled:
            return
        self.rounds, self.changes = int(state["rounds"]), state["changes"].tolist()
        self.watched = [
            (
                Rays(state[f"origins.{i}"], state[f"directions.{i}"]),
                state[f"shown.{i}"],
                state[f"edit.{i}"],
            )
            for i in range(len(self.changes))
        ]

    @property
    def watching(self) -> bool:
        """Whether there are not enough edits yet."""
        return not self.settled and len(self.watched) < self.count

    def edited(
        self,
        photograph: Float[Tensor, "3 h w"],
        edit: Float[Tensor, "3 h w"],
        mask: Mask,
        camera: Camera,
        scene: Scene,
    ) -> None:
        """Notes an edit of a photograph, before the scene has taken any of it up.

        Raises:
            WysError: none of the first edits changes anything inside the mask.
        """
        region = mask.at(mask.image_size)[0, 0]
        if not self.watching or not bool(region.any()):
            return
        chosen = _some(region)
        rays = camera.rays()
        watched = Rays(rays.origins.reshape(-1, 3)[chosen], rays.directions.reshape(-1, 3)[chosen])
        self.watched.append((watched, _colours(scene, watched), edit.flatten(1).T[chosen].cpu()))
        self.changes.append(float((edit - photograph).abs()[:, region].mean()))
        if len(self.watched) == self.count and max(self.changes) < 1 / 255:
            raise WysError(
                "the edits change nothing inside the region; raise the text guidance, or say the "
                "instruction in other words."
            )

    def stepped(self, scene: Scene) -> None:
        """Checks, once `count` edits are noted and twice as many rounds of steps are done.

        Raises:
            WysError: the field's renders have not moved towards the edits.
        """
        self.rounds += 1
        if self.settled or len(self.watched) < self.count or self.rounds < 2 * self.count:
            return
        self.settled = True
        wanted, left = 0.0, 0.0
        for rays, shown, edit in self.watched:
            wanted += float((edit - shown).abs().mean())
            left += float((edit - _colours(scene, rays)).abs().mean())
        if left > 0.98 * wanted:
            raise WysError(
                f"the scene does not take the edits up ({self.rounds} rounds of steps brought its "
                "renders no nearer to them); raise --every or --rate."
            )


def _some(region: Bool[Tensor, "h w"]) -> Int[Tensor, " n"]:
    """Up to `_PIXELS` pixels of a region, evenly spread, as numbers of the flattened view."""
    inside = region.flatten().nonzero()[:, 0].cpu()
    return inside[:: -(-len(inside) // _PIXELS)]


@torch.no_grad()
def _colours(scene: Scene, rays: Rays) -> Float[Tensor, "n 3"]:
    """What the field shows along rays, on the CPU."""
    there = Rays(rays.origins.to(scene.device), rays.directions.to(scene.device))
    return render_rays(scene, there).rgb.float().cpu()
