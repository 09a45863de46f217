"""A burst leaves in full segments, and nothing stays behind."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import psycopg
import pytest

from poller.cork import corked
from poller.pipeline import Pipeline, Statement
from poller.waker import Waker
from tests.bed.postgres import Database

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="this system has no TCP_CORK")

_DATA_SEGMENTS_SENT = 156
"""Where tcpi_data_segs_out stands in Linux' struct tcp_info."""


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


def sent(connection: socket.socket) -> int:
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("I", info, _DATA_SEGMENTS_SENT)[0])


def test_many_small_writes_leave_in_few_segments(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    before = sent(one)
    with corked(one.fileno()):
        for _ in range(200):
            one.sendall(b"x" * 50)
    received = b""
    while len(received) < 200 * 50:
        received += other.recv(65536)
    assert sent(one) - before < 100
    assert one.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK) == 0


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
def test_a_burst_of_many_statements_leaves_in_few_segments(database: Database) -> None:
    waker = Waker()
    with psycopg.connect(database.standby_dsn, autocommit=True) as connection:
        with socket.socket(fileno=os.dup(connection.fileno())) as seen:
            before = sent(seen)
            replies = list(Pipeline(connection, waker).send([Statement("SELECT 1", 60.0)] * 300))
            assert sent(seen) - before < 150
        assert all(reply.rows for reply in replies)
    waker.close()
