"""Coarse pictures first, finer ones after, and none that nobody waits for."""

import threading
import time

import pytest

from wys.apps.view.stack import Cancelled
from wys.apps.view.turns import Turns, by_turns
from wys.apps.view.viewport import LEAST_PIXELS, Pace, Size, Viewport, ladder
from wys.errors import WysError


def test_sizes_have_four_times_the_pixels_up_to_the_finest() -> None:
    sizes = ladder((800, 1280), 5000, 512)
    assert sizes == [(40, 64), (80, 128), (160, 256), (320, 512)]
    assert ladder((100, 50), 10_000, 512) == [(100, 50)]
    # A phone held upright.
    assert ladder((844, 390), 1500, 512)[-1] == (512, 237)


def test_the_pace_follows_what_pictures_take() -> None:
    pace = Pace(10_000)
    assert pace.pixels(0.5) == 5000
    for _ in range(20):
        pace.took(100_000, 1.0)
    assert 90_000 < pace.pixels(1.0) <= 100_000
    pace.took(1, 100.0)
    assert pace.pixels(1e-9) == LEAST_PIXELS


def untold(sentence: str) -> None:
    raise AssertionError(sentence)


def waited(condition: "list[object]", count: int) -> None:
    """Until so many things are there."""
    end = time.monotonic() + 120
    while len(condition) < count and time.monotonic() < end:
        time.sleep(0.005)
    assert len(condition) >= count


def test_a_camera_that_stands_is_shown_finer_and_finer() -> None:
    shown: list[object] = []
    viewport = Viewport[str, Size](lambda view, size, _: size, shown.append, Turns(), untold, 256)
    viewport.move("here", (160, 256))
    wanted = ladder((160, 256), 3600, 256)
    waited(shown, len(wanted))
    assert shown == wanted
    viewport.close()
    viewport.join(10)


def test_a_move_cancels_the_picture_of_the_place_before() -> None:
    shown: list[object] = []
    begun, may_end = threading.Event(), threading.Event()

    def make(view: str, size: Size, cancelled: Cancelled) -> str | None:
        if view == "before":
            begun.set()
            assert may_end.wait(120)
        return None if cancelled() else view

    viewport = Viewport[str, str](make, shown.append, Turns(), untold, 64)
    viewport.move("before", (64, 64))
    assert begun.wait(120)
    viewport.move("after", (64, 64))
    may_end.set()
    waited(shown, 1)
    assert set(shown) == {"after"}
    viewport.close()
    viewport.join(10)


def test_steps_of_an_edit_are_shown_and_do_not_cancel() -> None:
    shown: list[object] = []
    field = [0]

    def make(view: str, size: Size, cancelled: Cancelled) -> int:
        assert not cancelled()
        return field[0]

    viewport = Viewport[str, int](make, shown.append, Turns(), untold, 32, share=0.999)
    viewport.move("here", (32, 32))
    waited(shown, 1)
    field[0] = 1
    viewport.step()
    waited(shown, 2)
    assert shown[-1] == 1
    viewport.close()
    viewport.join(10)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("out of memory"), "the picture broke off (out of memory); see the terminal."),
        (WysError("the mask is gone; undo the edit."), "the mask is gone; undo the edit."),
    ],
)
def test_a_picture_that_fails_is_told_and_the_next_one_is_made(
    error: Exception, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[object] = []
    told: list[object] = []
    turns = Turns()

    def make(view: str, size: Size, _: Cancelled) -> str:
        if view == "before":
            raise error
        return view

    viewport = Viewport[str, str](make, shown.append, turns, told.append, 32)
    viewport.move("before", (32, 32))
    waited(told, 1)
    with turns.turn():  # It was given back.
        viewport.move("after", (32, 32))
    waited(shown, 1)
    assert told == [words] and shown[0] == "after"
    assert ("Traceback" in capsys.readouterr().err) == isinstance(error, RuntimeError)
    viewport.close()
    viewport.join(10)


def test_turns_are_given_in_the_order_of_asking() -> None:
    turns, order = Turns(), list[str]()
    edited = threading.Event()

    def picture() -> None:
        with turns.turn():
            order.append("picture")

    def steps() -> "object":
        order.append("step")
        edited.set()
        while not painter.is_alive() or turns._asked < 2:  # Until the picture has asked.
            time.sleep(0.001)
        yield 1
        order.append("step")
        yield 2

    painter = threading.Thread(target=lambda: (edited.wait(120), picture()))
    painter.start()
    assert list(by_turns(steps(), turns)) == [1, 2]
    painter.join(20)
    assert order == ["step", "picture", "step"]
