"""How much memory a job takes at most."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psutil
import torch


class PeakMemory:
    """The most memory in use while the context is open, in MB.

    On CUDA what torch has allocated; elsewhere the process's resident memory, looked at every five
    milliseconds.
    """

    def __init__(self, device: torch.device, resident: Callable[[], int] | None = None) -> None:
        """Watches `device`; `resident` tells the process's memory in bytes, psutil's by default."""
        self.device = device
        self._resident = resident or (lambda: psutil.Process().memory_info().rss)
        self.megabytes = 0.0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.megabytes = torch.cuda.max_memory_allocated(self.device) / 2**20
        else:
            self._over.set()
            self._watcher.join()

    def _watch(self) -> None:
        while True:
            self.megabytes = max(self.megabytes, self._resident() / 2**20)
            if self._over.wait(0.005):
                return
