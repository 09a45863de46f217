"""Layout of the queue's SQLite database, its reads, and the detection of damage."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poller.otlp.request import Request

SCHEMA_VERSION = 2
_PARTS = "", "-journal", "-wal"
"""Suffixes of the names of a database's files; version 1 used a write-ahead log."""
_LARGEST_GAP = 10_000
"""Number of ids between two damaged pages that are looked up individually."""
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
PAGE = 4096
"""Size of a page in bytes."""
_FORMATS = b"\x10\x00\x01\x01\x00\x40\x20\x20", b"\x10\x00\x02\x02\x00\x40\x20\x20"
"""Bytes 16 to 23 of the header: page size, format (2 for a write-ahead log), reserved bytes, fractions."""
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
        super().__init__(f"request {number} differs from the request that was stored")
        self.number = number


STORAGE_ERRORS = (DamagedError, DamagedRowError, sqlite3.Error, OSError, UnicodeDecodeError)
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


def parts(path: Path) -> list[Path]:
    """Return the paths of a database's files."""
    return [Path(f"{path}{part}") for part in _PARTS]


def connect(path: Path | None) -> sqlite3.Connection:
    """Open a database in autocommit mode; None keeps it in memory. Raises sqlite3.Error."""
    db = sqlite3.connect(str(path or ":memory:"), timeout=0, isolation_level=None, check_same_thread=False)
    db.text_factory = bytes  # damaged text may not be UTF-8
    return db


def version_of(db: sqlite3.Connection) -> tuple[int, int]:
    """Return the version of the tables, and the number of tables."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return version, tables


def lay_out(db: sqlite3.Connection) -> None:
    """Set the properties of a database that has no page yet."""
    db.execute(f"PRAGMA page_size = {PAGE}")
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")


def make_tables(db: sqlite3.Connection) -> None:
    """Create the missing tables."""
    for table in _TABLES:
        db.execute(table)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def new_database() -> sqlite3.Connection:
    """Return an empty database in memory with the same layout as every other."""
    db = connect(None)
    lay_out(db)
    make_tables(db)
    return db


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


def _schema(db: sqlite3.Connection) -> list[object]:
    return [
        db.execute("SELECT type, name, rootpage FROM sqlite_schema").fetchall(),
        db.execute("PRAGMA table_info(request)").fetchall(),
        db.execute("PRAGMA table_info(total)").fetchall(),
    ]


def check_header(path: Path) -> None:
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


def check_pages(db: sqlite3.Connection) -> None:
    """Raise DamagedError if SQLite would miss rows or overwrite existing rows."""
    with contextlib.closing(new_database()) as new:
        if _schema(db) != _schema(new):
            raise DamagedError("its table has another definition")
    (entry,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if entry != b"ok":
        raise DamagedError(" ".join(entry.decode(errors="replace").split()))


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
