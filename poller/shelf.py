"""Keep encoded requests in one SQLite database, on disk or in memory."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from poller.encoding import Request

SCHEMA_VERSION = 1
_PARTS = "", "-wal"
"""What the names of a database's files end in."""
_MARK = "spool.settled"
_MARK_BYTES = 32
_LARGEST_GAP = 10_000
"""Ids that are looked up one by one between two damaged pages."""
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
    """The database is not what was written."""


class DamagedRowError(Exception):
    """One request is not what was written; the others may well be."""

    def __init__(self, number: int) -> None:
        super().__init__(f"request {number} is not what was written")
        self.number = number


SHELF_ERRORS = (DamagedError, DamagedRowError, sqlite3.Error, OSError)
"""What a shelf raises."""
_DAMAGE = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR}
)
"""SQLite's primary result codes: bad pages, bad header, an id twice, a table that has not our columns."""


def is_damage(error: Exception, *, reading: bool = False) -> bool:
    """Whether the file itself is damaged, and not the disk full, away or read-only.

    While `reading`, a disk that cannot return a page counts as damage as well: the other pages may be good.
    """
    if isinstance(error, DamagedError):
        return True
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return code in _DAMAGE or (reading and code == sqlite3.SQLITE_IOERR)


class Shelf:
    """The requests of one database, in the order of their ids; whoever calls takes turns.

    Every method but `close` raises one of SHELF_ERRORS where the database cannot be used, or is damaged.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the database, or make it; None keeps it in memory. Its folder is locked by the caller."""
        self._path = path
        self._mark = -1
        if path is not None:
            path.touch(mode=0o600)  # SQLite gives its other files the same mode
            if not path.is_file():
                raise DamagedError("it is not a regular file")
        self._db = _connect(path)
        try:
            # Alone with it, SQLite needs no shared memory, which some file systems do not have.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._db.execute("PRAGMA journal_mode = WAL")
            # A commit is on the disk when it returns, whatever happens to the machine then.
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA journal_size_limit = {4 * 2**20}")
            self._db.execute("PRAGMA temp_store = MEMORY")
            if self._is_new():
                self._db.execute(f"PRAGMA application_id = {secrets.randbits(31)}")
            self._db.execute(_TABLE)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._read_mark()
            self._recount()
            self._files = self._state()
        except BaseException:
            self.close()
            raise

    requests: int
    """Requests kept."""
    size: int
    """Bytes of their bodies."""
    last: int
    """The highest id that was used; 0 if there is none."""
    floor = 0
    """The highest id that was settled but could not be removed; what is up to it counts as removed."""

    @property
    def is_gone(self) -> bool:
        """Whether the files were removed or replaced: SQLite goes on in files that no name leads to."""
        return any(
            then is not None and then != now for then, now in zip(self._files, self._state(), strict=True)
        )

    @property
    def has_name(self) -> bool:
        """Whether the database itself is still the file of its name."""
        return self._state()[:1] == self._files[:1]

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
            "SELECT id, at FROM request WHERE id > ? ORDER BY id LIMIT 1", (max(after, self.floor),)
        ).fetchone()
        if found is None:
            return None
        number, at = found
        if not isinstance(at, float):
            raise DamagedRowError(number)
        return number, at

    def read(self, number: int) -> Kept:
        """The request with an id that is there; raises DamagedRowError if it has changed."""
        return _read(self._db, number)

    def rescue(self) -> Iterator[Kept | None]:
        """Every request, oldest first, None for one that cannot be read any more; raises nothing."""
        return _readable(self._db, self.floor)

    def settle(self, number: int) -> None:
        """Remove a request for good. If there is no room to do so, the next process still knows about it.

        A full disk takes no removal, because SQLite writes to its log first; the mark has its room already.
        """
        try:
            self.remove(number, number)
            if self.floor:
                self._db.execute("DELETE FROM request WHERE id <= ?", (self.floor,))
        except sqlite3.Error:
            (oldest,) = self._db.execute("SELECT min(id) FROM request WHERE id > ?", (self.floor,)).fetchone()
            if oldest == number:
                self.floor = number
                self._recount()
                self._write_mark()
            raise

    def remove(self, first: int, last: int) -> int:
        """Remove the requests from one id to another, which may be none; returns how many."""
        between = (max(first, self.floor + 1), last)
        count, size = self._db.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM request WHERE id BETWEEN ? AND ?", between
        ).fetchone()
        if not count:
            return 0
        self._db.execute("DELETE FROM request WHERE id BETWEEN ? AND ?", between)
        self.requests -= count
        self.size -= size
        if not self.requests and self._db.execute("PRAGMA page_count").fetchone()[0] > _ROOM_PAGES:
            # What an outage has taken of the disk is given back when it is over.
            # A script, because `execute` would free one page of it.
            self._db.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")
        return int(count)

    def close(self) -> None:
        """Close the database, also one that is damaged."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1

    def _is_new(self) -> bool:
        """Whether nothing is in it; raises DamagedError if it is of another version."""
        version, tables = _version(self._db)
        if version != (SCHEMA_VERSION if tables else 0):
            raise DamagedError(f"its version is {version}, and this program knows {SCHEMA_VERSION}")
        return not tables

    def _recount(self) -> None:
        self.requests, self.size, last = self._db.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0), coalesce(max(id), 0) FROM request WHERE id > ?",
            (self.floor,),
        ).fetchone()
        self.last = max(last, self.floor)

    def _state(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(map(_inode, parts(self._path))) if self._path else ()

    def _read_mark(self) -> None:
        """Open the mark, and take its room while there is some."""
        if self._path is None:
            return
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        text = b""
        with contextlib.suppress(OSError):  # the mark is for a full disk, and a full disk may not take it
            self._mark = os.open(self._path.with_name(_MARK), flags, 0o600)
            text = os.pread(self._mark, _MARK_BYTES, 0)
        with contextlib.suppress(ValueError):
            self.floor = int(text[:20])
        if text != self._mark_text():  # of a database that was here before, or of none
            self.floor = 0
            with contextlib.suppress(OSError):
                self._write_mark()

    def _write_mark(self) -> None:
        if self._mark >= 0:
            os.pwrite(self._mark, self._mark_text(), 0)
            os.fdatasync(self._mark)

    def _mark_text(self) -> bytes:
        (database,) = self._db.execute("PRAGMA application_id").fetchone()
        number = f"{self.floor:020d}"
        return f"{number} {zlib.crc32(f'{number} {database}'.encode()):010d}\n".encode()


def salvage(path: Path) -> Iterator[Kept | None]:
    """What `Shelf.rescue` finds, of a database that cannot be opened."""
    with contextlib.suppress(*SHELF_ERRORS), contextlib.closing(_connect(path)) as db:
        if path.is_file() and _version(db)[0] == SCHEMA_VERSION:
            yield from _readable(db, 0)


def parts(path: Path) -> list[Path]:
    """The files of a database."""
    return [Path(f"{path}{part}") for part in _PARTS]


def _connect(path: Path | None) -> sqlite3.Connection:
    return sqlite3.connect(str(path or ":memory:"), timeout=0, isolation_level=None, check_same_thread=False)


def _version(db: sqlite3.Connection) -> tuple[int, int]:
    """The version of the tables, and how many there are."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return version, tables


def _readable(db: sqlite3.Connection, after: int) -> Iterator[Kept | None]:
    # A damaged page ends a scan, so each end is scanned from its own side, and the rest looked up by id.
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
            kept = _read(db, number)
        except SHELF_ERRORS:
            yield None
        else:
            yield kept


def _read(db: sqlite3.Connection, number: int) -> Kept:
    found = db.execute("SELECT at, points, checksum, body FROM request WHERE id = ?", (number,)).fetchone()
    if found is not None and isinstance(found[3], bytes):
        at, points, checksum, body = found
        kept = Kept(number, at, Request(body, points))
        if _checksum(kept) == checksum:
            return kept
    raise DamagedRowError(number)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _checksum(kept: Kept) -> int:
    head = repr((kept.id, kept.at, kept.request.points)).encode()
    return zlib.crc32(kept.request.body, zlib.crc32(head))
