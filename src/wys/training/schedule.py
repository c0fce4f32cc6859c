"""Learning rate as a function of images seen."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then half a cosine down to a fraction of the peak (Loshchilov 2017).

    The unit is images, not steps, so that the batch size may change on the way. Training that is
    resumed with a larger total takes the rate of the longer schedule at the same number of images.
    """

    total: int
    """Images that training sees in all."""
    peak: float = 1e-3
    """The highest learning rate."""
    warmup: int = 10_000
    """Images over which the rate rises from 0 to the peak."""
    final: float = 0.05
    """The last learning rate, as a fraction of the peak."""

    def rate(self, images: int) -> float:
        """The learning rate of the step that begins after `images` images."""
        if images < self.warmup:
            return self.peak * (images + 1) / self.warmup
        progress = min((images - self.warmup) / max(self.total - self.warmup, 1), 1.0)
        cosine = (1 + math.cos(math.pi * progress)) / 2
        return self.peak * (self.final + (1 - self.final) * cosine)
