"""List of the databases of a server, as a query that runs like those of a poll."""

from __future__ import annotations

from typing import Literal, NamedTuple

from poller.model.query import QueryDefinition
from poller.model.rows import Rows
from poller.model.target import Databases

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


DatabaseState = Literal["polled", "excluded", "over_limit", "no_privilege", "missing"]
"""State of a database of a server, as in `poller.state`.

polled        it is a target
excluded      the patterns, or the default for system databases, exclude it
over_limit    it is after the first `limit` names
no_privilege  the patterns include it, but the role may not connect to it
missing       it was polled before and is not in the list now, and its data is not deleted yet
"""


class DatabaseList(NamedTuple):
    """The databases of a server that allow connections and are no templates; names are sorted."""

    polled: dict[str, int]
    """OIDs of the databases that become targets, by name."""
    excluded: tuple[str, ...]
    """Databases that the patterns, or the default for system databases, exclude."""
    over_limit: tuple[str, ...]
    no_privilege: tuple[str, ...]
    """Databases that the patterns select, and to which the role may not connect."""
    unnamed: int = 0
    """Number of databases whose name is not valid UTF-8, so that it cannot be exported."""
    unread: int = 0
    """Number of databases that were too many to be read."""

    @property
    def counts(self) -> dict[DatabaseState, int]:
        """The number of databases in each state."""
        return {
            "polled": len(self.polled),
            "excluded": len(self.excluded) + self.unnamed,
            "over_limit": len(self.over_limit) + self.unread,
            "no_privilege": len(self.no_privilege),
        }


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


def read_list(rows: Rows, databases: Databases) -> DatabaseList:
    """Select the databases to poll among the rows of `list_query`."""
    oids: dict[str, int] = {}
    refused: list[str] = []
    unnamed = 0
    for raw_name, oid, may_connect in rows.values:
        try:
            name = bytes.fromhex((raw_name or b"").decode()).decode()
        except UnicodeDecodeError:
            unnamed += 1
            continue
        if may_connect == b"t":
            oids[name] = int(oid or 0)
        else:  # NULL: it was dropped just now
            refused.append(name)
    selected = databases.select(oids)
    no_privilege = tuple(sorted(filter(databases.matches, refused)))
    excluded = sorted({*selected.excluded, *refused}.difference(no_privilege))
    return DatabaseList(
        {name: oids[name] for name in selected.names},
        tuple(excluded),
        selected.over_limit,
        no_privilege,
        unnamed,
        rows.beyond,
    )
