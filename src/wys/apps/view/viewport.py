"""A viewport's pictures: coarse while the camera moves, finer and finer when it stands."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from wys.apps.view.live import in_a_sentence
from wys.apps.view.stack import Cancelled
from wys.apps.view.turns import Turns

COARSE_SECONDS = 0.12
"""What the first picture after a move may take."""
STEADY_SECONDS = 0.5
"""What the first picture may take after something else has changed than the camera."""
MOST_REST = 3.0
"""Seconds after which an edit's steps are shown again, however long the last picture took."""
LEAST_PIXELS = 48 * 30

Size = tuple[int, int]
"""(height, width) in pixels."""
Picture = TypeVar("Picture")
Viewed = TypeVar("Viewed")


def ladder(window: Size, first: int, longest: int) -> list[Size]:
    """Sizes of the pictures of a window, coarse to fine, each with four times the pixels.

    Args:
        first: most pixels of the first one.
        longest: most pixels along the longer side of the last one.
    """
    height, width = window
    scale = min(1.0, longest / max(height, width, 1))
    sizes: list[Size] = []
    while True:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        sizes.insert(0, size)
        if size[0] * size[1] <= max(first, 4):
            return sizes
        scale /= 2


class Pace:
    """How many pixels a while affords, from what the last pictures took."""

    def __init__(self, per_second: float = 30_000.0) -> None:
        self._per_second = per_second

    def took(self, pixels: int, seconds: float) -> None:
        """A picture is done."""
        # Half of what was known: one picture that had to wait must not make all others coarse.
        self._per_second = (self._per_second + pixels / max(seconds, 1e-4)) / 2

    def pixels(self, seconds: float) -> int:
        """That a picture of so many seconds can have."""
        return max(LEAST_PIXELS, round(self._per_second * seconds))


class Viewport(Generic[Viewed, Picture]):
    """Makes pictures of what is wanted last, in a thread of its own.

    What the user does cancels the picture that is being made. A step of an edit lets it come to its
    end, since such steps never cease; their pictures take a share of the time at most, because the
    edit waits for them.

    Args:
        make: the picture of a view at a size; None where it was cancelled.
        show: sends a picture to the screen.
        turns: in which pictures are made.
        tell: tells the user in a sentence why a picture could not be made.
        longest: pixels along the longer side of the finest picture.
        share: of the time, for pictures of an edit's steps.
    """

    def __init__(
        self,
        make: Callable[[Viewed, Size, Cancelled], Picture | None],
        show: Callable[[Picture], None],
        turns: Turns,
        tell: Callable[[str], None],
        longest: int,
        share: float = 0.25,
    ) -> None:
        self._make, self._show, self._turns, self._tell = make, show, turns, tell
        self._longest, self._share = longest, share
        self._pace = Pace()
        self._news = threading.Condition()
        self._view: Viewed | None = None
        self._window: Size = (1, 1)
        self._asked = self._stepped = 0
        self._moving = self._closed = False
        self._thread = threading.Thread(target=self._run, name="wys viewport", daemon=True)
        self._thread.start()

    def move(self, view: Viewed, window: Size) -> None:
        """The camera is there now, and the window of that size."""
        with self._news:
            self._view, self._window = view, window
            self._asked, self._moving = self._asked + 1, True
            self._news.notify_all()

    def ask(self) -> None:
        """The user wants to see something else from the same place."""
        with self._news:
            self._asked, self._moving = self._asked + 1, False
            self._news.notify_all()

    def step(self) -> None:
        """An edit has changed what there is to see."""
        with self._news:
            self._stepped += 1
            self._news.notify_all()

    def close(self) -> None:
        """Ends after the part of the picture that is being made."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def join(self, seconds: float | None = None) -> None:
        """Waits for the end, at most so long."""
        self._thread.join(seconds)

    def _run(self) -> None:
        asked = stepped = 0
        rested = 0.0

        def asks() -> bool:
            return self._closed or (self._view is not None and self._asked != asked)

        def news() -> bool:
            return asks() or (self._view is not None and self._stepped != stepped)

        while True:
            with self._news:
                self._news.wait_for(news)
                self._news.wait_for(asks, max(0.0, rested - time.monotonic()))
                if self._closed:
                    return
                moving = self._moving and self._asked != asked
                asked, stepped = self._asked, self._stepped
            seconds = COARSE_SECONDS if moving else STEADY_SECONDS
            try:
                rested = self._refine(asked, stepped, seconds)
            except Exception as error:
                # The next picture may succeed: memory is free again, or the camera elsewhere.
                rested = time.monotonic() + MOST_REST
                if not self._closed:
                    self._tell(in_a_sentence("picture", error))

    def _refine(self, asked: int, stepped: int, seconds: float) -> float:
        """Finer and finer pictures until there is news; when an edit's next step may be shown.

        Args:
            seconds: that the first picture may take.
        """
        view, window = self._view, self._window
        assert view is not None

        def cancelled() -> bool:
            return self._closed or self._asked != asked

        rested = 0.0
        for size in ladder(window, self._pace.pixels(seconds), self._longest):
            with self._turns.turn():
                begun = time.monotonic()
                picture = self._make(view, size, cancelled)
                took = time.monotonic() - begun
            if picture is None or cancelled():
                break
            self._pace.took(size[0] * size[1], took)
            rested = time.monotonic() + min(MOST_REST, took * (1 / self._share - 1))
            self._show(picture)
            if self._stepped != stepped:
                break
        return rested
