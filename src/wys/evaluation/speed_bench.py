"""How long a map and an edit take, against others with the same networks in the same run.

The jobs take turns, and the median of the turns counts, so that what else the machine does falls on
all of them.

    relevance       a map, of one draw
    edit            map and edit of the whole image: nothing is cropped, and every step is run
    edit guided     the same under the guidance of the preset `paper`: all three predictions a step
    edit own        the same by the editor's own settings, its number of steps included
    edit 4 images   four such edits as `edit`, in one batch
    window 10 %     the edit of a centred square of that area, in a window of the latents; no map
    scene fit       until a tabletop scene is shown well enough (where scenes are asked for)
    scene edit      a small edit of that scene, beside the same by the authors' program

A job's floor is what its operations would take at the best rate that the machine reached in the
same run; `share_of_floor` is that over what it took, 1 where nothing was wasted.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from wys.devices import finish
from wys.diffusion.baselines import diffusers_edit, published_edit, published_relevance
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings
from wys.diffusion.settings import PAPER
from wys.diffusion.window import WindowSettings
from wys.errors import WysError
from wys.evaluation.cases import check_size
from wys.evaluation.floor import best_rate, operations
from wys.evaluation.peak_memory import PeakMemory
from wys.evaluation.speed_scenes import SceneJobSettings, scene_jobs
from wys.image import resize
from wys.image_edit import ImageEdit, edit_image, relevance_map
from wys.masks import Box, Mask
from wys.seeds import normal
from wys.tabletop.pairs import make_pairs
from wys.tabletop.world import PLAIN

BATCH = 4
"""Images of the edit in a batch."""
SHARES = (0.02, 0.1, 0.3, 1.0)
"""Shares of the area that are edited in a window."""
OTHERS = (
    "diffusers",
    "diffusers guided",
    "published relevance",
    "published edit",
    "published scene edit",
)
"""What is compared with."""
DIFFUSERS_OF = {"edit guided": "diffusers guided"}
PUBLISHED_OF = {"relevance": "published relevance", "scene edit": "published scene edit"}
"""What a row is compared with, where it is not the edit."""


@dataclass(frozen=True)
class SpeedSettings:
    """What is timed."""

    size: int | None = None
    """Side of the square images in pixels; the editor's own if not given."""
    steps: int = 20
    """Denoising steps of all edits but `edit own`."""
    repeats: int = 5
    """Turns of each job; the median counts."""
    seed: int = 0
    """Seed of the images and the noise."""
    scenes: SceneJobSettings | None = field(default_factory=SceneJobSettings)
    """What is done to a scene; None: nothing."""
    rows: tuple[str, ...] = ()
    """The rows that are timed, by their names; none: all of them, and what they are compared with.
    With some of them named a ratio is left out where its other job is not run."""

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.steps < 1:
            raise WysError("a speed bench needs at least 1 repeat and 1 step.")
        check_size(self.size)


@dataclass(frozen=True)
class SpeedStep:
    """One run of one job is done."""

    done: int
    count: int
    rows: list[dict[str, Any]] | None = None
    """The rows of the bench, on the last step only."""


def timed(job: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds that a job takes, its work on the GPU included, and its peak memory in MB."""
    with PeakMemory(device) as memory:
        started = time.perf_counter()
        job()
        finish(device)
        seconds = time.perf_counter() - started
    return seconds, memory.megabytes


def jobs(editor: Editor, settings: SpeedSettings) -> dict[str, Callable[[], object]]:
    """What is timed: our jobs, whose names are the rows', and those of the others."""
    seed, side = settings.seed, settings.size or editor.native_size
    pairs = make_pairs(seed, "test", 0, 4, size=side, scene_range=PLAIN)
    images, words = pairs.before, pairs.instructions
    image, one = images[:1], words[:1]
    fitted = resize(image, editor.fit((side, side)))
    noise = normal(editor.condition(fitted, one).z0.shape[1:], seed, [0], "speed")
    guidance, steps = editor.settings.edit.guidance, settings.steps
    how = replace(editor.settings.relevance, draws=1, timesteps=(0.8,))
    everywhere = replace(how, threshold=0.0)
    edit = replace(editor.settings.edit, steps=steps, start=1.0, window=None)
    guided = replace(edit, guidance=PAPER.edit.guidance)
    window = replace(edit, window=WindowSettings())
    tenth = centred(0.1, side)

    def whole(count: int, edit: EditSettings = edit) -> ImageEdit:
        return edit_image(
            editor,
            images[:count],
            words[:count],
            edit,
            relevance_settings=everywhere,
            force=True,
            seed=seed,
        )

    def own() -> ImageEdit:
        # A box makes sure that there is something to edit, whatever the map says.
        return edit_image(
            editor, image, one, force=True, correct=lambda m: m.including(tenth), seed=seed
        )

    def inside(share: float) -> ImageEdit:
        mask = Mask.from_image(torch.zeros(1, 1, side, side, dtype=torch.bool), (side, side))
        mask = mask.including(centred(share, side))
        return edit_image(editor, image, one, window, mask=mask, seed=seed)

    tasks: dict[str, Callable[[], object]] = {
        "relevance": lambda: relevance_map(editor, image, one, how, seed=seed),
        "edit": lambda: whole(1),
        "edit guided": lambda: whole(1, guided),
        "edit own": own,
        f"edit {BATCH} images": lambda: whole(BATCH),
        **{f"window {share:.0%}".replace("%", " %"): partial(inside, share) for share in SHARES},
        "diffusers": lambda: diffusers_edit(editor, fitted, one, guidance, steps, noise),
        "diffusers guided": lambda: diffusers_edit(
            editor, fitted, one, guided.guidance, steps, noise
        ),
        "published relevance": lambda: published_relevance(editor, fitted, one, noise),
        "published edit": lambda: published_edit(editor, fitted, one, guidance, steps, noise),
    }
    wanted = set(settings.rows)
    if settings.scenes is not None and (not wanted or any("scene" in name for name in wanted)):
        tasks |= scene_jobs(editor, settings.scenes, seed)
    for name in settings.rows:
        if name not in tasks:
            raise WysError(f"there is nothing named {name!r} to time; {', '.join(tasks)} there is.")
    return {name: job for name, job in tasks.items() if not settings.rows or name in settings.rows}


def centred(share: float, side: int) -> Box:
    """The centred square with a share of the area of an image."""
    length = max(1, round(side * share**0.5))
    first = (side - length) // 2
    return Box(first, first, first + length, first + length)


def speed_bench(editor: Editor, settings: SpeedSettings) -> Iterator[SpeedStep]:
    """Times the jobs in turns, one step for each run.

    The ratios are our seconds over theirs for as many images; diffusers has no scenes, and no map:
    the ratio of `relevance` to it is the share of its edit that a map costs. What is published has
    no fit of its own.
    """
    tasks = jobs(editor, settings)
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    peaks: dict[str, list[float]] = {name: [] for name in tasks}
    work: dict[str, int] = {}
    rate = 0.0
    count = len(tasks) * (settings.repeats + 1)
    done = 0
    for turn in range(settings.repeats + 1):
        rate = max(rate, best_rate(editor.device, editor.unet.dtype))
        for name, job in tasks.items():
            # The first turn warms up: memory pools, kernels that are chosen by trial.
            if turn == 0:
                work[name] = operations(job)
            else:
                taken, peak = timed(job, editor.device)
                seconds[name].append(taken)
                peaks[name].append(peak)
            done += 1
            yield SpeedStep(done, count)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    rows = []
    for name in tasks:
        if name in OTHERS:
            continue
        floor = work[name] / rate
        rows.append(
            {
                "name": name,
                "seconds": median[name],
                "ratio_to_diffusers": _ratio(median, name, DIFFUSERS_OF.get(name, "diffusers")),
                "ratio_to_published": _ratio(
                    median, name, PUBLISHED_OF.get(name, "published edit")
                ),
                "peak_mb": max(peaks[name]),
                "floor": floor,
                "share_of_floor": floor / median[name],
            }
        )
    yield SpeedStep(done, count, rows)


def _ratio(median: dict[str, float], name: str, other: str) -> float | None:
    """Our seconds for an image over theirs; None where theirs are of something else."""
    if name.startswith("scene") != ("scene" in other) or other not in median:
        return None
    images = BATCH if name == f"edit {BATCH} images" else 1
    return median[name] / images / median[other]
