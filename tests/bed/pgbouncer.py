"""A real PgBouncer with one pooled connection: the next client meets the session state of the last."""

from __future__ import annotations

import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from poller.demo.postgres import Account, make_directory
from poller.receiver.ports import LOOPBACK, free_ports
from tests.bed.cleanup import closing_all
from tests.bed.process import eventually
from tests.bed.programs import need

_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"


class PgBouncer:
    """A PgBouncer in front of the server of `dsn`, with a pool of one connection for each database."""

    def __init__(self, program: str, dsn: str, **settings: str) -> None:
        target = conninfo_to_dict(dsn)
        (self.port,) = free_ports(1)
        account = Account.choose()
        self._switch: dict[str, Any] = account.switch
        self._program = program
        self._directory = make_directory(account)
        self._config = self._directory / "pgbouncer.ini"
        options = {
            "listen_addr": LOOPBACK,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": "1",
            "server_reset_query": "",
            **settings,
        }
        self._lines = "\n".join(f"{name} = {value}" for name, value in options.items())
        self._write(f"host={target['host']} port={target['port']} user=postgres")
        account.own(self._config)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def dsn(self, dsn: str) -> str:
        """Return the DSN of the same database through the pooler."""
        return make_conninfo(dsn, host=LOOPBACK, port=self.port)

    def lead_to(self, dsn: str, user: str = "postgres") -> None:
        """Connect all sessions, including open ones, to the database of `dsn` from now on."""
        assert self._process is not None
        target = conninfo_to_dict(dsn)
        server = f"host={target['host']} port={target['port']} dbname={target['dbname']} user={user}"
        self._write(server)
        self._process.send_signal(signal.SIGHUP)
        assert eventually(lambda: self._leads_to(str(target["dbname"]), user))

    def start(self) -> None:
        self._process = subprocess.Popen(
            [self._program, str(self._config)], stderr=subprocess.DEVNULL, **self._switch
        )
        assert eventually(self._listens)

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _write(self, server: str) -> None:
        text = f"[databases]\n* = {server}\n[pgbouncer]\n{self._lines}\n"
        self._config.write_text(text, encoding="utf-8")

    def _leads_to(self, database: str, user: str) -> bool:
        # Another name gives this session its own pool: a transaction may hold the only connection of the
        # first.
        dsn = f"host={LOOPBACK} port={self.port} dbname=look_{uuid.uuid4().hex} user={user}"
        with (
            suppress(psycopg.OperationalError),
            closing(psycopg.connect(dsn, client_encoding="UTF8")) as connection,
        ):
            row = connection.execute("SELECT current_database(), session_user").fetchone()
            return row == (database, user)
        return False

    def _listens(self) -> bool:
        dsn = f"host={LOOPBACK} port={self.port} dbname=postgres user=postgres"
        with suppress(psycopg.OperationalError), closing(psycopg.connect(dsn)):
            return True
        return False


@pytest.fixture
def make_pgbouncer() -> Iterator[Callable[..., PgBouncer]]:
    """Make PgBouncers in front of a DSN with settings of pgbouncer.ini; they end with the test."""
    program = need("pgbouncer", "pgbouncer", _PATH)
    with closing_all(partial(PgBouncer, program), PgBouncer.close) as make:
        yield make
