"""Progress on the terminal: one line, with the time left measured on the steps done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
