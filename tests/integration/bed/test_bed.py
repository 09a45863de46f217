"""The helpers of other tests work: faults of the proxy, and output lines of processes."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from poller.demo.cluster import Cluster
from tests.bed.process import ROOT, Process, eventually, gone
from tests.bed.programs import need
from tests.bed.proxy import Proxy


@pytest.fixture
def proxy(cluster: Cluster, make_proxy: Callable[[int], Proxy]) -> Proxy:
    return make_proxy(cluster.primary.port)


def test_a_missing_program_skips_a_test_and_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(need("sh", "dash")).is_file()
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no-such-program \(apt-get install nothing\) is not"):
        need("no-such-program", "nothing")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"no-such-program \(apt-get install nothing\) is not"):
        need("no-such-program", "nothing")
    with pytest.raises(pytest.skip.Exception, match=r"no-such-program is not installed"):
        need("no-such-program", package=None)


def test_every_test_skips_for_a_missing_program_by_the_common_function() -> None:
    """Otherwise whole files could be skipped in CI without a failure."""
    folder = ROOT / "tests"
    files = [file for file in folder.rglob("*.py") if file.parent.name != "benchmarks"]
    own = [file.name for file in files if "shutil.which" in file.read_text(encoding="utf-8")]
    assert sorted(own) == ["programs.py", "test_bed.py", "test_completion.py"]


def test_nothing_of_the_callers_environment_reaches_a_test() -> None:
    assert [
        name for name in os.environ if re.match(r"PG|OTEL_|POLLER_|OBSCURA_|.*_proxy$", name, re.IGNORECASE)
    ] == []


# --- the proxy ----------------------------------------------------------------------------------------


def test_a_query_through_the_proxy_is_one_round_trip(cluster: Cluster, proxy: Proxy) -> None:
    with psycopg.connect(proxy.dsn(cluster.primary.dsn()), autocommit=True) as connection:
        assert proxy.connections == 1
        proxy.reset_counts()
        for expected in (1, 2, 3):
            connection.execute("SELECT 1")
            assert proxy.round_trips == expected
        assert proxy.bytes_up > 0
        assert proxy.bytes_down > 0


def test_queries_in_a_pipeline_are_fewer_round_trips_than_queries(cluster: Cluster, proxy: Proxy) -> None:
    with psycopg.connect(proxy.dsn(cluster.primary.dsn()), autocommit=True) as connection:
        proxy.reset_counts()
        with connection.pipeline():
            for _ in range(10):
                connection.execute("SELECT 1")
        assert 1 <= proxy.round_trips < 10


def test_a_refusing_proxy_resets_connections_and_serves_again(cluster: Cluster, proxy: Proxy) -> None:
    dsn = proxy.dsn(cluster.primary.dsn())
    with closing(psycopg.connect(dsn)) as connection:
        proxy.refuse()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(dsn)
    proxy.resume()
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("end", ["resume", "cut"])
def test_a_hanging_proxy_holds_the_answer_until_it_resumes_or_is_cut(
    cluster: Cluster, proxy: Proxy, end: str
) -> None:
    with (
        # Not psycopg's own `with`, which sends COMMIT: after a reset seen by poll() the command still runs.
        closing(psycopg.connect(proxy.dsn(cluster.primary.dsn()), autocommit=True)) as connection,
        ThreadPoolExecutor(1) as pool,
    ):
        proxy.hang()
        answer = pool.submit(connection.execute, "SELECT 1")
        with pytest.raises(TimeoutError):
            answer.result(0.3)
        if end == "resume":
            proxy.resume()
            assert answer.result(60).fetchone() == (1,)
        else:
            proxy.cut()
            with pytest.raises(psycopg.OperationalError):
                answer.result(60)


def test_a_result_can_be_cut_in_its_middle_and_the_next_connection_is_whole(
    cluster: Cluster, proxy: Proxy
) -> None:
    dsn = proxy.dsn(cluster.primary.dsn())
    query = "SELECT n, repeat('x', 1000) FROM generate_series(1, 1000) AS n"
    with closing(psycopg.connect(dsn, autocommit=True)) as connection:
        proxy.reset_counts()
        proxy.cut_after(100_000)
        with pytest.raises(psycopg.OperationalError):
            connection.execute(query)
    assert proxy.bytes_down >= 100_000
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert len(connection.execute(query).fetchall()) == 1000


@pytest.mark.parametrize("direction", ["delay_up", "delay_down"])
def test_either_direction_can_be_delayed(cluster: Cluster, proxy: Proxy, direction: str) -> None:
    with psycopg.connect(proxy.dsn(cluster.primary.dsn()), autocommit=True) as connection:
        setattr(proxy, direction, 0.2)
        since = time.monotonic()
        connection.execute("SELECT 1")
        assert time.monotonic() - since >= 0.2  # a lower bound: nothing can be quicker than its delay


def test_a_proxy_to_a_server_that_is_down_closes_the_connection(make_proxy: Callable[[int], Proxy]) -> None:
    proxy = make_proxy(1)
    with pytest.raises(psycopg.OperationalError, match=r"closed the connection|reset"):
        psycopg.connect(f"host=127.0.0.1 port={proxy.port} user=postgres")
    assert proxy.connections == 0


# --- the process --------------------------------------------------------------------------------------


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_waiting_matches_earlier_and_later_lines_of_both_streams(
    start_process: Callable[..., Process],
) -> None:
    process = start_process(
        python("import sys, time; print('one 1'); time.sleep(.3); print('two 2', file=sys.stderr)")
    )
    assert process.wait_for_line(r"two (\d)").group(1) == "2"
    assert process.wait_for_line(r"one (\d)", stream="stdout").group(1) == "1"
    with pytest.raises(AssertionError, match=r"(?s)ended with 0 without a line like 'one'.*two 2"):
        process.wait_for_line("one", stream="stderr")
    with pytest.raises(AssertionError, match="without a line"):
        process.wait_for_line("two", after=process.line_count())
    assert process.wait() == 0
    assert (process.stdout, process.stderr) == ("one 1\n", "two 2\n")


def test_a_line_that_does_not_appear_in_time_is_reported_with_the_output(
    start_process: Callable[..., Process],
) -> None:
    process = start_process(python("import time; print('here', flush=True); time.sleep(60)"))
    process.wait_for_line("here")
    with pytest.raises(AssertionError, match=r"(?s)ran 0\.2 s without a line like 'there'.*here"):
        process.wait_for_line("there", 0.2)
    with pytest.raises(AssertionError, match=r"still runs after 0\.1 s"):
        process.wait(0.1)
    process.send(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    assert not process.running


def test_a_process_gets_the_cleared_environment_and_its_own_variables(
    start_process: Callable[..., Process],
) -> None:
    code = "import os; print(sorted(n for n in os.environ if n.startswith(('PG', 'OTEL', 'POLLER'))))"
    assert start_process(python(code)).wait() == 0
    process = start_process(python(code), env={"POLLER_INTERVAL": "1s"})
    assert process.wait() == 0
    assert process.stdout == "['POLLER_HEALTH_FILE', 'POLLER_INTERVAL']\n"


def test_closing_kills_a_process_that_ignores_signals_and_its_children() -> None:
    code = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
time.sleep(600)
"""
    process = Process(python(code))
    child = int(process.wait_for_line(r"^\d+$").group())
    process.send(signal.SIGTERM)
    process.close()
    assert not process.running
    assert eventually(lambda: gone(child))


def test_the_poller_is_started_as_a_module(poller_process: Callable[..., Process]) -> None:
    process = poller_process("--no-such-option")
    assert process.wait() == 2
    assert "no-such-option" in process.stderr
