"""A refused connection has the server's SQLSTATE and helpful advice."""

from __future__ import annotations

from contextlib import closing

import pytest
from psycopg.conninfo import make_conninfo

from poller.postgres.sqlstate import refusal_of
from tests.bed.definitions import a_query
from tests.bed.postgres import Database
from tests.bed.replica import a_replica

_LIMIT = "pg_catalog.pg_database SET datconnlimit"

pytestmark = pytest.mark.every_version


def refused(dsn: str) -> tuple[str | None, str | None, str]:
    """Return SQLSTATE, hint and kind of the refusal."""
    with closing(a_replica(dsn)) as replica:
        (answer,) = replica.fetch([a_query()])
    assert answer.error is not None, answer
    return answer.error.sqlstate, answer.error.hint, answer.error.kind


@pytest.mark.parametrize(
    ("setup", "changes", "sqlstate", "advice"),
    [
        ('ALTER ROLE "{role}" CONNECTION LIMIT 0', {}, "53300", "the role's CONNECTION LIMIT"),
        ("ALTER DATABASE {database} CONNECTION LIMIT 0", {}, "53300", "LIMIT of the database"),
        ("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC", {}, "42501", "GRANT CONNECT ON DATABASE"),
        ("ALTER DATABASE {database} ALLOW_CONNECTIONS false", {}, "55000", "ALLOW_CONNECTIONS"),
        (f"UPDATE {_LIMIT} = -2 WHERE datname = '{{database}}'", {}, "55000", "drop and create"),
        ('ALTER ROLE "{role}" NOLOGIN', {}, "28000", "check the user's name"),
        ("SELECT 1", {"user": "nobody"}, "28000", "check the user's name"),
        ("SELECT 1", {"dbname": "too many clients"}, "3D000", "check the database's name"),
    ],
)
def test_each_refusal_of_a_real_server_has_its_sqlstate_and_its_advice(
    database: Database, setup: str, changes: dict[str, str], sqlstate: str, advice: str
) -> None:
    """The names contain the messages of other refusals."""
    role = f'permission denied for database "{database.name}'.replace('"', "")
    database.execute(f'CREATE ROLE "{role}" LOGIN')
    try:
        other = Database("postgres", database.site)
        other.execute(setup.format(role=role, database=database.name))
        dsn = make_conninfo(database.primary_dsn, **{"user": role, **changes})
        reported, hint, kind = refused(dsn)
    finally:
        if "ALLOW_CONNECTIONS" in setup:
            other.execute(f"ALTER DATABASE {database.name} ALLOW_CONNECTIONS true")
        other.execute(f"UPDATE {_LIMIT} = -1 WHERE datname = '{database.name}'")
        database.execute(f'DROP ROLE "{role}"')
    assert (reported, kind) == (sqlstate, "unavailable")
    assert hint is not None
    assert advice in hint


@pytest.mark.parametrize(
    ("message", "sqlstate"),
    [
        ("FATAL:  sorry, too many clients already", "53300"),
        (
            "FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute",
            "53300",
        ),
        ('FATAL:  password authentication failed for user "pg_hba.conf"', "28P01"),
        ('FATAL:  Peer authentication failed for user "x"', "28000"),
        ('FATAL:  no pg_hba.conf entry for host "::1", user "x", database "too many clients"', "28000"),
        ("FATAL:  the database system is not accepting connections", "57P03"),
        ('FATAL:  cannot connect to invalid database "x"', "55000"),
        ("connection refused", None),
        ("FATAL:  das Datenbanksystem startet", None),
    ],
)
def test_a_refusal_is_recognised_by_the_servers_words_and_not_by_names(
    message: str, sqlstate: str | None
) -> None:
    assert refusal_of(message)[0] == sqlstate
