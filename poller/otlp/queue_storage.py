"""SQLite storage of encoded requests, on disk or in memory."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from poller.model import database
from poller.model.database import DamagedError
from poller.otlp import queue_database
from poller.otlp.queue_database import DamagedRowError, StoredRequest

_MARK = "spool.settled"
_MARK_BYTES = 32
_ROOM_PAGES = 1024
"""Number of pages (4 KiB each) that an empty database may keep allocated."""


class QueueStorage:
    """The requests of one database, ordered by id; not thread-safe, so callers must take turns.

    Every method except `close` and `rescue` raises one of STORAGE_ERRORS if the database is damaged or cannot
    be used.
    """

    def __init__(self, path: Path | None) -> None:
        """Open or create the database; None keeps it in memory. The caller holds the lock of its folder."""
        self._path = path
        self._mark = -1
        self._db = database.open_database(path, queue_database.SCHEMA)
        try:
            self._check_total()
            self._read_mark()
            self._recount()
            self._files = self._state()
        except BaseException:
            self.close()
            raise

    requests: int
    """Number of stored requests."""
    size: int
    """Total size of their bodies in bytes."""
    last: int
    """Highest id in use; 0 if there is none."""
    floor = 0
    """Highest id that was settled but could not be removed; ids up to it count as removed."""

    @property
    def is_gone(self) -> bool:
        """Whether the files were removed or replaced; SQLite keeps using the files it opened."""
        return database.are_gone(self._files, self._state())

    @property
    def has_name(self) -> bool:
        """Whether the database's path still leads to the open file."""
        return self._state()[:1] == self._files[:1]

    def add(self, stored: Sequence[StoredRequest]) -> None:
        """Store all of the requests or none; their ids must be higher than all stored ids."""
        rows = [
            (item.id, item.at, item.request.items, queue_database.checksum_of(item), item.request.body)
            for item in stored
        ]
        size = sum(len(item.request.body) for item in stored)
        self._change("INSERT INTO request VALUES (?, ?, ?, ?, ?)", rows, len(rows), size)
        self.last = stored[-1].id

    def first(self, after: int) -> tuple[int, float] | None:
        """Return the id and time of the oldest request above the id `after`; None if there is none."""
        entry = self._db.execute(
            "SELECT id, at FROM request WHERE id > ? ORDER BY id LIMIT 1", (max(after, self.floor),)
        ).fetchone()
        if entry is None:
            return None
        number, at = entry
        if not isinstance(at, float):
            raise DamagedRowError(number)
        return number, at

    def read(self, number: int) -> StoredRequest:
        """Return the request with an existing id; raises DamagedRowError if it has changed."""
        return queue_database.read_request(self._db, number)

    def rescue(self) -> Iterator[StoredRequest | None]:
        """Yield every request, oldest first, and None for an unreadable request; raises nothing."""
        return queue_database.readable(self._db, self.floor)

    def settle(self, number: int) -> None:
        """Remove a finished request. If that fails, raise, and record it in the mark if it is the oldest.

        A full disk accepts no removal, because SQLite writes its journal first. The mark's space is already
        allocated, so the record lets the next process skip the request.
        """
        try:
            self.remove(number, number)
        except sqlite3.Error:
            (oldest,) = self._db.execute("SELECT min(id) FROM request WHERE id > ?", (self.floor,)).fetchone()
            if oldest == number:
                self.floor = number
                self._recount()
                self._write_mark()
            raise

    def remove(self, first: int, last: int) -> int:
        """Remove the requests with ids from `first` to `last`; return how many there were."""
        between = (max(first, self.floor + 1), last)
        count, size = self._db.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM request WHERE id BETWEEN ? AND ?", between
        ).fetchone()
        if not count:
            return 0
        self._change("DELETE FROM request WHERE id BETWEEN ? AND ?", [between], -count, -size)
        if not self.requests and self._db.execute("PRAGMA page_count").fetchone()[0] > _ROOM_PAGES:
            # After an outage the disk space is returned. `executescript` runs the pragma to its end, but
            # `execute` would free only one page.
            self._db.executescript("PRAGMA incremental_vacuum")
        return int(count)

    def close(self) -> None:
        """Close the database, even if it is damaged."""
        database.close(self._db)
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1

    def _change(self, sql: str, rows: Sequence[tuple[object, ...]], requests: int, size: int) -> None:
        """Run a statement for all rows or none; it changes the totals by `requests` and `size` (bytes)."""
        with database.transaction(self._db):
            self._db.execute("DELETE FROM request WHERE id <= ?", (self.floor,))
            self._db.executemany(sql, rows)
            queue_database.write_total(self._db, self.requests + requests)
        self.requests += requests
        self.size += size

    def _check_total(self) -> None:
        """Raise DamagedError if requests are missing."""
        (rows,) = self._db.execute("SELECT count(*) FROM request").fetchone()
        total = queue_database.read_total(self._db)
        if total and total[0] > rows:
            raise DamagedError(f"{total[0] - rows} of its {total[0]} requests are missing")
        if not total or total[0] != rows:
            queue_database.write_total(self._db, rows)

    def _recount(self) -> None:
        self.requests, self.size, last = self._db.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0), coalesce(max(id), 0) FROM request WHERE id > ?",
            (self.floor,),
        ).fetchone()
        self.last = max(last, self.floor)

    def _state(self) -> database.Files:
        return database.files_of(self._path) if self._path else ()

    def _read_mark(self) -> None:
        """Open the mark file and allocate its space, if the disk has any."""
        if self._path is None:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        text = b""
        with contextlib.suppress(OSError):  # the mark helps on a full disk, which may not accept it
            self._mark = os.open(self._path.with_name(_MARK), flags, 0o600)
            text = os.pread(self._mark, _MARK_BYTES, 0)
        with contextlib.suppress(ValueError):
            self.floor = int(text[:20])
        if text != self._mark_text():  # the mark is empty or belongs to an earlier database
            self.floor = 0
            with contextlib.suppress(OSError):
                self._write_mark()

    def _write_mark(self) -> None:
        if self._mark >= 0:
            os.pwrite(self._mark, self._mark_text(), 0)
            os.fdatasync(self._mark)

    def _mark_text(self) -> bytes:
        (application,) = self._db.execute("PRAGMA application_id").fetchone()
        number = f"{self.floor:020d}"
        return f"{number} {zlib.crc32(f'{number} {application}'.encode()):010d}\n".encode()
