"""How long a map and an edit take, against others with the same networks in the same run.

The jobs take turns, and the median of the turns counts, so that what else the machine does falls on
all of them. An edit is of the whole image: nothing is cropped, and every step is run.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch

from wys.diffusion.baselines import diffusers_edit, published_edit, published_relevance
from wys.diffusion.editor import Editor
from wys.errors import WysError
from wys.image import resize
from wys.image_edit import edit_image, relevance_map
from wys.seeds import normal
from wys.tabletop.pairs import make_pairs
from wys.tabletop.world import PLAIN


@dataclass(frozen=True)
class SpeedSettings:
    """What is timed."""

    size: int | None = None
    """Side of the square image in pixels; the editor's own if not given."""
    steps: int = 20
    """Denoising steps of the edits."""
    repeats: int = 5
    """Turns of each job; the median counts."""
    seed: int = 0
    """Seed of the image and the noise."""

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.steps < 1:
            raise WysError("a speed bench needs at least 1 repeat and 1 step.")


@dataclass(frozen=True)
class SpeedStep:
    """One run of one job is done."""

    done: int
    count: int
    rows: list[dict[str, Any]] | None = None
    """The rows of the bench, on the last step only."""


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


def timed(job: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds that a job takes, its work on the GPU included, and its peak memory in MB."""
    with PeakMemory(device) as memory:
        started = time.perf_counter()
        job()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    return seconds, memory.megabytes


def jobs(editor: Editor, settings: SpeedSettings) -> dict[str, Callable[[], object]]:
    """What is timed, on one image: our map and edit, and those of the others."""
    size = settings.size or editor.native_size
    pairs = make_pairs(settings.seed, "test", 0, 1, size=size, scene_range=PLAIN)
    image, words = pairs.before, pairs.instructions
    fitted = resize(image, editor.fit((size, size)))
    z0 = editor.condition(fitted, words).z0
    noise = normal(z0.shape[1:], settings.seed, [0], "speed")
    guidance = editor.settings.edit.guidance
    how = replace(editor.settings.relevance, draws=1, timesteps=(0.8,))
    edit = replace(editor.settings.edit, steps=settings.steps, start=1.0)
    everywhere = replace(how, threshold=0.0)
    return {
        "relevance": lambda: relevance_map(editor, image, words, how, seed=settings.seed),
        "edit": lambda: edit_image(
            editor,
            image,
            words,
            edit,
            relevance_settings=everywhere,
            force=True,
            seed=settings.seed,
        ),
        "diffusers": lambda: diffusers_edit(editor, fitted, words, guidance, settings.steps, noise),
        "published relevance": lambda: published_relevance(editor, fitted, words, noise),
        "published edit": lambda: published_edit(
            editor, fitted, words, guidance, settings.steps, noise
        ),
    }


def speed_bench(editor: Editor, settings: SpeedSettings) -> Iterator[SpeedStep]:
    """Times the jobs in turns, one step for each run.

    The rows are those of `relevance` (one draw) and `edit`. The ratios are our seconds over theirs.
    diffusers has no map: the ratio of `relevance` to it is the share of its edit that a map costs.
    """
    tasks = jobs(editor, settings)
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    peaks: dict[str, list[float]] = {name: [] for name in tasks}
    count = len(tasks) * (settings.repeats + 1)
    done = 0
    for turn in range(settings.repeats + 1):
        for name, job in tasks.items():
            taken, peak = timed(job, editor.device)
            # The first turn warms up: memory pools, kernels that are chosen by trial.
            if turn > 0:
                seconds[name].append(taken)
                peaks[name].append(peak)
            done += 1
            yield SpeedStep(done, count)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    rows = [
        {
            "name": name,
            "seconds": median[name],
            "ratio_to_diffusers": median[name] / median["diffusers"],
            "ratio_to_published": median[name] / median[f"published {name}"],
            "peak_mb": max(peaks[name]),
        }
        for name in ("relevance", "edit")
    ]
    yield SpeedStep(done, count, rows)
