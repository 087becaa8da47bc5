"""Logs: one JSON object a line on standard error, with the query's id through all processes.

Rules:

- A log holds keys, codes, counts and times, never learner data and never a secret. What looks like one is masked, and
  bytes are never written: a caller that wants an id in the log writes its hexadecimal form.
- While a query is worked on, every line carries ``query_id``: the first 8 bytes of its id, the same in the provider's,
  broker's and nodes' logs.
- On a terminal lines are for people; :func:`configure` sees by itself whether there is one.

Example::

    >>> configure("broker")                                             # doctest: +SKIP
    >>> log = get_log(__name__)
    >>> with query_logged(query_id):                                    # doctest: +SKIP
    ...     log.info("query routed", node=node_name, sections=3)
    {"node": "…", "sections": 3, "event": "query routed", "query_id": "9f86d081884c7d65", "service": "broker", …}
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Final, Literal, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

__all__ = ["Level", "configure", "get_log", "query_logged", "query_text"]

Level = Literal["debug", "info", "warning", "error"]

MASK: Final = "[masked]"
_QUERY_ID_BYTES: Final = 8
_MAX_TEXT: Final = 2_048
_SECRET_WORDS: Final = (
    "secret",
    "password",
    "passphrase",
    "private",
    "seed",
    "token",
    "credential",
    "authorization",
    "cookie",
    "mac",
)


def configure(
    service: str, *, level: Level = "info", stream: IO[str] | None = None, as_json: bool | None = None
) -> None:
    """Send this process's logs, those of libraries included, to ``stream``.

    Args:
        service: what every line says it is from, e.g. ``"broker"``.
        level: the least grave line that is written.
        stream: standard error if not given.
        as_json: JSON or lines for people; if not given, JSON unless ``stream`` is a terminal.
    """
    target = sys.stderr if stream is None else stream
    json = not target.isatty() if as_json is None else as_json
    least = logging.getLevelName(level.upper())

    def name_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        name_service,
    ]
    # A stack says where, never what the variables held: those may be a learner's.
    stack = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
    rendered: list[Processor] = (
        [stack, mask, structlog.processors.JSONRenderer()]
        if json
        else [
            mask,
            structlog.dev.ConsoleRenderer(colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback),
        ]
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(least),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(least)
    # Alembic tells at every start which of its plug-ins it found.
    logging.getLogger("alembic").setLevel(max(least, logging.WARNING))


def get_log(name: str) -> FilteringBoundLogger:
    """The logger of one module."""
    return cast("FilteringBoundLogger", structlog.stdlib.get_logger(name))


def query_text(query_id: bytes) -> str:
    """How a query is named in logs: the first 8 bytes of its id, in hexadecimal."""
    return query_id[:_QUERY_ID_BYTES].hex()


@contextmanager
def query_logged(query_id: bytes) -> Iterator[None]:
    """Every line that this task logs inside the block carries the query's id."""
    with structlog.contextvars.bound_contextvars(query_id=query_text(query_id)):
        yield


def mask(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: takes out bytes, and values whose name says that they are secret."""
    return {key: _masked(key, value) for key, value in event.items()}


def _masked(key: str, value: Any) -> Any:
    if any(word in key.lower().split("_") for word in _SECRET_WORDS):
        return MASK
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"[{len(value)} bytes]"
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT else f"{value[:_MAX_TEXT]}…"
    if isinstance(value, Mapping):
        return {str(inner): _masked(str(inner), part) for inner, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_masked(key, part) for part in value]
    return value
