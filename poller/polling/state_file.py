"""State file with the last good values of every target, which preserves them across a restart."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from poller.model import database
from poller.model.database import PAGE, STORAGE_ERRORS, DamagedError, Schema, is_damage
from poller.model.query import QueryDefinition
from poller.model.result import GoodResult
from poller.model.text import counted
from poller.polling.state_row import StateRow, decode, definition_of, encode

logger = logging.getLogger(__name__)

MAX_BYTES = 256 << 20
"""Maximum size of the file."""
_MAX_BODY = 64 << 20
"""Maximum size in bytes of the result of one query that is restored."""
_CLOCK_SET_BACK = 60.0
"""Seconds that a value may be in the future; beyond that, its age is unknown and it is discarded."""
_SCHEMA = Schema(
    version=1,
    tables=(
        """
CREATE TABLE IF NOT EXISTS value (
    target TEXT NOT NULL,
    query TEXT NOT NULL,
    source BLOB NOT NULL,      -- SHA-256 of the database's identity
    definition BLOB NOT NULL,  -- digest of the query
    checksum INTEGER NOT NULL,
    body BLOB NOT NULL,        -- result as JSON
    PRIMARY KEY (target, query)
) WITHOUT ROWID
""",
    ),
)
T = TypeVar("T")


class StateFile:
    """A SQLite database with one row per target and query; thread-safe.

    A kill of the process loses nothing that was stored, a power failure at most the last commit. No method
    raises an error of the disk or of the file. If the disk cannot store values, that is logged once, and so
    is its end. A damaged or foreign file is set aside, and a new one is created.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        """Use `values.db` in `folder`; both are created with the first value."""
        self._max_bytes = max_bytes
        self._path = folder / "values.db"
        self._turn = threading.RLock()
        self.waiting: deque[list[StateRow]] = deque()
        """Rows of the ticks that wait for the next commit."""
        self._db: sqlite3.Connection | None = None
        self._files: database.Files = ()
        self._failing = False

    def of(self, target: str, identity: str) -> TargetValues:
        """Return the values of one target; `identity` identifies its database, as text without secrets."""
        return TargetValues(self, target, identity)

    def forget(self, target: str) -> None:
        """Delete the values of one target."""
        self.run(lambda db: _delete(db, "target = ?", [(target,)]))

    def retain_targets(self, retained: Callable[[str], bool]) -> None:
        """Delete the values of all targets except those whose name is to be `retained`."""

        def delete(db: sqlite3.Connection) -> None:
            stored = [name.decode() for (name,) in db.execute("SELECT DISTINCT target FROM value")]
            _delete(db, "target = ?", [(name,) for name in stored if not retained(name)])

        self.run(delete)

    def store(self, rows: list[StateRow]) -> None:
        """Insert or replace all of the rows, or none if the disk cannot store them."""
        self.waiting.append(rows)
        with self._turn:
            # Ticks that end while another one is written share the next commit, because a commit takes long.
            batch = [row for _ in range(len(self.waiting)) for row in self.waiting.popleft()]

            def insert(db: sqlite3.Connection) -> None:
                with database.transaction(db):
                    db.executemany("INSERT OR REPLACE INTO value VALUES (?, ?, ?, ?, ?, ?)", batch)

            if batch:
                self.run(insert, storing=True)

    def run(
        self, action: Callable[[sqlite3.Connection], T], *, reading: bool = False, storing: bool = False
    ) -> T | None:
        """Return the result of `action`; None if that failed, or if there is no file.

        While `storing`, a missing or damaged file is replaced, and a failure is logged.
        """
        with self._turn:
            try:
                if not (storing or self._exists()):
                    return None
                try:
                    result = action(self._opened())
                except STORAGE_ERRORS as error:
                    if not is_damage(error, reading=reading):
                        raise
                    self._set_aside(error)
                    if not storing:
                        return None
                    result = action(self._opened())
            except STORAGE_ERRORS as error:
                # Other failures are not logged: if their cause persists, the next tick cannot be stored.
                if storing and not self._failing:
                    self._failing = True
                    message = "the values cannot be stored for a restart: %s: %s"
                    logger.warning(message, self._path.name, error)
                return None
            if storing and self._failing:
                self._failing = False
                logger.info("the values are stored again")
            return result

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._turn:
            self._close()

    def _exists(self) -> bool:
        return self._db is not None or self._path.exists()

    def _opened(self) -> sqlite3.Connection:
        """Return the open file. If it was removed or replaced, its values are copied to a new file."""
        old = self._db
        if old is not None and database.are_gone(self._files, database.files_of(self._path)):
            if self._has_name():  # only its journal was removed
                self._close()
            else:
                new = self._open()
                with contextlib.suppress(sqlite3.Error):  # the next ticks store the values again
                    old.backup(new)
                self._close()
                self._use(new)
        return self._db or self._use(self._open())

    def _use(self, db: sqlite3.Connection) -> sqlite3.Connection:
        self._db = db
        self._files = database.files_of(self._path)
        return db

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size > self._max_bytes:
                raise DamagedError(f"it is larger than {self._max_bytes / 2**20:g} MiB")
        db = database.open_database(self._path, _SCHEMA, synchronous="NORMAL")
        db.execute(f"PRAGMA max_page_count = {self._max_bytes // PAGE}")
        return db

    def _has_name(self) -> bool:
        """Return whether the path still leads to the open file."""
        return database.files_of(self._path)[:1] == self._files[:1]

    def _set_aside(self, error: Exception) -> None:
        """Rename a damaged file; raises OSError."""
        if self._has_name():
            self._close()
        database.move(self._path, self._path.with_suffix(".db.unreadable"))
        logger.warning("the stored values cannot be read and are discarded: %s", error)

    def _close(self) -> None:
        if self._db is not None:
            database.close(self._db)
            self._db = None


class TargetValues:
    """Stored values of one target.

    A tick writes only the rows of its queries, in one transaction. A value is restored only if the query is
    unchanged and the database is the same: values of other SQL or of another server would be wrong.
    """

    def __init__(self, file: StateFile, target: str, identity: str) -> None:
        self._file = file
        self._target = target
        self._source = hashlib.sha256(identity.encode()).digest()

    def load(self, queries: Iterable[QueryDefinition], now: float, wall: float) -> list[GoodResult]:
        """Return the stored values of `queries`, with their age.

        `now` is in seconds on the store's clock, `wall` in seconds since 1970. Damaged values are discarded
        with a warning.
        """
        queries = tuple(queries)

        def select(db: sqlite3.Connection) -> list[StateRow | None]:
            return [_select(db, self._target, query.name) for query in queries]

        rows = self._file.run(select, reading=True) or []
        if any(row is not None and row.source != self._source for row in rows):
            logger.info("the stored values are of another database and are not used")
        good: list[GoodResult] = []
        problems: list[Exception] = []
        for query, row in zip(queries, rows, strict=False):
            if row is None or (row.source, row.definition) != (self._source, definition_of(query)):
                continue
            try:
                result = decode(query, row)
            except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
                problems.append(error)
            else:
                if result.at <= wall + _CLOCK_SET_BACK:
                    good.append(GoodResult(result, now - max(0.0, wall - result.at)))
        if problems:
            logger.warning(
                "the stored values of %s cannot be read and are discarded: %s",
                counted(len(problems), "query"),
                problems[0],
            )
        return good

    def add(self, results: Sequence[GoodResult]) -> None:
        """Store the values of one tick; after the return, they survive a kill, but see `StateFile`."""
        self._file.store([encode(self._target, self._source, good.result) for good in results])

    def retain(self, names: Collection[str]) -> None:
        """Delete the values of all queries except `names`."""

        def delete(db: sqlite3.Connection) -> None:
            stored = db.execute("SELECT query FROM value WHERE target = ?", (self._target,)).fetchall()
            gone = {name.decode() for (name,) in stored}.difference(names)
            _delete(db, "target = ? AND query = ?", [(self._target, name) for name in gone])

        self._file.run(delete)


def _select(db: sqlite3.Connection, target: str, query: str) -> StateRow | None:
    entry = db.execute(
        "SELECT source, definition, checksum, CASE WHEN length(body) <= ? THEN body END"
        " FROM value WHERE target = ? AND query = ?",
        (_MAX_BODY, target, query),
    ).fetchone()
    return entry and StateRow(target, query, *entry)


def _delete(db: sqlite3.Connection, where: str, keys: Sequence[tuple[str, ...]]) -> None:
    with database.transaction(db):
        db.executemany(f"DELETE FROM value WHERE {where}", keys)
