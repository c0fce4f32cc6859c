"""Several processes that train together."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from wys.errors import WysError
from wys.training.parallel import launch

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from wys.training.parallel import launch

def work(accelerator, folder):
    (folder / str(accelerator.process_index)).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder = Path(sys.argv[1])
    launch(work, 2, args=(folder,), device="cpu", precision="no", cache=folder / "cache")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals are those of a POSIX system")
def test_processes_end_with_a_parent_that_was_killed_in_the_background(tmp_path: Path) -> None:
    """What a script starts in its background ignores interrupts, and so do its children."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    parent = subprocess.Popen([sys.executable, str(program), str(tmp_path)])
    try:
        files = [tmp_path / "0", tmp_path / "1"]
        wait_until(lambda: all(file.exists() and file.read_text() for file in files), 120)
        children = [psutil.Process(int(file.read_text())) for file in files]
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: not any(child.is_running() for child in children), 20)


@pytest.mark.skipif(os.name != "posix", reason="signals are those of a POSIX system")
def test_processes_end_before_a_parent_that_is_asked_to_end(tmp_path: Path) -> None:
    """Another run may take the folder over as soon as this one has let go of it."""
    program = tmp_path / "program.py"
    polite = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))"
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    program.write_text(PROGRAM.replace(ignored, polite))
    parent = subprocess.Popen([sys.executable, str(program), str(tmp_path)])
    files = [tmp_path / "0", tmp_path / "1"]
    try:
        wait_until(lambda: all(file.exists() and file.read_text() for file in files), 120)
        children = [psutil.Process(int(file.read_text())) for file in files]
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(timeout=30) == 143
    finally:
        parent.kill()
    assert not any(child.is_running() for child in children)


def fill_up(accelerator) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "log.jsonl")


def vanish(accelerator) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("end", "words"),
    [(fill_up, r"No space left on device \(log.jsonl\)"), (vanish, "ended from outside")],
)
def test_what_ends_a_process_is_one_sentence(
    end: Callable[..., None], words: str, tmp_path: Path
) -> None:
    with pytest.raises(WysError, match=words):
        launch(end, 2, args=(), device="cpu", precision="no", cache=tmp_path / "cache")


def refuse(accelerator, words: str) -> None:
    raise WysError(f"{words} {accelerator.num_processes}")


def test_a_sentence_of_a_process_is_that_of_all(tmp_path: Path) -> None:
    with pytest.raises(WysError, match=r"^what is missing 2$"):
        launch(
            refuse,
            2,
            args=("what is missing",),
            device="cpu",
            precision="no",
            cache=tmp_path / "cache",
        )


def wait_until(condition, seconds: float) -> None:
    """Returns as soon as the condition holds; fails where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
