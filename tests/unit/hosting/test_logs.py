"""Logs: JSON lines, one query id, and nothing that has no business there."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from permslip.hosting.logs import configure, get_log, query_logged, query_text

QUERY = bytes(range(32))


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stream = io.StringIO()
    configure("broker", stream=stream)
    yield stream
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_line_is_json_with_service_level_and_time(stream: io.StringIO) -> None:
    get_log("test").info("query routed", sections=3)

    [line] = lines(stream)
    assert line.pop("at").endswith("Z")
    assert line == {"event": "query routed", "level": "info", "sections": 3, "service": "broker"}


def test_logs_of_libraries_look_the_same(stream: io.StringIO) -> None:
    logging.getLogger("alembic").warning("running %s", "0001")

    [line] = lines(stream)
    assert (line["event"], line["level"], line["service"]) == ("running 0001", "warning", "broker")


def test_less_grave_lines_are_left_out(stream: io.StringIO) -> None:
    get_log("test").debug("detail")
    logging.getLogger("library").debug("detail")

    assert lines(stream) == []


async def test_query_id_is_on_every_line_of_its_own_task(stream: io.StringIO) -> None:
    async def work(query_id: bytes) -> None:
        with query_logged(query_id):
            await asyncio.sleep(0)
            get_log("test").info("decided")
            logging.getLogger("library").warning("slow")

    await asyncio.gather(work(QUERY), work(QUERY[::-1]))
    get_log("test").info("idle")

    ids = [line.get("query_id") for line in lines(stream)]
    assert Counter(ids[:4]) == {query_text(QUERY): 2, query_text(QUERY[::-1]): 2}
    assert ids[4] is None
    assert query_text(QUERY) == "0001020304050607"


def test_secrets_and_bytes_are_never_written(stream: io.StringIO) -> None:
    get_log("test").info(
        "started",
        passphrase="hunter2",
        private_key="k" * 44,
        grant=b"\xc0\xff\xee",
        nested={"api_token": "t0ken", "raw": bytearray(b"xyz"), "kept": 1},
        many=[b"abc", "fine"],
        machine="not a mac",
        text="x" * 3_000,
    )

    [line] = lines(stream)
    assert line["passphrase"] == line["private_key"] == line["nested"]["api_token"] == "[masked]"
    assert line["grant"] == line["nested"]["raw"] == "[3 bytes]"
    assert line["many"] == ["[3 bytes]", "fine"]
    assert (line["machine"], line["nested"]["kept"]) == ("not a mac", 1)
    assert len(line["text"]) == 2_049


def test_exception_is_logged_with_its_stack_but_no_variables(stream: io.StringIO) -> None:
    learner = "never to be seen"

    try:
        raise KeyError(len(learner))
    except KeyError as error:
        get_log("test").error("call failed", exc_info=error)

    [line] = lines(stream)
    assert "KeyError" in json.dumps(line)
    assert "test_logs.py" in json.dumps(line)
    assert learner not in json.dumps(line)


def test_on_a_terminal_lines_are_for_people() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    terminal = Terminal()
    configure("node", stream=terminal, level="debug")
    try:
        get_log("test").debug("attached", broker="here")
        learner = "never to be seen"
        try:
            raise KeyError(len(learner))
        except KeyError as error:
            get_log("test").error("call failed", exc_info=error)
    finally:
        root.handlers, root.level = handlers, level
        structlog.reset_defaults()

    assert "attached" in terminal.getvalue()
    assert "KeyError" in terminal.getvalue()
    assert "never to be seen" not in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
