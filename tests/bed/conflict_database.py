"""Conflicts of a standby's recovery with a query that runs there, by kind."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from poller.demo.cluster import Cluster
from tests.bed.conflicts import AFTER_SETUP, LATER, SETUP
from tests.bed.postgres import Database, Site
from tests.bed.process import eventually
from tests.bed.watch import NAME


@dataclass(frozen=True)
class ConflictDatabase(Database):
    """A database on a standby with a short conflict delay, and methods that provoke each kind of conflict.

    The methods provoke each kind like PostgreSQL's own src/test/recovery/t/031_recovery_conflict.pl.
    """

    cluster: Cluster
    log_start: int = 0
    """Position in the standby's log at the beginning."""

    @classmethod
    def make(cls, cluster: Cluster, name: str) -> ConflictDatabase:
        site = Site(cluster.primary.dsn(), cluster.standby.dsn())
        cluster.primary.execute(f"CREATE DATABASE {name}")
        cluster.wait_replayed()
        conflict_database = cls(name, site, cluster, cluster.standby.log_path.stat().st_size)
        conflict_database.execute(SETUP)
        conflict_database.execute(AFTER_SETUP)
        conflict_database._flush()
        conflict_database.replayed()
        return conflict_database

    def end(self) -> None:
        """Drop the database and its remaining connections."""
        primary = self.cluster.primary
        if primary.execute(f"SELECT gid FROM pg_prepared_xacts WHERE gid = '{self.name}'"):
            self.let_go()
        primary.execute(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")
        primary.execute(f"DROP TABLESPACE IF EXISTS {self.tablespace}")

    def provoke(self, kind: str) -> None:
        """Make a change on the primary whose replay conflicts with the query of SLOW on the standby."""
        getattr(self, f"_{kind}")()

    def provoke_once(self, kind: str) -> None:
        """The same, but the query is short when the poller runs it again."""
        self.open_gate()
        self.provoke(kind)
        if kind == "deadlock":
            self.let_go()

    def open_gate(self) -> None:
        self.execute("INSERT INTO gate VALUES (1)")

    def _snapshot(self) -> None:
        self._delete()
        self._vacuum()

    def _delete(self) -> None:
        self.execute("DELETE FROM dead WHERE n = (SELECT min(n) FROM dead)")

    def _vacuum(self) -> None:
        self.execute("VACUUM (TRUNCATE false) dead")
        self._flush()

    def _lock(self) -> None:
        self.execute("TRUNCATE locked; INSERT INTO locked VALUES (1)")

    def _buffer_pin(self) -> None:
        self.execute("VACUUM (FREEZE, TRUNCATE false) pinned")
        self._flush()

    def hold(self, table: str = "held") -> None:
        """Lock a table on the primary, and so on the standby, until `let_go`."""
        self.execute(f"BEGIN; LOCK TABLE {table}; PREPARE TRANSACTION '{self.name}'")
        self.replayed()

    def let_go(self) -> None:
        self.execute(f"ROLLBACK PREPARED '{self.name}'")

    # In a deadlock, recovery waits for a buffer pin; the other half is the lock of `hold`.
    _deadlock = _buffer_pin

    @property
    def tablespace(self) -> str:
        return f"space_{self.name}"

    def make_tablespace(self) -> None:
        """Make a tablespace, and let later sessions put their temporary files there."""
        self.execute(f"CREATE TABLESPACE {self.tablespace} LOCATION ''")
        self.execute(f"ALTER DATABASE {self.name} SET temp_tablespaces = {self.tablespace}")
        self.execute(f"ALTER DATABASE {self.name} SET work_mem = '64kB'")
        self.replayed()

    def _tablespace(self) -> None:
        self.execute(f"DROP TABLESPACE {self.tablespace}")

    def _database(self) -> None:
        self.cluster.primary.execute(f"DROP DATABASE {self.name}")

    def _flush(self) -> None:
        # After VACUUM alone, the walwriter would send the last records some time later.
        self.execute("UPDATE flushed SET n = n + 1")

    def running(self, sql: str) -> tuple[int, Any] | None:
        """Return the poller's backend and the start of its transaction, once `sql` waits there."""
        # Not the start of the query: the server reads that before what the backend waits for, and it
        # changes from Parse to Execute. So one run could be seen twice.
        rows = self.cluster.standby.execute(
            "SELECT pid, xact_start FROM pg_stat_activity "
            f"WHERE application_name = '{NAME}' AND datname = '{self.name}' AND state = 'active' "
            "AND (wait_event = 'PgSleep' OR wait_event_type = 'Lock') "
            # The server shows the first 1023 bytes of the query, followed by the comment if it fits.
            f"AND query <> '' AND starts_with($sql${sql}$sql$, left(query, length($sql${sql}$sql$)))"
        )
        return rows[0] if rows else None

    def conflicts_logged(self) -> list[str]:
        """Return the severity of each conflict that the standby logged for a session of the poller."""
        return [severity for severity, repeated in self._conflicts() if not repeated]

    def signalled_twice(self) -> bool:
        """Return whether recovery has also ended a session after it had cancelled its query."""
        return any(repeated for _, repeated in self._conflicts())

    def _conflicts(self) -> list[tuple[str, bool]]:
        # Recovery repeats its signal every 5 ms until the transaction is gone (standby.c,
        # ResolveRecoveryConflictWithVirtualXIDs). On a busy machine it reaches a session that has
        # logged its ERROR and reads the next command: the session ends as well, with FATAL.
        with self.cluster.standby.log_path.open() as log:
            log.seek(self.log_start)
            lines = [line.split() for line in log if NAME in line and "conflict with recovery" in line]
        cancelled: set[str] = set()
        conflicts = []
        for words in lines:
            process, severity = words[3], words[5]
            conflicts.append((severity, severity == "FATAL:" and process in cancelled))
            if severity == "ERROR:":
                cancelled.add(process)
        return conflicts

    @contextmanager
    def running_into(self) -> Iterator[None]:
        """Within the block, LATER waits for its lock after recovery has begun to wait for its page."""
        with psycopg.connect(self.standby_dsn, autocommit=True) as gate:
            gate.execute("SELECT pg_advisory_lock(1)")

            def act() -> None:
                self.provoke("deadlock")
                assert eventually(self._recovery_waits)
                gate.execute("SELECT pg_advisory_unlock(1)")

            with self.whenever(LATER, act):
                yield

    def _recovery_waits(self) -> bool:
        return self.cluster.standby.execute(
            "SELECT wait_event_type FROM pg_stat_activity WHERE backend_type = 'startup'"
        ) == [("BufferPin",)]

    @contextmanager
    def opening(self, look: str) -> Iterator[list[int]]:
        """Within the block, a snapshot conflict with the query `look` on pg_extension.

        `look` waits for a lock on the primary, whose transaction would prevent VACUUM there from removing
        rows that are deleted after it begins. Therefore the rows are deleted before. Every snapshot on the
        standby still needs them while an older transaction runs in another database, which VACUUM ignores.
        """
        old = f"old_{self.name}"
        self.cluster.primary.execute(f"BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION '{old}'")
        self._delete()
        self.hold("pg_extension")

        def act() -> None:
            self._vacuum()
            self.let_go()

        try:
            with self.whenever(look, act) as pids:
                yield pids
        finally:
            self.cluster.primary.execute(f"ROLLBACK PREPARED '{old}'")

    @contextmanager
    def whenever(self, sql: str, act: Callable[[], None], times: float = 1) -> Iterator[list[int]]:
        """Within the block, call `act` each time that `sql` runs on the standby, at most `times`.

        Yields the process ids of its backends; at the end of the block, `act` has returned for the last.
        """
        pids: list[int] = []
        handled: set[tuple[int, Any]] = set()
        failed: list[BaseException] = []
        over = threading.Event()

        def look() -> bool:
            if (backend := self.running(sql)) and backend not in handled:
                handled.add(backend)
                pids.append(backend[0])
                act()
            return over.is_set() or len(pids) >= times

        def watch() -> None:
            try:
                assert eventually(look, 60.0), f"{len(pids)} times of {times}"
            except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
                failed.append(error)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield pids
        finally:
            over.set()
            watcher.join()
            if failed:
                raise failed[0]
