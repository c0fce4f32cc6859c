"""The user's networks that judge images, beside the measures that need none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from wys.diffusion.clip import Clip
from wys.evaluation.clip_metrics import clip_measures
from wys.evaluation.lpips import Lpips

NAMES = ("clip_image", "clip_truth", "clip_direction", "lpips")


@dataclass(frozen=True)
class Judges:
    """Networks that are at hand; what the others would say is left out."""

    clip: Clip | None = None
    lpips: Lpips | None = None

    def measures(
        self,
        image: Float[Tensor, "b 3 h w"],
        before: Float[Tensor, "b 3 h w"],
        after: Float[Tensor, "b 3 h w"] | None,
        captions: Sequence[tuple[str, str] | None],
    ) -> Mapping[str, Float[Tensor, " b"]]:
        """What they say of edited images: those of `clip_measures`, and `lpips`, the distance to
        the true edit (0 is best), which is left out where that is not known."""
        found: dict[str, Float[Tensor, " b"]] = {}
        if self.clip is not None:
            found |= clip_measures(self.clip, image, before, after, captions)
        if self.lpips is not None and after is not None:
            found["lpips"] = self.lpips.distance(image, after)
        return found


NO_JUDGES = Judges()
"""The exact measures alone."""
