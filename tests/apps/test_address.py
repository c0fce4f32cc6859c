"""Where servers listen: what is refused, and how an address is written."""

import re
import socket
from urllib.parse import urlsplit

import pytest

from wys.apps.address import check_address, in_an_address
from wys.errors import WysError


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "fe80::1", "example.org"])
def test_an_address_is_read_as_it_was_meant(host: str) -> None:
    parts = urlsplit(f"http://{in_an_address(host)}:7860/")
    assert (parts.hostname, parts.port) == (host, 7860)


def test_where_nothing_can_listen_is_one_sentence() -> None:
    check_address("127.0.0.1", 0)
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with pytest.raises(WysError, match=f"cannot serve at 127.0.0.1, port {port}"):
            check_address("127.0.0.1", port)
    for host in ("no.such.host", "\u00e4" * 70, "\udcff", "::ffff:127.0.0.1"):
        with pytest.raises(WysError, match=f"cannot serve at {re.escape(host)}, port 0"):
            check_address(host, 0)
