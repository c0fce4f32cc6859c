"""Frustums with photographs, on a server that no browser looks at."""

import threading
from typing import Any

import pytest

from wys.apps.view.studio import Studio

viser = pytest.importorskip("viser", reason="viser is not installed")


def test_clients_and_an_edit_on_its_way_may_ask_at_once(studio: Studio) -> None:
    from wys.apps.view.photographs import Photographs

    server = viser.ViserServer("127.0.0.1", 0, verbose=False)
    failed: list[BaseException] = []
    try:
        photographs = Photographs(server, studio, lambda *_: None)

        def asked(action: Any) -> None:
            try:
                for _ in range(3):
                    action()
            except Exception as error:
                failed.append(error)

        actions = [lambda: photographs.show(True, True, None), photographs.refresh] * 3
        threads = [threading.Thread(target=asked, args=(action,)) for action in actions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failed
        assert len(photographs._frustums) == len(studio.capture.train)
    finally:
        server.stop()
