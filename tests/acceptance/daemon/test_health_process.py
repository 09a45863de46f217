"""`poller health` with real daemons: running, hung, killed, and without database and collector."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from poller.daemon.heartbeat import Heartbeat
from poller.daemon.scheduler import PollScheduler
from poller.daemon.server_queues import QueueConfig
from poller.daemon.watchdog import Watchdog
from poller.model.query import QueryDefinition
from poller.model.result import PollResult
from poller.model.tick import Tick
from poller.receiver.ports import free_ports
from poller.receiver.receiver import HANG, Receiver
from tests.bed.definitions import a_query, a_result
from tests.bed.pollable import FunctionTarget
from tests.bed.postgres import Database
from tests.bed.process import ROOT, Process, eventually
from tests.bed.queries import write_queries

Start = Callable[..., Process]


def health(file: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of `poller health` with the heartbeat `file`."""
    done = subprocess.run(
        [sys.executable, "-m", "poller", "health", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "POLLER_HEALTH_FILE": str(file)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == "" or done.returncode == 2
    return done.returncode, (done.stdout + done.stderr).strip()


def reports(file: Path, code: int, *words: str, arguments: Sequence[str] = ()) -> bool:
    """Wait until `poller health` returns this code and these words."""

    def look() -> bool:
        answer = health(file, *arguments)
        return answer[0] == code and all(word in answer[1] for word in words)

    return eventually(look)


@pytest.fixture
def isolated(poller_process: Start, tmp_path: Path) -> Process:
    """A daemon without a database and without a collector."""
    database, collector = free_ports(2)
    return poller_process(
        "run",
        env={
            "POLLER_DATABASE_URL": f"postgresql://poller@127.0.0.1:{database}/app",
            "POLLER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
            "POLLER_EXPORT_INTERVAL": "300ms",
            "POLLER_EXPORT_TIMEOUT": "1s",
            "POLLER_QUERIES": write_queries(tmp_path, ("a", "SELECT 1 AS n")),
        },
    )


def test_a_collector_that_stops_answering_is_reported_before_the_timeout(
    receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    """The current request has not failed yet, and nothing is delivered in the meantime."""
    (database,) = free_ports(1)
    process = poller_process(
        "run",
        env={
            "POLLER_DATABASE_URL": f"postgresql://poller@127.0.0.1:{database}/app",
            "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
            "POLLER_EXPORT_INTERVAL": "10s",
            "POLLER_EXPORT_TIMEOUT": "1h",
            "POLLER_QUERIES": write_queries(tmp_path, ("a", "SELECT 1 AS n")),
        },
    )
    assert reports(process.health_file, 0, "export ok")
    receiver.answer = HANG
    assert reports(process.health_file, 0, "alive", "export failing (nothing delivered for ")


def test_without_database_and_collector_the_daemon_is_alive_and_ready_and_reports_the_failures(
    isolated: Process,
) -> None:
    isolated.wait_for_line("replica unavailable")
    isolated.wait_for_line("export failed")
    assert reports(
        isolated.health_file, 0, "ready: process", "1 failed", "export failing", arguments=["--ready"]
    )
    code, output = health(isolated.health_file)
    assert (code, output.startswith(f"alive: process {isolated.pid} (instance ")) == (0, True)


def test_json_contains_the_whole_heartbeat(database: Database, poller_process: Start, tmp_path: Path) -> None:
    file = write_queries(tmp_path, ("a", "SELECT 1 AS n"), ("b", "SELECT 1/0 AS n"))
    env = {"POLLER_DATABASE_URL": database.standby_dsn, "POLLER_QUERIES": file}
    process = poller_process("run", env=env)
    assert reports(process.health_file, 0, "1 failed, 1 ok", arguments=["--ready"])
    code, output = health(process.health_file, "--format", "json", "--live")
    report = json.loads(output)
    heartbeat = report["heartbeat"]
    assert (code, report["good"]) == (0, True)
    assert heartbeat["queries"] == {"a": "ok", "b": "failed(rejected)"}
    assert heartbeat["ticks"]["default/1s"]["interval"] == 1.0
    assert (heartbeat["stuck"], heartbeat["ready"], heartbeat["export"]) == (None, True, None)
    Path(file).write_text("queries: [")
    process.send(signal.SIGHUP)
    assert reports(process.health_file, 0, "query files refused (1 problem)", arguments=["--ready"])


def test_a_stopped_daemon_counts_as_hung_until_it_continues(isolated: Process) -> None:
    assert reports(isolated.health_file, 0)
    isolated.send(signal.SIGSTOP)
    assert reports(
        isolated.health_file,
        1,
        f"not alive: process {isolated.pid} hangs or cannot write its heartbeat: the last one",
        arguments=["--max-age", "1s"],
    )
    isolated.send(signal.SIGCONT)
    assert reports(isolated.health_file, 0)


def test_a_killed_daemon_is_reported_as_gone(isolated: Process) -> None:
    assert reports(isolated.health_file, 0)
    isolated.send(signal.SIGKILL)
    isolated.wait()
    code, output = health(isolated.health_file)
    assert code == 1
    assert output.startswith(f"not alive: process {isolated.pid} is gone, its last heartbeat was ")


def test_an_ordered_shutdown_removes_the_heartbeat(isolated: Process) -> None:
    assert reports(isolated.health_file, 0)
    isolated.send(signal.SIGTERM)
    assert isolated.wait() == 0
    assert not isolated.health_file.exists()
    code, output = health(isolated.health_file, "--ready")
    assert code == 1
    assert output.startswith(f"not ready: no heartbeat at {isolated.health_file}: is a poller running")


@pytest.fixture
def gate() -> Iterator[threading.Lock]:
    """A lock that is held until the test releases it or ends."""
    gate = threading.Lock()
    gate.acquire()
    yield gate
    if gate.locked():
        gate.release()


def test_a_deadlocked_worker_is_reported_with_its_tick(gate: threading.Lock, tmp_path: Path) -> None:
    """With the real loops and a shorter limit: the process writes heartbeats and is not alive."""

    def poll(queries: Sequence[QueryDefinition]) -> list[PollResult]:
        with gate:
            return [a_result(query) for query in queries]

    file = tmp_path / "h"
    daemon = PollScheduler(QueueConfig(), patience=0.0)
    FunctionTarget(poll).put_in(daemon, Tick("default/1s", (a_query(interval=1.0),), 1.0, 0.0))
    heartbeat = Heartbeat([file])
    watchdog_thread = Watchdog([daemon], [lambda stuck: heartbeat.write({"stuck": stuck})], every=0.05)
    daemon.start()
    watchdog_thread.start()
    try:
        assert reports(file, 1, f"process {os.getpid()} hangs: tick default/1s runs for")
        gate.release()
        assert reports(file, 0)
    finally:
        watchdog_thread.stop()
        daemon.stop(lambda: None, 30.0)


def test_a_probe_loads_almost_nothing() -> None:
    code = (
        "import sys\n"
        "from poller.cli.main import main\n"
        "sys.argv = ['poller', 'health']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 1\n"
        "print(*sorted(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "POLLER_HEALTH_FILE": "/nonexistent"},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    own = {name for name in loaded if name.startswith("poller")}
    assert own == {"poller"} | {
        f"poller.{name}"
        for name in (
            "cli",
            "cli.main",
            "cli.health",
            "daemon",
            "daemon.health",
            "model",
            "model.files",
            "model.printable",
            "terminal",
            "terminal.stdio",
        )
    }
    heavy = {"typer", "pydantic", "psycopg", "opentelemetry", "yaml", "rich", "logging", "asyncio", "inspect"}
    assert not heavy & loaded


@pytest.mark.parametrize("stdout", [">/dev/full", ">&-"])
def test_the_exit_code_is_correct_even_if_nothing_can_be_written(stdout: str, tmp_path: Path) -> None:
    file = tmp_path / "h"
    heartbeat = Heartbeat([file])
    for code in (1, 0):
        done = subprocess.run(
            ["bash", "-c", f"exec {sys.executable} -m poller health {stdout}"],
            env={**os.environ, "PYTHONPATH": str(ROOT), "POLLER_HEALTH_FILE": str(file)},
            capture_output=True,
        )
        assert (done.returncode, done.stderr) == (code, b"")
        heartbeat.write({})


@pytest.mark.parametrize(
    "arguments", [["--bogus"], ["--max-age", "soon"], ["--live", "--ready"], ["--rea"], ["x"]], ids=str
)
def test_a_wrong_option_ends_with_2(arguments: list[str], tmp_path: Path) -> None:
    code, output = health(tmp_path / "h", *arguments)
    assert code == 2
    assert "Traceback" not in output


def test_the_help_of_health_explains_alive(tmp_path: Path) -> None:
    code, output = health(tmp_path / "h", "--help")
    assert code == 0
    for word in ("--live", "--ready", "--max-age", "livenessProbe", "HEALTHCHECK"):
        assert word in output


def test_a_duration_may_be_written_in_several_ways(tmp_path: Path) -> None:
    for age in ("90", "90s", "1.5m", "1h"):
        assert health(tmp_path / "h", "--max-age", age)[0] == 1
