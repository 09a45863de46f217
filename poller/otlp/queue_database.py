"""Tables of the queue's SQLite database, its reads, and its checksums."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from poller.model import database
from poller.model.database import Schema
from poller.otlp.request import Request

_LARGEST_GAP = 10_000
"""Number of ids between two damaged pages that are looked up individually."""
SCHEMA = Schema(
    version=2,
    older=(1,),
    tables=(
        """
CREATE TABLE IF NOT EXISTS request (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,         -- seconds since 1970 when it was made
    points INTEGER NOT NULL,  -- data points in it
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL        -- ExportMetricsServiceRequest
)
""",
        """
CREATE TABLE IF NOT EXISTS total (
    id INTEGER PRIMARY KEY,     -- 0, which no request has
    requests INTEGER NOT NULL,  -- rows of the other table, to count those that damage hides
    newest INTEGER NOT NULL,    -- the highest id of these rows
    checksum INTEGER NOT NULL
)
""",
    ),
)


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A request as it is stored."""

    id: int
    at: float
    """Seconds since 1970."""
    request: Request


class DamagedRowError(Exception):
    """One request differs from what was written; the others may be intact."""

    def __init__(self, number: int) -> None:
        super().__init__(f"request {number} differs from the request that was stored")
        self.number = number


STORAGE_ERRORS = (DamagedRowError, *database.STORAGE_ERRORS)
"""Errors that a storage raises."""


def read_total(db: sqlite3.Connection) -> tuple[int, int] | None:
    """Return the request count and highest id after the last commit; None if damaged or missing."""
    entry = db.execute("SELECT requests, newest, checksum FROM total WHERE id = 0").fetchone()
    if entry is None or entry[2] != zlib.crc32(repr(entry[:2]).encode()):
        return None
    return entry[0], entry[1]


def write_total(db: sqlite3.Connection, requests: int) -> None:
    """Store the request count and the highest id."""
    (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM request").fetchone()
    row = (requests, newest, zlib.crc32(repr((requests, newest)).encode()))
    db.execute("INSERT OR REPLACE INTO total VALUES (0, ?, ?, ?)", row)


def readable(db: sqlite3.Connection, after: int) -> Iterator[StoredRequest | None]:
    """Yield every request above the id `after`, oldest first, and None for an unreadable request."""
    # A damaged page ends a scan. So the table is scanned from both ends, and the gap is looked up by id.
    ends: list[list[int]] = []
    for order in ("ASC", "DESC"):
        ends.append([])
        with contextlib.suppress(sqlite3.Error):
            for (number,) in db.execute(f"SELECT id FROM request WHERE id > ? ORDER BY id {order}", (after,)):
                ends[-1].append(number)
    numbers = {number for end in ends for number in end}
    if all(ends):
        numbers.update(range(ends[0][-1] + 1, min(ends[1][-1], ends[0][-1] + _LARGEST_GAP)))
    for number in sorted(numbers):
        try:
            stored = read_request(db, number)
        except STORAGE_ERRORS:
            yield None
        else:
            yield stored


def read_request(db: sqlite3.Connection, number: int) -> StoredRequest:
    """Return the request with this id; raises DamagedRowError if it has changed."""
    entry = db.execute("SELECT at, points, checksum, body FROM request WHERE id = ?", (number,)).fetchone()
    if entry is not None and isinstance(entry[3], bytes):
        at, points, checksum, body = entry
        stored = StoredRequest(number, at, Request(body, points))
        if checksum_of(stored) == checksum:
            return stored
    raise DamagedRowError(number)


def checksum_of(stored: StoredRequest) -> int:
    """Return the checksum of a request with its id and time."""
    head = repr((stored.id, stored.at, stored.request.items)).encode()
    return zlib.crc32(stored.request.body, zlib.crc32(head))
