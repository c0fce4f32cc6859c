"""Whether the edit of a scene gets anywhere: its first edits and what the field makes of them."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from wys.camera import Camera
from wys.errors import WysError
from wys.masks import Mask
from wys.nerf.rendering import render
from wys.nerf.scene import Scene


class Watchdog:
    """Stops an edit that goes nowhere: nothing is changed, or the field does not follow.

    Args:
        count: edits that are watched; 0 watches none.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.watched: list[tuple[Tensor, Tensor, Tensor, Camera]] = []
        self.changes: list[float] = []
        self.rounds = 0
        self.settled = count == 0

    @property
    def watching(self) -> bool:
        """Whether there are not enough edits yet."""
        return not self.settled and len(self.watched) < self.count

    def edited(
        self,
        photograph: Float[Tensor, "3 h w"],
        shown: Float[Tensor, "3 h w"],
        edit: Float[Tensor, "3 h w"],
        mask: Mask,
        camera: Camera,
    ) -> None:
        """Notes an edit: the photograph, what the field showed, and what it is to show.

        Raises:
            WysError: none of the first edits changes anything inside the mask.
        """
        region = mask.at(mask.image_size)[0, 0]
        if not self.watching or not bool(region.any()):
            return
        self.watched.append((shown, edit, region, camera))
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
        for shown, edit, region, camera in self.watched:
            now = render(scene, camera).rgb
            wanted += float((edit - shown).abs()[:, region].mean())
            left += float((edit - now).abs()[:, region].mean())
        if left > 0.98 * wanted:
            raise WysError(
                f"the scene does not take the edits up ({self.rounds} rounds of steps brought its "
                "renders no nearer to them); raise --every or --rate."
            )
