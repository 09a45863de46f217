"""List of the databases of a server, as a query that runs like those of a poll."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from poller.model.query import QueryDefinition
from poller.model.rows import Row

NAME = "list of databases"
"""Name of the query and of its group; the name of no query in a file contains a space."""
MOST_DATABASES = 100_000
"""Maximum number of databases that are read: about 12 MB."""
_TIMEOUT = 10.0
# A name is in the encoding of the database in which it was created, so a conversion may fail or change it.
# As bytes it is the same from every database. A backslash begins an escape in the text of bytea.
_BYTES = (
    "pg_catalog.replace(datname::pg_catalog.text, pg_catalog.chr(92), "
    "pg_catalog.repeat(pg_catalog.chr(92), 2))::pg_catalog.bytea"
)
# An interrupted DROP DATABASE leaves a database with the limit -2.
_SQL = f"""\
SELECT pg_catalog.encode({_BYTES}, 'hex') AS name, oid::pg_catalog.int8 AS oid,
  pg_catalog.has_database_privilege(current_user, oid, 'CONNECT') AS may_connect
FROM pg_catalog.pg_database
WHERE datallowconn AND NOT datistemplate AND datconnlimit OPERATOR(pg_catalog.<>) -2
ORDER BY datname"""


class DatabaseList(NamedTuple):
    """The databases of a server that allow connections and are no templates."""

    oids: dict[str, int]
    """By name, in the order of the names; those to which the role may connect."""
    no_privilege: int
    """Number of databases to which the role may not connect."""
    unnamed: int
    """Number of databases whose name is not valid UTF-8, so that it cannot be exported."""


def list_query(interval: float) -> QueryDefinition:
    """Return the query, to be run every `interval` seconds; its rows are for `read_list`."""
    return QueryDefinition(
        name=NAME,
        sql=_SQL,
        ordered=True,
        interval=interval,
        timeout=_TIMEOUT,
        max_series=MOST_DATABASES,
        group=NAME,
        metrics=(),
    )


def read_list(rows: Sequence[Row]) -> DatabaseList:
    """Read the rows of `list_query`."""
    oids: dict[str, int] = {}
    no_privilege = unnamed = 0
    for raw_name, oid, may_connect in rows:
        try:
            name = bytes.fromhex((raw_name or b"").decode()).decode()
        except UnicodeDecodeError:
            unnamed += 1
            continue
        if may_connect == b"t":
            oids[name] = int(oid or 0)
        else:  # NULL: it was dropped just now
            no_privilege += 1
    return DatabaseList(oids, no_privilege, unnamed)
