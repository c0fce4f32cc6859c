"""The panel's widgets, on a server that no browser looks at."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

viser = pytest.importorskip("viser", reason="viser is not installed")


@pytest.mark.usefixtures("unchecked")
def test_news_from_many_threads_make_one_row_for_each_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    from wys.apps.view.panel import Panel

    folder = SimpleNamespace(record={"layers": []}, begun=None)
    studio: Any = SimpleNamespace(
        message="", mode="colour", live=None, busy=False, preview=None, instructions={}
    )
    studio.folder = folder
    nothing: Any = SimpleNamespace(show=lambda *_: None, refresh=lambda: None)
    server = viser.ViserServer("127.0.0.1", 0, verbose=False)
    try:
        panel = Panel(server, studio, nothing, nothing, lambda _: None, lambda *_: None, Path())
        original, made = panel._row, list[str]()

        def slow(name: str) -> Any:
            made.append(name)
            time.sleep(0.05)
            return original(name)

        monkeypatch.setattr(panel, "_row", slow)
        folder.record = {"layers": ["01-one", "02-two"]}
        threads = [threading.Thread(target=panel.refresh) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert made == ["01-one", "02-two"]
    finally:
        server.stop()
