"""Keep encoded requests in one SQLite database, on disk or in memory."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from poller.encoding import Request

SCHEMA_VERSION = 1
_ROOM_PAGES = 1024
"""Pages of 4 KiB that an empty database may go on taking."""
_TABLE = """
CREATE TABLE IF NOT EXISTS request (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,         -- seconds since 1970 when it was made
    points INTEGER NOT NULL,  -- data points in it
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL        -- ExportMetricsServiceRequest
)
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """A request as it was put down."""

    id: int
    at: float
    """Seconds since 1970."""
    request: Request


class DamagedError(Exception):
    """The database, or one row of it, is not what was written."""


SHELF_ERRORS = (DamagedError, sqlite3.Error)
"""What a shelf raises."""
_DAMAGE = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR}
)
"""SQLite's primary result codes: bad pages, bad header, an id twice, a table that has not our columns."""


def is_damage(error: Exception) -> bool:
    """Whether it is the file's own fault, and not that of a disk that is full, away or read-only."""
    if isinstance(error, DamagedError):
        return True
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in _DAMAGE


class Shelf:
    """The requests of one database, in the order of their ids; whoever calls takes turns.

    Every method but `close` raises one of SHELF_ERRORS where the database cannot be used, or is damaged.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the database, or make it; None keeps it in memory. Its folder is locked by the caller."""
        if path is not None:
            path.touch(mode=0o600)  # SQLite gives its other files the same mode
        self._db = sqlite3.connect(
            str(path or ":memory:"), timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            # Alone with it, SQLite needs no shared memory, which some file systems do not have.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._db.execute("PRAGMA journal_mode = WAL")
            # A commit is on the disk when it returns, whatever happens to the machine then.
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA journal_size_limit = {4 * 2**20}")
            self._db.execute("PRAGMA temp_store = MEMORY")
            self._check_version()
            self._db.execute(_TABLE)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._recount()
        except BaseException:
            self.close()
            raise

    requests: int
    """Requests kept."""
    size: int
    """Bytes of their bodies."""
    last: int
    """The highest id; 0 where there is none."""

    def add(self, kept: Sequence[Kept]) -> None:
        """Put requests down, all or none; their ids are higher than those of all before."""
        rows = [(one.id, one.at, one.request.points, _checksum(one), one.request.body) for one in kept]
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany("INSERT INTO request VALUES (?, ?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self.requests += len(rows)
        self.size += sum(len(one.request.body) for one in kept)
        self.last = kept[-1].id

    def first(self, after: int) -> tuple[int, float] | None:
        """The oldest request's id above `after`, and when it was made; None where there is none."""
        found = self._db.execute(
            "SELECT id, at FROM request WHERE id > ? ORDER BY id LIMIT 1", (after,)
        ).fetchone()
        if found is None:
            return None
        number, at = found
        if not isinstance(at, float):
            raise DamagedError(f"the time of request {number} is none")
        return number, at

    def read(self, number: int) -> Kept:
        """The request with an id that is there; DamagedError where it has changed."""
        found = self._db.execute(
            "SELECT at, points, checksum, body FROM request WHERE id = ?", (number,)
        ).fetchone()
        if found is not None and isinstance(found[3], bytes):
            at, points, checksum, body = found
            kept = Kept(number, at, Request(body, points))
            if _checksum(kept) == checksum:
                return kept
        raise DamagedError(f"request {number} is not what was written")

    def remove(self, first: int, last: int) -> None:
        """Take the requests from one id to another away; it is no error where there are none."""
        between = (first, last)
        count, size = self._db.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM request WHERE id BETWEEN ? AND ?", between
        ).fetchone()
        if not count:
            return
        self._db.execute("DELETE FROM request WHERE id BETWEEN ? AND ?", between)
        self.requests -= count
        self.size -= size
        if not self.requests and self._db.execute("PRAGMA page_count").fetchone()[0] > _ROOM_PAGES:
            # What an outage has taken of the disk is given back when it is over.
            # A script, because `execute` would free one page of it.
            self._db.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the database, also one that is damaged."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _check_version(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if version != (SCHEMA_VERSION if tables else 0):
            raise DamagedError(f"its version is {version}, and this program knows {SCHEMA_VERSION}")

    def _recount(self) -> None:
        self.requests, self.size, self.last = self._db.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0), coalesce(max(id), 0) FROM request"
        ).fetchone()


def _checksum(kept: Kept) -> int:
    head = repr((kept.id, kept.at, kept.request.points)).encode()
    return zlib.crc32(kept.request.body, zlib.crc32(head))
