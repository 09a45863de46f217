"""A burst leaves in full segments, and nothing stays behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import psycopg
import pytest

from poller.cork import corked
from poller.pipeline import Pipeline, Statement
from poller.waker import Waker
from tests.bed.postgres import Database

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="only Linux has TCP_CORK")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection that sends what it is given at once, as libpq's does, and its other end."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        other, _ = server.accept()
        with other:
            yield one, other


def is_corked(connection: socket.socket) -> bool:
    return bool(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))


def test_a_socket_is_corked_inside_and_open_again_behind(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    with corked(one.fileno()):
        assert is_corked(one)
        for _ in range(200):
            one.sendall(b"x" * 50)
    assert not is_corked(one)
    received = b""
    while len(received) < 200 * 50:
        received += other.recv(65536)
    assert received == b"x" * 200 * 50


def test_it_is_open_again_whatever_happened_inside(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    with pytest.raises(RuntimeError):
        _break_after(one)
    assert other.recv(1) == b"x"
    one.sendall(b"y")
    assert other.recv(1) == b"y"


def _break_after(connection: socket.socket) -> None:
    with corked(connection.fileno()):
        connection.sendall(b"x")
        raise RuntimeError


def test_what_cannot_be_corked_is_let_be() -> None:
    one, other = socket.socketpair()
    with one, other:
        with corked(one.fileno()):
            one.sendall(b"x")
        assert other.recv(1) == b"x"
    reader, writer = os.pipe()
    try:
        with corked(writer):
            os.write(writer, b"x")
    finally:
        os.close(reader)
        os.close(writer)
    with corked(-1):
        pass


@pytest.mark.postgres
def test_a_burst_is_sent_corked_and_read_open(database: Database) -> None:
    waker = Waker()
    with (
        psycopg.connect(database.standby_dsn, autocommit=True) as connection,
        socket.socket(fileno=os.dup(connection.fileno())) as seen,
    ):

        class Watched(list[Statement]):
            """Says at each look at its items whether the connection is corked."""

            def __iter__(self) -> Iterator[Statement]:
                for statement in super().__iter__():
                    looks.append(is_corked(seen))
                    yield statement

        looks: list[bool] = []
        replies = list(Pipeline(connection, waker).send(Watched([Statement("SELECT 1", 60.0)] * 3)))
        assert all(reply.rows for reply in replies)
        assert looks == [True] * 3 + [False] * 3
        assert not is_corked(seen)
    waker.close()
