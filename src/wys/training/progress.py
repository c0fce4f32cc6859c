"""Progress with a true estimate of the time left, and the log that pictures are drawn from."""

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
)

WINDOW = 120.0
"""Seconds of the recent past that the rate is measured over."""


def duration(seconds: float) -> str:
    """1:02:03, or ? where it is not known."""
    if not math.isfinite(seconds):
        return "?"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


class Meter:
    """A rich bar on a terminal, a plain line every `every` seconds elsewhere.

    The time left is that of the work left at the pace of the last two minutes.

    Args:
        work: what so many items from the beginning cost; by default each as much.
    """

    def __init__(
        self,
        title: str,
        total: int,
        bar: Progress | None,
        task: TaskID | None,
        work: Callable[[int], float] = float,
    ) -> None:
        self.title, self.total = title, total
        self._bar, self._task, self._work = bar, task, work
        self._past: deque[tuple[float, int]] = deque()
        self._told = -math.inf
        self.every = 20.0

    @property
    def rate(self) -> float:
        """Items a second, lately; 0 before it is known."""
        if len(self._past) < 2 or self._past[-1][0] <= self._past[0][0]:
            return 0.0
        (t0, n0), (t1, n1) = self._past[0], self._past[-1]
        return (n1 - n0) / (t1 - t0)

    @property
    def seconds_left(self) -> float:
        """How long the rest takes at the pace of lately; infinity before that is known."""
        if self.rate <= 0:
            return math.inf
        (t0, n0), (t1, n1) = self._past[0], self._past[-1]
        # The last step may go beyond the total: a batch is not cut.
        rest = max(self._work(self.total) - self._work(n1), 0.0)
        return rest * (t1 - t0) / (self._work(n1) - self._work(n0))

    def update(self, done: int, note: str = "") -> None:
        """Tells how much is done, with a short note such as the loss."""
        now = time.monotonic()
        self._past.append((now, done))
        while self._past[0][0] < now - WINDOW and len(self._past) > 2:
            self._past.popleft()
        tail = f"{self.rate:.1f}/s, {duration(self.seconds_left)} left  {note}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=self.total, note=tail)
        elif now - self._told >= self.every or (done >= self.total and self._told < math.inf):
            self._told = now if done < self.total else math.inf
            print(f"{self.title}  {done}/{self.total}  {tail}", flush=True)


@contextmanager
def meter(
    title: str, total: int, shown: bool = True, work: Callable[[int], float] = float
) -> Iterator[Meter]:
    """A `Meter` that is shown, or counts silently (in all processes but the first)."""
    if not shown:
        quiet = Meter(title, total, None, None, work)
        quiet.every = math.inf
        quiet._told = math.inf
        yield quiet
        return
    console = Console()
    if not console.is_terminal:
        yield Meter(title, total, None, None, work)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield Meter(title, total, bar, bar.add_task(title, total=total, note=""), work)


def append_log(path: Path, entry: dict[str, Any]) -> None:
    """Adds one line of JSON to the log; a line that a kill cut short stays by itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
        whole = file.read() in (b"", b"\n")
        file.write((b"" if whole else b"\n") + json.dumps(entry).encode() + b"\n")


def read_log(path: Path, stage: str) -> list[dict[str, Any]]:
    """The entries of a stage in order of images seen; work that a kill undid is left out."""
    if not path.exists():
        return []
    kept: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        entry = _parsed(line)
        if entry is None or entry["stage"] != stage:
            continue
        while kept and kept[-1]["images"] >= entry["images"]:
            kept.pop()
        kept.append(entry)
    return kept


def _parsed(line: str) -> dict[str, Any] | None:
    """The entry of a line; None where it was cut short."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"stage", "images"} <= set(entry) else None


def show(bar: Meter, done: int, total: int) -> None:
    """Brings a bar to where work is whose extent is told on the way."""
    bar.total = total
    bar.update(done)
