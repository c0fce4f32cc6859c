"""`wys page`: the editor in the browser."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro

from wys.apps.address import check_address, in_an_address
from wys.apps.options import EditorOptions, Flag
from wys.errors import WysError

EditorGroup = tyro.conf.OmitArgPrefixes[EditorOptions]


@dataclass(frozen=True)
class PageOptions:
    """Where the page is served, and what a visitor may ask of the machine."""

    host: str = "127.0.0.1"
    """Address to serve at; only this machine reaches the default one."""
    port: int = 7860
    """Port to serve at."""
    open: Flag = False
    """Open the page in the browser."""
    max_megabytes: float = 25.0
    """Largest file that is taken."""
    max_megapixels: float = 24.0
    """Largest image that is taken."""
    max_waiting: int = 16
    """Most requests that wait for the editor."""

    def check(self) -> None:
        """Raises WysError where a number does not fit, or the port cannot be had."""
        if not 1 <= self.port <= 65535:
            raise WysError("--port is a number from 1 to 65535.")
        limits = (self.max_megabytes, self.max_megapixels)
        if not all(0 < x <= 1e6 for x in limits) or self.max_waiting < 1:
            raise WysError(
                "--max-megabytes and --max-megapixels are above 0, up to a million, and "
                "--max-waiting is at least 1."
            )
        if not self.host.strip():
            raise WysError("--host is empty; 127.0.0.1 is this machine alone.")
        check_address(self.host, self.port)

    @property
    def names(self) -> list[str]:
        """The hosts that requests may be addressed to.

        A page for this machine alone answers to this machine's names: any other is that of a site
        which had the browser resolve its own name to this machine, and would be let in.
        """
        own = ["localhost", "127.0.0.1", "::1", "[::1]", self.host]
        return own if self.is_private else ["*"]

    @property
    def is_private(self) -> bool:
        """Whether only this machine reaches the page."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def page(
    serve: tyro.conf.OmitArgPrefixes[PageOptions] = PageOptions(),
    editor: EditorGroup = EditorOptions(),  # noqa: B008
) -> None:
    """Edit images in the browser.

    Serves a page on this machine until it is interrupted; nothing leaves it.
    """
    with serving(serve, editor) as address:
        print(f"The page is at {address} (Ctrl+C stops it)", flush=True)
        threading.Event().wait()


@contextmanager
def serving(serve: PageOptions, options: EditorOptions) -> Iterator[str]:
    """The page's address while it is served; its visitors' files are gone afterwards.

    Raises:
        WysError: Gradio is missing, the port is taken, or the editor cannot be loaded.
    """
    if importlib.util.find_spec("gradio") is None:
        raise WysError("the page needs Gradio; pip install 'wys[page]' brings it.")
    serve.check()
    from wys.apps.progress import err

    with tempfile.TemporaryDirectory(prefix="wys-page-") as folder:
        # Before Gradio is imported: it would ask the network for newer versions of itself, and
        # leave uploads behind in the system's folder.
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "served")
        with err.status("loading the editor"):
            from starlette.middleware import Middleware
            from starlette.middleware.trustedhost import TrustedHostMiddleware

            from wys.apps.page.app import Page
            from wys.apps.page.jobs import Editors
            from wys.apps.page.layout import Limits, style, theme
            from wys.apps.page.samples import render_samples

            # It logs every request on loopback.
            logging.getLogger("httpx").setLevel(logging.WARNING)
            first = options.load()
            samples = render_samples(Path(folder), min(first.native_size, 256))
        limits = Limits(
            int(serve.max_megabytes * 1e6), int(serve.max_megapixels * 1e6), serve.max_waiting
        )
        # Who names an editor has this machine load it: strangers may not.
        editors = Editors(options, first, others=serve.is_private)
        blocks = Page(editors, samples, Path(folder), limits).blocks
        named = Middleware(TrustedHostMiddleware, allowed_hosts=serve.names, www_redirect=False)
        try:
            _, address, _ = blocks.launch(
                server_name=in_an_address(serve.host),
                server_port=serve.port,
                inbrowser=serve.open,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                max_file_size=limits.most_bytes,
                app_kwargs={"middleware": [named]},
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                theme=theme(),
                css=style(),
            )
            yield address
        finally:
            blocks.close(verbose=False)
