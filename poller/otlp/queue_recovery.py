"""Recovery of the requests of a damaged database that cannot be opened."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from poller.model.database import PAGE, connect, has_sound_journal, parts
from poller.otlp.queue_database import SCHEMA, STORAGE_ERRORS, StoredRequest, read_request, read_total

_MAPPED = PAGE // 5
"""Number of pages that one page of the pointer map describes, in 5 bytes each."""
_TREE_PAGES = 1, 5
"""Types of the root page and of the other pages of a tree, in the pointer map."""
_LEAF = b"\x0d"
"""First byte of a page that holds rows."""


def salvage(path: Path) -> Iterator[StoredRequest | None]:
    """Yield the requests of a database that cannot be opened, like `QueueStorage.rescue`; raises nothing.

    The first page is the same in every queue, so a copy of the file gets a new first page. The checksums of
    the rows show which rows are intact.
    """
    copy = path.with_name("spool.salvage.db")
    with contextlib.suppress(*STORAGE_ERRORS):
        try:
            if path.is_file():
                for part, target in zip(parts(path), parts(copy), strict=True):
                    target.unlink(missing_ok=True)
                    if part.is_file():
                        shutil.copyfile(part, target, follow_symlinks=False)
                        target.chmod(0o600)
                if not has_sound_journal(copy):
                    Path(f"{copy}-journal").unlink()  # the rows can be read without it
                with copy.open("r+b") as file:
                    file.write(_first_page())
                with contextlib.closing(connect(copy)) as db:
                    yield from _from_pages(db, copy)
        finally:
            for target in parts(copy):
                target.unlink(missing_ok=True)


def _first_page() -> bytes:
    """Return a first page that fits a database with any number of pages."""
    with contextlib.closing(SCHEMA.new_database()) as db:
        page = bytearray(db.serialize()[:PAGE])
    page[28:32] = bytes(4)  # without a page count SQLite uses the file size
    return bytes(page)


def _from_pages(db: sqlite3.Connection, path: Path) -> Iterator[StoredRequest | None]:
    """Yield every request of a copy with a new first page, oldest first; None for an unreadable request."""
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA journal_mode = MEMORY")  # moves the contents of a write-ahead log into the file
    db.execute("PRAGMA writable_schema = ON")
    roots = dict(db.execute("SELECT name, rootpage FROM sqlite_schema"))
    root = roots[b"request"]
    total = None
    with contextlib.suppress(sqlite3.Error):
        total = read_total(db)
    whole = db.execute("PRAGMA quick_check(1)").fetchone() == (b"ok",)
    places: dict[int, int] = {}
    # A broken tree may not reach some leaves. Each leaf is read as a tree of one page.
    for place in [root] if whole else [*_leaves(path), root]:
        _plant(db, place)
        for order in ("ASC", "DESC"):
            with contextlib.suppress(sqlite3.Error):
                for (number,) in db.execute(f"SELECT id FROM request WHERE id > 0 ORDER BY id {order}"):
                    places.setdefault(number, place)
    planted = whole_rows = damaged_rows = 0
    for number, place in sorted(places.items()):
        if place != planted:
            _plant(db, planted := place)
        try:
            stored = read_request(db, number)
        except STORAGE_ERRORS:
            damaged_rows += place != roots[b"total"]
        else:
            whole_rows += total is None or number <= total[1]  # a higher id was never committed
            yield stored
    yield from itertools.repeat(None, damaged_rows if total is None else total[0] - whole_rows)


def _plant(db: sqlite3.Connection, root: int) -> None:
    """Set a page of the file as the root page of the request table."""
    db.execute("UPDATE sqlite_schema SET rootpage = ? WHERE name = 'request'", (root,))
    db.execute("PRAGMA writable_schema = RESET")
    db.execute("PRAGMA writable_schema = ON")


def _leaves(path: Path) -> list[int]:
    """Return the pages with rows; the pointer map excludes freed pages, which still hold removed rows."""
    numbers: list[int] = []
    with path.open("rb") as file:
        for first in range(2, path.stat().st_size // PAGE + 1, _MAPPED + 1):
            file.seek((first - 1) * PAGE)
            types = file.read(PAGE)[: 5 * _MAPPED : 5]
            for page, kind in enumerate(types, first + 1):
                file.seek((page - 1) * PAGE)
                if kind in _TREE_PAGES and file.read(1) == _LEAF:
                    numbers.append(page)
    return numbers
