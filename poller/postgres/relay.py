"""Relay between a server and libpq that passes on a limited number of bytes at a time."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import termios
from contextlib import suppress

import psycopg
from psycopg.pq.abc import PGconn

PIECE_BYTES = 65536
"""Maximum bytes that one call of `receive` passes on."""


class Relay:
    """Passes bytes between a server and libpq, at most PIECE_BYTES at a time from the server to libpq.

    libpq makes its buffer as large as the message that it receives, and one PQconsumeInput reads until the
    buffer is full or the socket is empty: a fast server can deliver a value of 500 MB in one call. No option
    of libpq or of the socket limits that. Therefore libpq's descriptor is one end of a socket pair until
    `close`, and the relay has the server's socket. TLS works, because libpq encrypts above its
    descriptor. The relay sends everything that libpq has flushed so far, so segments are full although libpq
    flushes at each Sync.

    libpq must not wait by itself before `close`, because then no code would pass on its data.
    """

    def __init__(self, pgconn: PGconn) -> None:
        """Move the server's socket here; raises OSError if three more descriptors cannot be opened."""
        self._pgconn = pgconn
        self._descriptor = pgconn.socket
        self._server = socket.socket(fileno=os.dup(self._descriptor))
        try:
            self._inner, self._outer = socket.socketpair()
        except OSError:
            self._server.close()
            raise
        for end in (self._server, self._inner, self._outer):
            end.setblocking(False)
        os.dup2(self._outer.fileno(), self._descriptor, inheritable=False)

    def fileno(self) -> int:
        """Return the descriptor of the server's socket, to wait for."""
        return self._server.fileno()

    def receive(self) -> int:
        """Pass the next piece of the server's data to libpq; return its size in bytes.

        Raises psycopg.OperationalError if the connection is lost.
        """
        received = 0
        try:
            received = _pass_on(self._server, self._inner)
            if received == 0:
                self._inner.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass  # There is nothing to read.
        except ConnectionResetError:
            self._inner.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise psycopg.OperationalError(f"could not receive data from server: {error.strerror}") from error
        self._pgconn.consume_input()
        while _unread(self._outer):
            # libpq's buffer was full; each call makes room.
            self._pgconn.consume_input()
        return received

    def flush(self) -> bool:
        """Send libpq's data as far as the server accepts it; return whether data is left."""
        while True:
            unsent = bool(self._pgconn.flush())
            # A lost connection is reported by `receive`, after the server's last message.
            with suppress(OSError):
                while _unread(self._inner):
                    _pass_on(self._inner, self._server)
            left = bool(_unread(self._inner))
            if left or not unsent:
                return left

    def close(self) -> None:
        """Return the server's socket to libpq, unless libpq has closed its own."""
        if self._inner.fileno() < 0:
            return
        # If a part of libpq's data is unsent, the connection is useless. libpq then finds it closed.
        if not _unread(self._inner) and self._is_open():
            os.dup2(self._server.fileno(), self._descriptor, inheritable=False)
        for end in (self._server, self._inner, self._outer):
            end.close()

    def _is_open(self) -> bool:
        """Return whether libpq still owns the descriptor: another thread may have reused its number."""
        try:
            return self._pgconn.socket == self._descriptor
        except psycopg.OperationalError:
            return False


def _pass_on(source: socket.socket, target: socket.socket) -> int:
    """Move as much of the next piece as `target` accepts, so that no data is held in between.

    Return the number of bytes.
    """
    piece = source.recv(PIECE_BYTES, socket.MSG_PEEK)
    sent = target.send(piece) if piece else 0
    source.recv(sent)
    return sent


def _unread(end: socket.socket) -> int:
    """Return the number of bytes that can be read from `end`."""
    return int.from_bytes(fcntl.ioctl(end, termios.FIONREAD, b"\0" * 4), sys.byteorder)
