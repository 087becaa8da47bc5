"""A log's folder, served over HTTP on loopback as any static file server would.

Example::

    with serving(folder, refused="/tile/entries/") as address:
        verify_log(address, key)
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["serving"]


@contextmanager
def serving(folder: Path, *, refused: str | None = None) -> Iterator[str]:
    """The folder's address while the block lasts.

    Args:
        folder: which.
        refused: paths that begin so are nobody's business (403).
    """

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: object) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            if refused is not None and self.path.startswith(refused):
                self.send_error(403)
            else:
                super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
