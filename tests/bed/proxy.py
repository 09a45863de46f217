"""A TCP proxy on loopback that can refuse, hang, cut and delay, and counts round trips."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from psycopg.conninfo import make_conninfo

from poller.receiver.ports import LOOPBACK, free_ports
from tests.bed.cleanup import closing_all

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CHUNK = 65536


class Proxy(contextlib.AbstractContextManager["Proxy"]):
    """Forwards everything between clients and one server until a method interrupts it.

    `round_trips` counts, over all connections, how often a client sent data after the server did (or first):
    each costs the client the latency of the network.
    """

    def __init__(self, port: int, host: str = LOOPBACK) -> None:
        """Listen on a free port for connections to `host`:`port`."""
        self._target = host, port
        (self.port,) = free_ports(1)
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._connected: set[_Connection] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._cut_after: int | None = None
        self.delay_up = 0.0
        """Delay in seconds of each piece from client to server."""
        self.delay_down = 0.0
        """Delay in seconds of each piece from server to client."""
        self.connections = 0
        self.round_trips = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self.record: list[tuple[bytearray, bytearray]] | None = None
        """If this is a list, it receives the bytes of each new connection's client and server."""
        self._listen()

    def __exit__(self, *_: object) -> None:
        self.close()

    def dsn(self, dsn: str) -> str:
        """Return `dsn` with this proxy in place of the server."""
        return make_conninfo(dsn, host=LOOPBACK, port=self.port)

    def reset_counts(self) -> None:
        with self._lock:
            self.connections = self.round_trips = self.bytes_up = self.bytes_down = 0

    def refuse(self) -> None:
        """Stop listening, so that new connections are refused, and reset the existing ones."""
        listener, self._listener = self._listener, None
        if listener is not None:
            # Closing alone would leave the accepting thread in its call, which keeps the port open.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def hang(self) -> None:
        """Forward nothing; connections are accepted and stay open."""
        self._open.clear()

    def resume(self) -> None:
        """Forward everything (again)."""
        self._cut_after = None
        self._open.set()
        if self._listener is None:
            self._listen()

    def cut(self) -> None:
        """Reset every connection at both ends; new ones are still served."""
        with self._lock:
            connections = list(self._connected)
        for connection in connections:
            connection.reset()

    def cut_after(self, count: int) -> None:
        """Forward `count` more bytes of the server, then reset that connection; once."""
        with self._lock:
            self._cut_after = count

    def close(self) -> None:
        """Refuse connections, and wait until all threads have ended."""
        self.refuse()
        self._open.set()
        while self._threads:
            self._threads.pop().join()

    def _listen(self) -> None:
        self._listener = socket.create_server((LOOPBACK, self.port))
        self._run(self._accept, self._listener)

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="proxy", daemon=True)
        thread.start()
        self._threads.append(thread)  # `close` joins only threads that have started

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # no longer listening
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            connection = _Connection(client, server)
            with self._lock:
                self.connections += 1
                self._connected.add(connection)
                if self.record is not None:
                    self.record.append((connection.client_bytes, connection.server_bytes))
            if self._listener is not listener:
                connection.reset()
            self._run(self._pass, connection, client, server)
            self._run(self._pass, connection, server, client)

    def _pass(self, connection: _Connection, source: socket.socket, sink: socket.socket) -> None:
        upward = source is connection.client
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                time.sleep(self.delay_up if upward else self.delay_down)
                while not self._open.wait(0.05) and not connection.was_reset:
                    pass
                if connection.was_reset:
                    break  # Linux still returns data that arrived before or after SHUT_RD
                if self.record is not None:
                    (connection.client_bytes if upward else connection.server_bytes).extend(data)
                allowed = self._count(connection, len(data), upward=upward)
                sink.sendall(data[:allowed])
                if allowed < len(data):
                    connection.reset()
                    break
        if connection.end(sink):
            with self._lock:
                self._connected.discard(connection)

    def _count(self, connection: _Connection, length: int, *, upward: bool) -> int:
        """Count one piece; return how many of its bytes may pass."""
        with self._lock:
            if upward:
                self.round_trips += not connection.client_spoke_last
                self.bytes_up += length
            else:
                self.bytes_down += length
            connection.client_spoke_last = upward
            if upward or self._cut_after is None:
                return length
            allowed = min(self._cut_after, length)
            self._cut_after = None if allowed < length else self._cut_after - allowed
            return allowed


class _Connection:
    """A client's socket, the corresponding socket to the server, and the number of open directions."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.client_spoke_last = False
        self.client_bytes, self.server_bytes = bytearray(), bytearray()
        self._lock = threading.Lock()
        self._directions = 2
        self.was_reset = False
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def reset(self) -> None:
        """Close both ends with a reset, and wake the threads that read from them."""
        with self._lock:
            self.was_reset = True
            for end in (self.client, self.server):
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    end.shutdown(socket.SHUT_RD)

    def end(self, sink: socket.socket) -> bool:
        """End the direction towards `sink`; return whether it was the last and both ends are closed."""
        with self._lock:
            self._directions -= 1
            if self._directions == 0 or self.was_reset:
                self.client.close()
                self.server.close()
            else:
                with contextlib.suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)
            return self._directions == 0


@pytest.fixture
def make_proxy() -> Iterator[Callable[[int], Proxy]]:
    """Make proxies to ports of 127.0.0.1; they end with the test."""
    with closing_all(Proxy, Proxy.close) as make:
        yield make
