"""`wys page` before anything is served."""

import importlib.util
import socket
from http.client import HTTPConnection

import pytest

from wys.apps import cli
from wys.apps.options import EditorOptions
from wys.apps.page.command import PageOptions, serving

# Importing it takes seconds, and nothing here needs more than that it is there.
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec("gradio") is None, reason="the page needs Gradio"
)


def test_the_page_is_for_this_machine_unless_told_otherwise() -> None:
    assert PageOptions().host == "127.0.0.1"
    assert PageOptions().is_private and PageOptions(host="::1").is_private
    assert PageOptions(host="localhost").is_private
    assert not PageOptions(host="0.0.0.0").is_private
    assert not PageOptions(host="example.org").is_private


def test_without_gradio_one_sentence_names_the_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "gradio" else find(name, *rest),
    )
    assert cli.main(["page"]) == 2
    assert "pip install 'wys[page]'" in capsys.readouterr().err


@needs_gradio
def test_a_port_that_is_taken_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert cli.main(["page", "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert str(port) in error and "--port" in error and len(error.splitlines()) == 1


@needs_gradio
def test_numbers_that_do_not_fit_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["page", "--port", "0"]) == 2
    assert cli.main(["page", "--max-megabytes", "0"]) == 2


@needs_gradio
def test_the_page_is_served_at_an_address_with_colons() -> None:
    """Not beside a page that is being served: Gradio has one folder of uploads in a process."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving(PageOptions(host="::1", port=port), EditorOptions(device="cpu")) as address:
        assert address == f"http://[::1]:{port}/"
        connection = HTTPConnection("::1", port)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
