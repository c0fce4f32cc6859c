"""Who may use the fields next: an edit's steps and the viewport's pictures, one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

Step = TypeVar("Step")


class Turns:
    """A lock that is given in the order in which it was asked for.

    With a plain lock an edit, which asks again at once, would leave no turn to the pictures.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asked = self._served = 0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for a turn and holds it."""
        with self._changed:
            mine, self._asked = self._asked, self._asked + 1
            self._changed.wait_for(lambda: self._served == mine)
        try:
            yield
        finally:
            with self._changed:
                self._served += 1
                self._changed.notify_all()


def by_turns(steps: Iterator[Step], turns: Turns) -> Iterator[Step]:
    """The steps, each made in a turn of its own."""
    while True:
        with turns.turn():
            step = next(steps, None)
        if step is None:
            return
        yield step
