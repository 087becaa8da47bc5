"""A ledger's checkpoint and hash tiles over HTTP, for whoever wants to verify it with tools of others.

By c2sp.org/tlog-tiles:

=================================  =====================================================================
``/checkpoint``                    the newest published checkpoint; never cached
``/tile/<L>/<N>[.p/<W>]``          hashes of the tree; they never change, and may be cached for ever
``/tile/entries/…``                refused: what entries say is told to those alone who may read it
=================================  =====================================================================

Rules:

- Only tiles that the published checkpoint covers are served: nobody learns a hash of what was not yet published.
- Hashes tell nothing: every leaf holds a random nonce.
- Few tiles are read at once; beyond them: 503. The database belongs to the queries.

Example::

    pages = TilePages(lambda: (size, note), ledger)
    with exposed(metrics, "127.0.0.1", 9464, pages=pages): ...
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from permslip.errors import MalformedError, PermslipError
from permslip.hosting.ledger_reading import LedgerReader
from permslip.hosting.logs import get_log
from permslip.tiles import EntryBundle, parse_path

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication

__all__ = ["TilePages"]

_log = get_log(__name__)

_AT_ONCE: Final = 2
_TILE: Final = [
    ("Content-Type", "application/octet-stream"),
    ("Cache-Control", "public, max-age=31536000, immutable"),
]
_CHECKPOINT: Final = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-cache")]
_WORDS: Final = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
_Answer = tuple[str, list[tuple[str, str]], bytes]


class TilePages:
    """Answers for ``/checkpoint`` and ``/tile/…``, and leaves every other path to somebody else. In several threads.

    Args:
        published: size and note of the newest published checkpoint; None: there is none yet.
        ledger: where hashes are read.
    """

    def __init__(self, published: Callable[[], tuple[int, bytes] | None], ledger: LedgerReader) -> None:
        self._published, self._ledger = published, ledger
        self._places = threading.BoundedSemaphore(_AT_ONCE)

    def before(self, others: WSGIApplication) -> WSGIApplication:
        """The application that answers for these paths itself, and for all others as ``others`` does."""

        def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            path = str(environ.get("PATH_INFO", ""))
            if path != "/checkpoint" and not path.startswith("/tile/"):
                return others(environ, start_response)
            method = str(environ.get("REQUEST_METHOD", ""))
            status, headers, body = self._answer(method, path)
            start_response(status, [*headers, ("Content-Length", str(len(body)))])
            return [] if method == "HEAD" else [body]

        return application

    def _answer(self, method: str, path: str) -> _Answer:
        if method not in {"GET", "HEAD"}:
            return _said("405 Method Not Allowed", "Ask with GET.", ("Allow", "GET, HEAD"))
        published = self._published()
        if published is None:
            return _said("503 Service Unavailable", "No checkpoint is published yet.", ("Retry-After", "1"))
        size, note = published
        if path == "/checkpoint":
            return "200 OK", _CHECKPOINT, note
        try:
            tile = parse_path(path[1:])
        except MalformedError as error:
            return _said("404 Not Found", error.message)
        if isinstance(tile, EntryBundle):
            return _said("403 Forbidden", "Entries are told to admitted auditors: permslip audit fetch.")
        if (tile.index * 256 + tile.width) << 8 * tile.level > size:
            return _said("404 Not Found", f"The published checkpoint covers {size} entries, and no such tile.")
        if not self._places.acquire(blocking=False):
            return _said("503 Service Unavailable", "Others are reading.", ("Retry-After", "1"))
        try:
            return "200 OK", _TILE, self._ledger.tile(tile)
        except PermslipError as error:
            _log.error("tile_not_served", path=path, error=type(error).__name__, detail=error.message)
            return _said("500 Internal Server Error", "The tile could not be read.")
        finally:
            self._places.release()


def _said(status: str, words: str, *headers: tuple[str, str]) -> _Answer:
    return status, [*_WORDS, *headers], f"{words}\n".encode()
