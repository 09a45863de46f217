"""Values that the poller has stored in its state folder."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from poller.polling.state_row import StateRow, checksum_of


def make_older(state: Path, query: str, hours: float) -> None:
    """Set the time of the stored values of a query back, of every target."""
    with closing(sqlite3.connect(state / "values.db")) as db, db:
        columns = "target, query, source, definition, checksum, body"
        for stored in db.execute(f"SELECT {columns} FROM value WHERE query = ?", (query,)).fetchall():
            body = json.loads(stored[-1])
            body["at"] -= 3600 * hours
            row = StateRow(*stored)._replace(body=json.dumps(body).encode())
            db.execute(
                "UPDATE value SET checksum = ?, body = ? WHERE target = ? AND query = ?",
                (checksum_of(row), row.body, row.target, query),
            )
