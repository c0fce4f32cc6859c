"""Progress on the terminal: one line, with the time left measured on the steps done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

err = Console(stderr=True)
"""Where progress goes: standard output holds the answer only."""

Advance = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


@contextmanager
def progress(what: str) -> Iterator[Advance]:
    """A bar that vanishes when it is done; silent where standard error is no terminal."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    with bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, count: int) -> None:
            bar.update(task, completed=done, total=count)

        yield advance


class Saving:
    """When to save the state of long work: as often as costs no more than a share of the time.

    saving = Saving(share=0.03)
    for step in work:
        if saving.due():
            with saving:
                ...
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._begun = self._ended = time.monotonic()
        self._cost = 0.0

    def due(self) -> bool:
        """Whether enough time has gone by since the last save; at first it has."""
        return time.monotonic() - self._ended >= self._cost / self._share

    def __enter__(self) -> None:
        self._begun = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._ended = time.monotonic()
        self._cost = self._ended - self._begun


AdvanceKind = Callable[[str, int, int], None]
"""Called with (kind of step, steps of that kind done, steps of that kind in all)."""


Expected = Mapping[str, tuple[int, float]]
"""Steps of a kind to come, and the seconds that each may take."""


class TimeLeft:
    """The time left of work whose steps are of several kinds, from the time that each kind takes.

    A bar that counts all steps alike is wrong where slow and quick ones take turns.

    Args:
        kinds: in the order in which they come up.
        expected: kinds whose steps are known before the first of them: how many, and about how
            many seconds each takes.
    """

    def __init__(self, kinds: Sequence[str], expected: Expected | None = None) -> None:
        self._kinds = tuple(kinds)
        self._expected = dict(expected or {})
        self._seconds: dict[str, float] = {}
        self._timed: dict[str, int] = {}
        self._left = {kind: count for kind, (count, _) in self._expected.items()}
        self._last = time.monotonic()

    def step(self, kind: str, done: int, count: int) -> None:
        """One step of a kind is done since the last call."""
        now = time.monotonic()
        self._seconds[kind] = self._seconds.get(kind, 0.0) + now - self._last
        self._timed[kind] = self._timed.get(kind, 0) + 1
        self._left[kind] = count - done
        self._last = now

    @property
    def seconds(self) -> float:
        """What is left of the kinds that have had a step, or of which one is expected."""
        return sum(left * self._each(kind) for kind, left in self._left.items())

    def _each(self, kind: str) -> float:
        timed = self._timed.get(kind)
        return self._seconds[kind] / timed if timed else self._expected[kind][1]

    @property
    def in_words(self) -> str:
        """As 1:23; "at least" where a kind that comes later has not had a step yet."""
        whole = round(self.seconds)
        hours = f"{whole // 3600}:{whole // 60 % 60:02}" if whole >= 3600 else f"{whole // 60}"
        # Kinds before the last one that had a step were skipped.
        had = [i for i, kind in enumerate(self._kinds) if kind in self._timed]
        later = any(kind not in self._left for kind in self._kinds[max(had, default=-1) + 1 :])
        return f"{'at least ' if later else ''}{hours}:{whole % 60:02}"


def bar_of_kinds(
    what: str, kinds: Sequence[str], expected: Expected | None = None
) -> tuple[Progress, AdvanceKind]:
    """The bar of `progress_of_kinds`, and what moves it on: one line that fits into 80 columns.

    The bar is as wide as the words leave room for, and of the kinds those are told that are under
    way.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[left]}"),
        console=err,
        transient=True,
        expand=True,
        disable=not err.is_terminal,
    )
    time_left = TimeLeft(kinds, expected)
    counts = {kind: (0, count) for kind, (count, _) in (expected or {}).items()}
    task = bar.add_task(what, total=None, counts="", left="")

    def advance(kind: str, done: int, count: int) -> None:
        time_left.step(kind, done, count)
        counts[kind] = (done, count)
        # What is over goes unsaid, and so does what has not begun.
        under_way = [name for name, (d, c) in counts.items() if 0 < d < c] or [kind]
        bar.update(
            task,
            completed=sum(d for d, _ in counts.values()),
            total=sum(c for _, c in counts.values()),
            counts=", ".join("{} {}/{}".format(name, *counts[name]) for name in under_way),
            left=f"{time_left.in_words} left",
        )

    return bar, advance


@contextmanager
def progress_of_kinds(
    what: str, kinds: Sequence[str], expected: Expected | None = None
) -> Iterator[AdvanceKind]:
    """A bar over steps of several kinds, such as edits of photographs and steps of a field.

    Args:
        expected: as `TimeLeft` takes it.
    """
    bar, advance = bar_of_kinds(what, kinds, expected)
    with bar:
        yield advance
