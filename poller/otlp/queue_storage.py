"""SQLite storage of encoded requests, on disk or in memory, that detects damage."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from poller.otlp.request import Request

SCHEMA_VERSION = 2
_PARTS = "", "-journal", "-wal"
"""Suffixes of the names of a database's files; version 1 used a write-ahead log."""
_MARK = "spool.settled"
_MARK_BYTES = 32
_LARGEST_GAP = 10_000
"""Number of ids between two damaged pages that are looked up individually."""
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
PAGE = 4096
"""Size of a page in bytes."""
_FORMATS = b"\x10\x00\x01\x01\x00\x40\x20\x20", b"\x10\x00\x02\x02\x00\x40\x20\x20"
"""Bytes 16 to 23 of the header: page size, format (2 for a write-ahead log), reserved bytes, fractions."""
_ROOM_PAGES = 1024
"""Number of pages (4 KiB each) that an empty database may keep allocated."""
_TABLES = (
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
)


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A request as it is stored."""

    id: int
    at: float
    """Seconds since 1970."""
    request: Request


class DamagedError(Exception):
    """The database differs from what was written."""


class DamagedRowError(Exception):
    """One request differs from what was written; the others may be intact."""

    def __init__(self, number: int) -> None:
        super().__init__(f"request {number} is not what was written")
        self.number = number


SHELF_ERRORS = (DamagedError, DamagedRowError, sqlite3.Error, OSError, UnicodeDecodeError)
"""Errors that a storage raises; UnicodeDecodeError if SQLite's message quotes a damaged schema."""
_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_TOOBIG,
    }
)
"""SQLite's primary result codes for bad pages, a bad header, a duplicate id, a table with other columns, and
a length that no request has."""


def is_damage(error: Exception, *, reading: bool = False) -> bool:
    """Return whether the file is damaged, as opposed to a full, missing or read-only disk.

    While `reading`, a disk that cannot return a page also counts as damage, because other pages may be good.
    """
    if isinstance(error, DamagedError | UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return code in _DAMAGE or (reading and code == sqlite3.SQLITE_IOERR)


class QueueStorage:
    """The requests of one database, ordered by id; not thread-safe, so callers must take turns.

    Every method except `close` and `rescue` raises one of SHELF_ERRORS if the database is damaged or cannot
    be used.
    """

    def __init__(self, path: Path | None) -> None:
        """Open or create the database; None keeps it in memory. The caller holds the lock of its folder."""
        self._path = path
        self._mark = -1
        if path is not None:
            path.touch(mode=0o600)  # SQLite gives its other files the same mode
            if not path.is_file():
                raise DamagedError("it is not a regular file")
            _check_header(path)
            if not has_sound_journal(path):
                raise DamagedError("its journal is damaged")
            Path(f"{path}-journal").touch(mode=0o600)  # it exists from now on, so its removal is noticed
        self._db = connect(path)
        try:
            # The lock is never released, so that no reader can block a commit.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            # No write-ahead log, because one flipped bit in it hides every later commit.
            self._db.execute("PRAGMA journal_mode = TRUNCATE")
            # FULL syncs the database and the truncated journal before a commit returns.
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA temp_store = MEMORY")
            if self._db.execute("PRAGMA page_count").fetchone() == (0,):
                _lay_out(self._db)
            # Writes nothing to an intact database, so that it also opens on a full disk.
            self._db.execute("BEGIN EXCLUSIVE")
            self._open_tables()
            self._db.execute("COMMIT")
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
        return any(
            then is not None and then != now for then, now in zip(self._files, self._state(), strict=True)
        )

    @property
    def has_name(self) -> bool:
        """Whether the database's path still leads to the open file."""
        return self._state()[:1] == self._files[:1]

    def add(self, stored: Sequence[StoredRequest]) -> None:
        """Store all of the requests or none; their ids must be higher than all stored ids."""
        rows = [(item.id, item.at, item.request.items, _checksum(item), item.request.body) for item in stored]
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
        return read_request(self._db, number)

    def rescue(self) -> Iterator[StoredRequest | None]:
        """Yield every request, oldest first, and None for an unreadable request; raises nothing."""
        return _readable(self._db, self.floor)

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
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        if self._mark >= 0:
            os.close(self._mark)
            self._mark = -1

    def _change(self, sql: str, rows: Sequence[tuple[object, ...]], requests: int, size: int) -> None:
        """Run a statement for all rows or none; it changes the totals by `requests` and `size` (bytes)."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.execute("DELETE FROM request WHERE id <= ?", (self.floor,))
            self._db.executemany(sql, rows)
            _write_total(self._db, self.requests + requests)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self.requests += requests
        self.size += size

    def _open_tables(self) -> None:
        """Create or check the tables; raises DamagedError if they differ from what was written."""
        version, tables = _version(self._db)
        if version not in ((1, SCHEMA_VERSION) if tables else (0,)):
            raise DamagedError(f"its version is {version}, and this program knows {SCHEMA_VERSION}")
        if not tables:
            self._db.execute(f"PRAGMA application_id = {secrets.randbits(31)}")
        if version != SCHEMA_VERSION:
            _make_tables(self._db)
        _check_pages(self._db)
        (rows,) = self._db.execute("SELECT count(*) FROM request").fetchone()
        total = read_total(self._db)
        if total and total[0] > rows:
            raise DamagedError(f"{total[0] - rows} of its {total[0]} requests are missing")
        if not total or total[0] != rows:
            _write_total(self._db, rows)

    def _recount(self) -> None:
        self.requests, self.size, last = self._db.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0), coalesce(max(id), 0) FROM request WHERE id > ?",
            (self.floor,),
        ).fetchone()
        self.last = max(last, self.floor)

    def _state(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(map(_inode, parts(self._path))) if self._path else ()

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
        (database,) = self._db.execute("PRAGMA application_id").fetchone()
        number = f"{self.floor:020d}"
        return f"{number} {zlib.crc32(f'{number} {database}'.encode()):010d}\n".encode()


def parts(path: Path) -> list[Path]:
    """Return the paths of a database's files."""
    return [Path(f"{path}{part}") for part in _PARTS]


def connect(path: Path | None) -> sqlite3.Connection:
    """Open a database in autocommit mode; None keeps it in memory. Raises sqlite3.Error."""
    db = sqlite3.connect(str(path or ":memory:"), timeout=0, isolation_level=None, check_same_thread=False)
    db.text_factory = bytes  # damaged text may not be UTF-8
    return db


def _version(db: sqlite3.Connection) -> tuple[int, int]:
    """Return the version of the tables, and the number of tables."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return version, tables


def _lay_out(db: sqlite3.Connection) -> None:
    db.execute(f"PRAGMA page_size = {PAGE}")
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")


def _make_tables(db: sqlite3.Connection) -> None:
    for table in _TABLES:
        db.execute(table)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def new_database() -> sqlite3.Connection:
    """Return an empty database in memory with the same layout as every other."""
    db = connect(None)
    _lay_out(db)
    _make_tables(db)
    return db


def read_total(db: sqlite3.Connection) -> tuple[int, int] | None:
    """Return the request count and highest id after the last commit; None if damaged or missing."""
    entry = db.execute("SELECT requests, newest, checksum FROM total WHERE id = 0").fetchone()
    if entry is None or entry[2] != zlib.crc32(repr(entry[:2]).encode()):
        return None
    return entry[0], entry[1]


def _write_total(db: sqlite3.Connection, requests: int) -> None:
    (newest,) = db.execute("SELECT coalesce(max(id), 0) FROM request").fetchone()
    row = (requests, newest, zlib.crc32(repr((requests, newest)).encode()))
    db.execute("INSERT OR REPLACE INTO total VALUES (0, ?, ?, ?)", row)


def _schema(db: sqlite3.Connection) -> list[object]:
    return [
        db.execute("SELECT type, name, rootpage FROM sqlite_schema").fetchall(),
        db.execute("PRAGMA table_info(request)").fetchall(),
        db.execute("PRAGMA table_info(total)").fetchall(),
    ]


def _check_header(path: Path) -> None:
    """Raise DamagedError for a header that SQLite would read as a read-only file or another layout."""
    with path.open("rb") as file:
        header = file.read(100)
    if header and header[16:24] not in _FORMATS:
        raise DamagedError("its header is damaged")


def has_sound_journal(path: Path) -> bool:
    """Return whether SQLite can roll back a database's journal, whose header has no checksum.

    The header has the number of pages before the transaction, to which SQLite cuts or extends the file. A
    transaction shortens the file only after it has ended, so a larger number means damage.
    """
    journal = Path(f"{path}-journal")
    if not journal.is_file():
        return not journal.exists()
    with journal.open("rb") as file:
        header = file.read(20)
    pages = int.from_bytes(header[16:20], "big")
    return header[:8] != _JOURNAL_MAGIC or pages <= path.stat().st_size // PAGE


def _check_pages(db: sqlite3.Connection) -> None:
    """Raise DamagedError if SQLite would miss rows or overwrite existing rows."""
    with contextlib.closing(new_database()) as new:
        if _schema(db) != _schema(new):
            raise DamagedError("its table is not the one that was made")
    (entry,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if entry != b"ok":
        raise DamagedError(" ".join(entry.decode(errors="replace").split()))


def _readable(db: sqlite3.Connection, after: int) -> Iterator[StoredRequest | None]:
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
        except SHELF_ERRORS:
            yield None
        else:
            yield stored


def read_request(db: sqlite3.Connection, number: int) -> StoredRequest:
    """Return the request with this id; raises DamagedRowError if it has changed."""
    entry = db.execute("SELECT at, points, checksum, body FROM request WHERE id = ?", (number,)).fetchone()
    if entry is not None and isinstance(entry[3], bytes):
        at, points, checksum, body = entry
        stored = StoredRequest(number, at, Request(body, points))
        if _checksum(stored) == checksum:
            return stored
    raise DamagedRowError(number)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        entry = path.stat()
    except OSError:
        return None
    return entry.st_dev, entry.st_ino


def _checksum(stored: StoredRequest) -> int:
    head = repr((stored.id, stored.at, stored.request.items)).encode()
    return zlib.crc32(stored.request.body, zlib.crc32(head))
