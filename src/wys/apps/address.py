"""Where a server of this machine listens."""

from __future__ import annotations

import socket

from wys.errors import WysError


def check_address(host: str, port: int) -> None:
    """Raises WysError where nothing can listen at a host's port; port 0: at any of them."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:  # As servers do.
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((host, port))
    except (OSError, TypeError, ValueError) as error:  # The latter two where it is no name at all.
        reason = getattr(error, "strerror", None) or error
        raise WysError(
            f"cannot serve at {host}, port {port}: {reason}; choose another --port or --host."
        ) from error


def in_an_address(host: str) -> str:
    """A host as it stands in an address: one of IPv6, with its colons, in brackets."""
    return f"[{host}]" if ":" in host else host
