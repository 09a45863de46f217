"""SQLite database that one process uses: its tables, durable opening, and the detection of damage."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PAGE = 4096
"""Size of a page in bytes."""
_PARTS = "", "-journal", "-wal"
"""Suffixes of the names of a database's files; version 1 of the queue used a write-ahead log."""
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
_FORMATS = b"\x10\x00\x01\x01\x00\x40\x20\x20", b"\x10\x00\x02\x02\x00\x40\x20\x20"
"""Bytes 16 to 23 of the header: page size, format (2 for a write-ahead log), reserved bytes, fractions."""


class DamagedError(Exception):
    """The database differs from what was written."""


STORAGE_ERRORS = (DamagedError, sqlite3.Error, OSError, UnicodeDecodeError)
"""Errors of a database's use; UnicodeDecodeError if SQLite's message quotes a damaged schema."""
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
a length that no row has."""


def is_damage(error: Exception, *, reading: bool = False) -> bool:
    """Return whether the file is damaged, as opposed to a full, missing or read-only disk.

    While `reading`, a disk that cannot return a page also counts as damage, because other pages may be good.
    """
    if isinstance(error, DamagedError | UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return code in _DAMAGE or (reading and code == sqlite3.SQLITE_IOERR)


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of a database, and their version."""

    version: int
    tables: tuple[str, ...]
    """Statements that create the missing tables."""
    older: tuple[int, ...] = ()
    """Versions that have only some of the tables; the others are added."""

    def create(self, db: sqlite3.Connection) -> None:
        """Create the missing tables."""
        for table in self.tables:
            db.execute(table)
        db.execute(f"PRAGMA user_version = {self.version}")

    def new_database(self) -> sqlite3.Connection:
        """Return an empty database in memory with the same layout as every other."""
        db = connect(None)
        _lay_out(db)
        self.create(db)
        return db

    def check(self, db: sqlite3.Connection) -> None:
        """Create the tables of a new database; raise DamagedError if existing ones are damaged or differ."""
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if version not in ((*self.older, self.version) if tables else (0,)):
            raise DamagedError(f"its version is {version}, and this program knows {self.version}")
        if not tables:
            db.execute(f"PRAGMA application_id = {secrets.randbits(31)}")
        if version != self.version:
            self.create(db)
        with contextlib.closing(self.new_database()) as new:
            if _entries(db) != _entries(new) or _columns(db) != _columns(new):
                raise DamagedError("its table has another definition")
        # Otherwise SQLite could miss rows or overwrite existing rows.
        (entry,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if entry != b"ok":
            raise DamagedError(" ".join(entry.decode(errors="replace").split()))


def connect(path: Path | None) -> sqlite3.Connection:
    """Open a database in autocommit mode; None keeps it in memory. Raises sqlite3.Error."""
    db = sqlite3.connect(str(path or ":memory:"), timeout=0, isolation_level=None, check_same_thread=False)
    db.text_factory = bytes  # damaged text may not be UTF-8
    return db


def open_database(
    path: Path | None, schema: Schema, *, synchronous: Literal["FULL", "NORMAL"] = "FULL"
) -> sqlite3.Connection:
    """Open or create a database that no other process can use meanwhile; None keeps it in memory.

    FULL syncs the database and the truncated journal before a commit returns. NORMAL syncs the database only,
    in a third of the time, so that a power failure can undo the last commit. An intact database is opened
    without writing, so that it also opens on a full disk. Raises one of STORAGE_ERRORS.
    """
    if path is not None:
        path.touch(mode=0o600)  # SQLite gives its other files the same mode
        if not path.is_file():
            raise DamagedError("it is not a regular file")
        _check_header(path)
        if not has_sound_journal(path):
            raise DamagedError("its journal is damaged")
        Path(f"{path}-journal").touch(mode=0o600)  # it exists from now on, so its removal is noticed
    db = connect(path)
    try:
        # The lock is never released, so that no reader can block a commit.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        # No write-ahead log, because one flipped bit in it hides every later commit.
        db.execute("PRAGMA journal_mode = TRUNCATE")
        db.execute(f"PRAGMA synchronous = {synchronous}")
        db.execute("PRAGMA temp_store = MEMORY")
        if db.execute("PRAGMA page_count").fetchone() == (0,):
            _lay_out(db)
        with transaction(db, "EXCLUSIVE"):
            schema.check(db)
    except BaseException:
        close(db)
        raise
    return db


@contextlib.contextmanager
def transaction(db: sqlite3.Connection, lock: str = "IMMEDIATE") -> Iterator[None]:
    """Commit the changes of the block, or none of them if it or the commit fails."""
    db.execute(f"BEGIN {lock}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def close(db: sqlite3.Connection) -> None:
    """Close a database, even if it is damaged."""
    with contextlib.suppress(sqlite3.Error):
        db.close()


def parts(path: Path) -> list[Path]:
    """Return the paths of a database's files."""
    return [Path(f"{path}{part}") for part in _PARTS]


def move(path: Path, target: Path) -> None:
    """Rename the files of a database; those of `target` are replaced. Raises OSError."""
    for part, renamed in zip(parts(path), parts(target), strict=True):
        renamed.unlink(missing_ok=True)
        if part.exists():
            part.rename(renamed)


Files = tuple[tuple[int, int] | None, ...]
"""Device and inode of each file of a database; None for a file that does not exist."""


def files_of(path: Path) -> Files:
    """Return the files that the path of a database leads to now; the first is the database itself."""
    return tuple(map(_inode, parts(path)))


def are_gone(before: Files, now: Files) -> bool:
    """Return whether files were removed or replaced; SQLite keeps using the files it opened."""
    return any(then is not None and then != current for then, current in zip(before, now, strict=True))


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


def _check_header(path: Path) -> None:
    """Raise DamagedError for a header that SQLite would read as a read-only file or another layout."""
    with path.open("rb") as file:
        header = file.read(100)
    if header and header[16:24] not in _FORMATS:
        raise DamagedError("its header is damaged")


def _lay_out(db: sqlite3.Connection) -> None:
    """Set the properties of a database that has no page yet."""
    db.execute(f"PRAGMA page_size = {PAGE}")
    db.execute("PRAGMA auto_vacuum = INCREMENTAL")


def _entries(db: sqlite3.Connection) -> list[tuple[bytes, bytes, int]]:
    return db.execute("SELECT type, name, rootpage FROM sqlite_schema").fetchall()


def _columns(db: sqlite3.Connection) -> list[object]:
    return [
        db.execute(f"PRAGMA table_info({name.decode()})").fetchall()
        for kind, name, _ in _entries(db)
        if kind == b"table"
    ]


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        entry = path.stat()
    except OSError:
        return None
    return entry.st_dev, entry.st_ino
