"""A cable between two parties: bytes pass through it until a test cuts it, or lets only so many more of them pass.

It is a TCP proxy on a loopback port of its own, with threads of its own, so that it lives on between the event loops of
tests. Whoever dials anew after a cut gets through again, unless the cable is unplugged.

Example::

    with Cable(broker_port) as cable:
        node.brokers = f"127.0.0.1:{cable.port}=…"
        cable.hold("up", after=100_000)      # the first hundred thousand bytes of an answer leave, then no more
        cable.until_held()
        cable.cut()
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self

__all__ = ["Cable"]

Direction = Literal["up", "down"]

_PATIENCE = 20.0
# Closing sends a reset instead of a farewell, as a cable that is cut says nothing at all of what was under way.
_RESET = struct.pack("ii", 1, 0)


class _Connection:
    """Both ends of one connection, and the two threads that pass bytes between them.

    A socket is closed by the last thread that uses it: its number may be another's as soon as it is closed.
    """

    def __init__(self, party: socket.socket, other: socket.socket) -> None:
        self.party, self.other = party, other
        self._users = 2
        self._turn = threading.Lock()

    def cut(self) -> None:
        """Wake both threads: nothing passes any more."""
        for end in (self.party, self.other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def leave(self) -> None:
        """One of the threads is done."""
        self.cut()
        with self._turn:
            self._users -= 1
            if self._users:
                return
        for end in (self.party, self.other):
            _reset(end)


class Cable:
    """Passes everything on from its own port to another.

    Args:
        target: the port at the other end.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._change = threading.Condition()
        self._connections: set[_Connection] = set()
        self._left: dict[Direction, int] = {}
        self._held: set[Direction] = set()
        self._unplugged = False
        self._closed = False
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._change:
            self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in list(self._threads):
            thread.join(_PATIENCE)
        self._listener.close()

    @property
    def address(self) -> str:
        """Where to dial."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break every connection, and drop what is held; whoever dials anew gets through."""
        with self._change:
            connections, self._connections = self._connections, set()
            self._left.clear()
            self._held.clear()
            self._change.notify_all()
        for each in connections:
            each.cut()

    def unplug(self) -> None:
        """Break every connection, and let none come about until :meth:`plug`."""
        self._unplugged = True
        self.cut()

    def plug(self) -> None:
        """Let connections come about again."""
        self._unplugged = False

    def hold(self, direction: Direction, *, after: int = 0) -> None:
        """Let so many more bytes pass, ``up`` (from who dialled) or ``down``; then nothing until :meth:`cut`."""
        with self._change:
            self._left[direction] = after

    def release(self) -> None:
        """Let what was held pass on."""
        with self._change:
            self._left.clear()
            self._held.clear()
            self._change.notify_all()

    def until_held(self) -> None:
        """Wait until something that wanted to pass was held."""
        with self._change:
            assert self._change.wait_for(lambda: bool(self._held), _PATIENCE), "nothing wanted to pass"

    def _accept(self) -> None:
        while True:
            try:
                party, _ = self._listener.accept()
            except OSError:
                return
            try:
                other = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                _reset(party)
                continue
            for end in (party, other):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(party, other)
            with self._change:
                refused = self._unplugged or self._closed
                if not refused:
                    self._connections.add(connection)
            if refused:
                _reset(party)
                _reset(other)
                continue
            self._start(self._pass_on, connection, party, other, "up")
            self._start(self._pass_on, connection, other, party, "down")

    def _pass_on(self, connection: _Connection, source: socket.socket, sink: socket.socket, way: Direction) -> None:
        try:
            while block := source.recv(65536):
                while block:
                    part = block[: self._room(connection, way, len(block))]
                    if not part:
                        return
                    sink.sendall(part)
                    block = block[len(part) :]
        except OSError:
            return
        finally:
            with self._change:
                self._connections.discard(connection)
                self._change.notify_all()
            connection.leave()

    def _room(self, connection: _Connection, way: Direction, wanted: int) -> int:
        """How many bytes may pass now; waits while none may. 0: the connection was cut."""
        with self._change:
            while connection in self._connections:
                left = self._left.get(way)
                if left is None:
                    return wanted
                if left > 0:
                    passed = min(left, wanted)
                    self._left[way] = left - passed
                    return passed
                self._held.add(way)
                self._change.notify_all()
                self._change.wait()
            return 0

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.close()
