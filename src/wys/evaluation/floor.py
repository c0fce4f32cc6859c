"""How fast a job could be: its operations at the best rate that the machine reaches.

The operations are those of convolutions and matrix products, which torch counts while the job runs;
the rate is that of one large product, or one convolution, in the same run and number format.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from wys.devices import finish


def operations(job: Callable[[], object]) -> int:
    """Multiplications and additions of a job's convolutions and matrix products; runs it once."""
    with FlopCounterMode(display=False) as counter:
        job()
    return int(counter.get_total_flops())


@torch.no_grad()
def best_rate(device: torch.device, dtype: torch.dtype, tries: int = 3) -> float:
    """Operations a second of a matrix product or a convolution, whichever is faster."""
    # Large enough to keep the machine busy, small enough for a turn of a second.
    side = 1024 if device.type == "cpu" else 4096
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    image = torch.randn(4, 128, side // 16, side // 16, device=device, dtype=dtype)
    kernel = torch.randn(128, 128, 3, 3, device=device, dtype=dtype)
    jobs: tuple[Callable[[], object], ...] = (
        lambda: a @ b,
        lambda: torch.nn.functional.conv2d(image, kernel, padding=1),
    )
    rates = []
    for job in jobs:
        count = operations(job)
        for _ in range(tries):
            started = time.perf_counter()
            job()
            finish(device)
            rates.append(count / (time.perf_counter() - started))
    return max(rates)
