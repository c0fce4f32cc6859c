"""The peak of readings, and of this process."""

import threading

import torch

from wys.evaluation.peak_memory import PeakMemory


def test_peak_memory_is_the_highest_reading() -> None:
    readings = iter([100, 300, 200])
    all_read = threading.Event()

    def resident() -> int:
        megabytes = next(readings, None)
        if megabytes is None:
            all_read.set()
        return (megabytes or 50) * 2**20

    with PeakMemory(torch.device("cpu"), resident) as memory:
        assert all_read.wait(30)
    assert memory.megabytes == 300


def test_peak_memory_reads_this_process() -> None:
    with PeakMemory(torch.device("cpu")) as memory:
        pass
    assert memory.megabytes > 50  # python and torch alone take more
