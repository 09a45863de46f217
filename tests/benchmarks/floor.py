"""Lower bound of the cost of polling: libpq alone.

    python -m tests.benchmarks.floor QUERIES DSN POLLS

QUERIES is a file with one statement per line. One pipeline sends them with a Sync after each, so that an
error does not affect other results, and reads their values as text. Nothing is mapped, stored or exported.
The output is one JSON object: seconds of wall time and of CPU for each poll.
"""

from __future__ import annotations

import json
import select
import sys
import time
from pathlib import Path

from psycopg import pq
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

_WARM = 3


def main(queries: Path, dsn: str, polls: int) -> None:
    statements = [line.encode() for line in queries.read_text().splitlines()]
    connection = pq.PGconn.connect(dsn.encode())
    connection.nonblocking = 1
    connection.enter_pipeline_mode()
    wall, cpu = [], []
    for number in range(polls + _WARM):
        began = time.monotonic(), time.process_time()
        assert len(_poll(connection, statements)) >= len(statements)
        ended = time.monotonic(), time.process_time()
        if number >= _WARM:
            wall.append(ended[0] - began[0])
            cpu.append(ended[1] - began[1])
    print(json.dumps({"wall": wall, "cpu": cpu}))


def _poll(connection: PGconn, statements: list[bytes]) -> list[tuple[bytes | None, ...]]:
    for statement in statements:
        connection.send_query_params(statement, None)
        connection.pipeline_sync()
    unsent = connection.flush()
    rows: list[tuple[bytes | None, ...]] = []
    waiting = len(statements)
    while waiting:
        while connection.is_busy():
            select.select([connection.socket], [connection.socket] if unsent else [], [])
            connection.consume_input()
            unsent = connection.flush() if unsent else 0
        result = connection.get_result()
        if result is None:
            continue
        if result.status == ExecStatus.PIPELINE_SYNC:
            waiting -= 1
        elif result.status == ExecStatus.TUPLES_OK:
            columns = range(result.nfields)
            rows += (
                tuple(result.get_value(row, column) for column in columns) for row in range(result.ntuples)
            )
        else:
            raise RuntimeError(result.error_message)
    return rows


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
