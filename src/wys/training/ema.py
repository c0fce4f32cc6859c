"""Exponential moving average of weights."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def decay_at(step: int, decay: float) -> float:
    """The decay of step 1, 2, ...: short at first, min(decay, (1 + step) / (10 + step))."""
    return min(decay, (1 + step) / (10 + step))


class Ema:
    """average <- d * average + (1 - d) * weights after every step, d as `decay_at` gives it.

    Args:
        parameters: the weights to follow; the average starts as a copy of them.
        decay: the largest decay.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float = 0.999) -> None:
        self.parameters = list(parameters)
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after step number `step` (the first is 1)."""
        torch._foreach_lerp_(self.average, self.parameters, 1 - decay_at(step, self.decay))

    @torch.no_grad()
    def copy_to_parameters(self) -> None:
        """The parameters take the average's values for good."""
        torch._foreach_copy_(self.parameters, self.average)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context the parameters hold the average; their values come back after."""
        kept = [parameter.detach().clone() for parameter in self.parameters]
        self.copy_to_parameters()
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, kept)
