"""Roles created by deploy/role.sql with the server's own psql; they end with the test."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from poller.demo.postgres import Account, Programs
from tests.bed.messaging import MessagingServer
from tests.bed.postgres import Database
from tests.bed.process import ROOT, eventually
from tests.bed.programs import need

SCRIPT = ROOT / "deploy/role.sql"


@dataclass(frozen=True)
class Role:
    """A role with a unique name, the psql that creates it, and DSNs to log in with it."""

    name: str
    psql: Path
    database: Database

    def make(self, *, dsn: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the script on the primary, or on `dsn`."""
        settings = {"role": self.name, **variables}
        words = [word for name, value in settings.items() for word in ("-v", f"{name}={value}")]
        return self.run(SCRIPT, *words, dsn=dsn)

    def run(self, script: Path, *words: str, dsn: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(self.psql), "--no-psqlrc", *words, "-f", str(script), dsn or self.database.primary_dsn]
        return subprocess.run(command, capture_output=True, text=True, timeout=30)

    def made(self, *, dsn: str | None = None, **variables: str) -> Role:
        done = self.make(dsn=dsn, **variables)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        self.database.replayed()
        return self

    @property
    def primary_dsn(self) -> str:
        return make_conninfo(self.database.primary_dsn, user=self.name)

    @property
    def standby_dsn(self) -> str:
        return make_conninfo(self.database.standby_dsn, user=self.name)

    def refusal(self, statement: str, *, may_write: bool = False) -> str | None:
        """Return the SQLSTATE of the statement for the role on the primary; None if it succeeds."""
        # A backend outlives its connection by a moment, and the role may have only two.
        eventually(lambda: self._backends() == 0)
        with psycopg.connect(self.primary_dsn, autocommit=True) as connection:
            if may_write:
                connection.execute("SET default_transaction_read_only = off")
            try:
                connection.execute(statement.encode())
            except psycopg.Error as error:
                return error.sqlstate
            return None

    def _backends(self) -> int:
        count = f"SELECT count(*)::int FROM pg_stat_activity WHERE usename = '{self.name}'"
        return int(self.database.execute(count)[0][0])

    def state(self) -> list[Any]:
        """Return everything that the script changes, from the system catalogs."""
        oid = f"'{self.name}'::regrole"
        queries = [
            f"SELECT to_jsonb(pg_authid) FROM pg_authid WHERE oid = {oid}",
            f"SELECT setdatabase::int, setconfig FROM pg_db_role_setting WHERE setrole = {oid} ORDER BY 1",
            f"SELECT to_jsonb(pg_auth_members) FROM pg_auth_members WHERE member = {oid}",
            "SELECT datacl::text FROM pg_database WHERE datname = current_database()",
            "SELECT nspname, nspacl::text FROM pg_namespace ORDER BY 1",
            "SELECT oid::int, relacl::text FROM pg_class WHERE relacl IS NOT NULL ORDER BY 1",
            "SELECT attrelid::int, attnum, attacl::text FROM pg_attribute WHERE attacl <> '{}' ORDER BY 1, 2",
        ]
        return [self.database.execute(query) for query in queries]


@pytest.fixture(scope="session")
def psql(request: pytest.FixtureRequest, pg_bin: Path | None) -> Path:
    """Return the psql of the server's own PostgreSQL; with --test-dsn, the installed one."""
    if request.config.getoption("--test-dsn") is None:
        return Programs.find(pg_bin, Account.choose()).directory / "psql"
    return Path(need("psql", "postgresql-client"))


@pytest.fixture
def role(server: MessagingServer, psql: Path) -> Iterator[Role]:
    role = Role(f"poller_{uuid.uuid4().hex[:12]}", psql, server)
    yield role
    if server.execute(f"SELECT FROM pg_roles WHERE rolname = '{role.name}'"):
        server.execute(f"DROP OWNED BY {role.name}; DROP ROLE {role.name}")
