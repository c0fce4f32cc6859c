"""Randomness as a function of (seed, item, purpose), so that no result depends on its batch.

Every random tensor is drawn on the CPU, one generator per item: the same item has the same noise
alone or in a batch, today or in another process, on any device.
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def generator(
    seed: int, item: int | str, purpose: str, device: str | torch.device = "cpu"
) -> torch.Generator:
    """The random generator of one item for one purpose.

    Args:
        seed: the run's seed.
        item: the item's number or name, its identity in every batch that holds it.
        purpose: what the numbers are for, such as "start noise"; purposes are independent.
    """
    digest = hashlib.sha256(repr((int(seed), str(item), purpose)).encode()).digest()
    # 63 bits: manual_seed takes a signed 64-bit integer.
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def normal(
    shape: Sequence[int], seed: int, items: Sequence[int | str], purpose: str
) -> Float[Tensor, "b *shape"]:  # noqa: F821 (a shape)
    """Standard normal noise, float32 on the CPU; row i is a function of (seed, items[i], purpose).

    Args:
        shape: the shape of one item's noise, without the batch axis.
        items: the identities of the batch's items.
    """
    # In place: whatever the user's program has made torch's defaults, it is float32 on the CPU.
    noise = torch.empty((len(items), *shape), dtype=torch.float32, device="cpu")
    for row, item in zip(noise, items, strict=True):
        row.normal_(generator=generator(seed, item, purpose))
    return noise
