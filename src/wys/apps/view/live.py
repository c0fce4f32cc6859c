"""Work in a thread of its own that can be watched, paused, gone on with and stopped."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

from wys.errors import WysError

Standing = Literal["running", "paused", "stopped", "done", "failed"]


@dataclass(frozen=True)
class Progress:
    """How far some work is."""

    what: str
    """In a few words, such as "photographs"."""
    index: int
    """Steps of this kind done, of `count`."""
    count: int


def in_a_sentence(name: str, error: Exception) -> str:
    """What to tell the user of what went wrong.

    The trace of an accident goes to the terminal, for whoever looks into it.

    Args:
        name: what was being done.
    """
    if isinstance(error, WysError):
        return str(error)
    traceback.print_exception(error)
    return f"the {name} broke off ({error}); see the terminal."


class Live:
    """A generator of steps that runs in a thread.

        running <-> paused;  running, paused -> stopped;  running -> done, failed

    A step is never cut: a pause or a stop takes effect after the one that is being made. A stop
    closes the generator, which sees GeneratorExit at its `yield`.

    Args:
        name: what is being done, such as "edit".
        steps: made in the thread; a WysError ends the work with its sentence in `error`.
        changed: called in the thread after each step and at the end.
    """

    def __init__(
        self, name: str, steps: Generator[Progress, None, None], changed: Callable[[], None]
    ) -> None:
        self.name = name
        self.step: Progress | None = None
        self.error: str | None = None
        self._steps, self._changed = steps, changed
        self._end: Standing | None = None
        self._may_go_on, self._stopping = threading.Event(), False
        self._may_go_on.set()
        self._thread = threading.Thread(target=self._run, name=f"wys {name}", daemon=True)

    def start(self) -> None:
        """Begins; whoever listens to `changed` knows this work by then."""
        self._thread.start()

    @property
    def standing(self) -> Standing:
        if self._end is not None:
            return self._end
        return "running" if self._may_go_on.is_set() else "paused"

    @property
    def over(self) -> bool:
        return self._end is not None

    def pause(self) -> None:
        """Rests after the step that is being made."""
        self._may_go_on.clear()

    def resume(self) -> None:
        """Goes on where it paused."""
        self._may_go_on.set()

    def stop(self) -> None:
        """Ends after the step that is being made."""
        self._stopping = True
        self._may_go_on.set()

    def join(self, seconds: float | None = None) -> None:
        """Waits for the end, at most so long."""
        self._thread.join(seconds)

    def _run(self) -> None:
        end: Standing = "done"
        try:
            # Closed before anyone hears of its end: what it held is free by then.
            with contextlib.closing(self._steps):
                for step in self._steps:
                    self.step = step
                    self._changed()
                    self._may_go_on.wait()
                    if self._stopping:
                        end = "stopped"
                        break
        except Exception as error:
            # The viewer goes on whatever happens.
            end, self.error = "failed", in_a_sentence(self.name, error)
        self._end = end
        self._changed()
