"""The daemon pushes to a real Prometheus 3: names with each translation, and delivery after an outage."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bed.messaging import MessagingServer
from tests.bed.process import Process
from tests.ecosystem.backends import (
    IDENTITY,
    SHIPPED,
    Backend,
    Prometheus,
    complete_exports,
    environment,
)

Start = Callable[..., Process]


def http(server: MessagingServer, backend: Backend, tmp_path: Path) -> dict[str, str]:
    return environment(server, backend.otlp, tmp_path, POLLER_OTLP_PROTOCOL="http/protobuf")


@pytest.mark.parametrize(
    ("strategy", "polls", "duration"),
    [
        ("UnderscoreEscapingWithSuffixes", "poller_polls_total", "poller_query_duration_seconds"),
        ("UnderscoreEscapingWithoutSuffixes", "poller_polls", "poller_query_duration"),
        ("NoUTF8EscapingWithSuffixes", "poller.polls_total", "poller.query.duration_seconds"),
        ("NoTranslation", "poller.polls", "poller.query.duration"),
    ],
)
def test_the_metrics_have_the_documented_names_and_labels(
    server: MessagingServer,
    poller_process: Start,
    start_prometheus: Callable[..., Prometheus],
    tmp_path: Path,
    strategy: str,
    polls: str,
    duration: str,
) -> None:
    prometheus = start_prometheus(strategy=strategy)
    poller_process("run", env=http(server, prometheus, tmp_path))

    for metric, value in SHIPPED.items():
        assert prometheus.wait_for_series(metric) == [(IDENTITY, value)]
    escaped = strategy.startswith("Underscore")
    query, state = ("poller_query_name", "poller_state") if escaped else ("poller.query.name", "poller.state")
    counted = prometheus.wait_for_series(f'{{"{polls}"}}')
    assert {(labels[query], labels[state]) for labels, _ in counted} == {
        ("users", "ok"), ("pending_messages", "ok"), ("attachments", "ok"), ("attachments_bytes", "ok"),
    }  # fmt: skip
    assert {labels[query] for labels, _ in prometheus.series(f'{{"{duration}"}}')} >= {"users"}
    ((labels, _),) = prometheus.series("target_info")
    assert IDENTITY.items() <= labels.items()


def test_histogram_quantile_reads_the_gauges_of_a_histogram(
    server: MessagingServer,
    poller_process: Start,
    start_prometheus: Callable[..., Prometheus],
    tmp_path: Path,
) -> None:
    """Also after the values in the table have become fewer, which a histogram of OTLP could not show."""
    prometheus = start_prometheus()
    server.execute("CREATE TABLE jobs AS SELECT 'a' AS kind, g AS age FROM generate_series(1, 100) g")
    server.replayed()
    metric = {
        "name": "job_age_seconds",
        "unit": "s",
        "description": "Age.",
        "value_column": "age",
        "attribute_columns": ["kind"],
        "histogram": [10, 50, 80.5, 1000],
    }
    query = {"name": "ages", "sql": "SELECT kind, age FROM jobs", "interval": "1s", "metrics": [metric]}
    (tmp_path / "ages.yaml").write_text(json.dumps({"queries": [query]}), encoding="utf-8")
    variables = {**http(server, prometheus, tmp_path), "POLLER_QUERIES": str(tmp_path / "ages.yaml")}
    poller_process("run", env=variables)

    prometheus.wait_for_series("job_age_seconds_count == 100")
    assert {labels["le"]: value for labels, value in prometheus.series("job_age_seconds_bucket")} == {
        "10": 10,
        "50": 50,
        "80.5": 80,
        "1000": 100,
        "+Inf": 100,
    }
    assert [value for _, value in prometheus.series("job_age_seconds_sum")] == [5050]
    ((labels, median),) = prometheus.series("histogram_quantile(0.5, job_age_seconds_bucket)")
    assert (labels, median) == ({**IDENTITY, "kind": "a"}, 50)

    server.execute("DELETE FROM jobs WHERE age > 20")
    prometheus.wait_for_series("job_age_seconds_count == 20")
    ((_, median),) = prometheus.series("histogram_quantile(0.5, job_age_seconds_bucket)")
    assert median == 10


@pytest.mark.parametrize("window", ["0s", "30m"])
def test_an_outage_of_prometheus_leaves_no_gap(
    server: MessagingServer,
    poller_process: Start,
    start_prometheus: Callable[..., Prometheus],
    tmp_path: Path,
    window: str,
) -> None:
    """Also without a window for late samples, because the delayed exports arrive in order."""
    prometheus = start_prometheus(out_of_order=window)
    daemon = poller_process("run", env={**http(server, prometheus, tmp_path), "POLLER_LOG_LEVEL": "debug"})
    prometheus.wait_for_series("users_total")
    prometheus.stop()
    daemon.wait_for_line("WARNING .*export failed", 90)
    before = daemon.stderr.count(" export kept ")
    while daemon.stderr.count(" export kept ") < before + 10:
        daemon.wait_for_line(" export kept ", 90, after=daemon.line_count())
    prometheus.restart()
    daemon.wait_for_line("INFO .*export recovered after", 90)

    exports = prometheus.wait_for(lambda: complete_exports(prometheus))
    assert max(exports) >= 10


def test_types_units_and_start_times_arrive(
    server: MessagingServer,
    poller_process: Start,
    start_prometheus: Callable[..., Prometheus],
    tmp_path: Path,
) -> None:
    """A counter begins with 0 at its start time, so `increase` includes the first poll."""
    features = "type-and-unit-labels,created-timestamp-zero-ingestion"
    prometheus = start_prometheus(options=(f"--enable-feature={features}",))
    poller_process("run", env=http(server, prometheus, tmp_path))
    prometheus.wait_for_series("poller_poll_duration_seconds_count")

    types = {
        name: {labels["__type__"] for labels, _ in prometheus.series(name)}
        for name in ("users_total", "poller_polls_total", "poller_poll_duration_seconds_count")
    }
    assert types == {
        "users_total": {"gauge"},
        "poller_polls_total": {"counter"},
        "poller_poll_duration_seconds_count": {"histogram"},
    }
    assert {labels["__unit__"] for labels, _ in prometheus.series("poller_query_duration_seconds")} == {
        "seconds"
    }
    for _, samples in prometheus.samples("poller_polls_total", 600):
        assert samples[0][1] == 0


def test_a_restart_is_a_reset_and_the_gauges_continue(
    server: MessagingServer, poller_process: Start, prometheus: Prometheus, tmp_path: Path
) -> None:
    """`poller.polls` begins again; a gauge of the state folder is there before the first poll."""
    daemon = poller_process("run", env=http(server, prometheus, tmp_path))
    polls = 'poller_polls_total{poller_query_name="users"}'
    prometheus.wait_for(lambda: [value for _, value in prometheus.series(polls) if value >= 5])
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    ((_, before),) = prometheus.series(polls)

    poller_process("run", env=http(server, prometheus, tmp_path))
    prometheus.wait_for(lambda: prometheus.series(f"resets({polls}[10m]) == 1"))

    ((labels, samples),) = prometheus.samples(polls, 600)
    assert labels == {**IDENTITY, "poller_query_name": "users", "poller_state": "ok"}
    values = [value for _, value in samples]
    assert max(values) == before
    ((labels, samples),) = prometheus.samples("users_total", 600)
    assert labels == IDENTITY
    assert {value for _, value in samples} == {SHIPPED["users_total"]}


def test_withheld_values_become_stale_and_return(
    server: MessagingServer,
    poller_process: Start,
    start_prometheus: Callable[..., Prometheus],
    tmp_path: Path,
) -> None:
    """After `max_age` the gauge is no longer exported, so it ends after Prometheus' lookback."""
    prometheus = start_prometheus(options=("--query.lookback-delta=3s",))
    variables = {**http(server, prometheus, tmp_path), "POLLER_QUERIES": str(short_lived(tmp_path))}
    poller_process("run", env=variables)
    assert prometheus.wait_for_series("users") == [(IDENTITY, 37)]
    server.execute("ALTER TABLE users RENAME TO moved")

    prometheus.wait_for_series('poller_query_state{poller_state="stale"} == 1')
    prometheus.wait_for(lambda: not prometheus.series("users"))

    server.execute("ALTER TABLE moved RENAME TO users")
    assert prometheus.wait_for_series("users") == [(IDENTITY, 37)]


def short_lived(folder: Path) -> Path:
    file = folder / "short.yaml"
    metric = {"name": "users", "unit": "{user}", "description": "Users.", "value_column": "n"}
    query = {"name": "users", "sql": "SELECT count(*) AS n FROM users", "interval": "1s", "max_age": "2s"}
    file.write_text(json.dumps({"queries": [{**query, "metrics": [metric]}]}), encoding="utf-8")
    return file


@pytest.mark.parametrize(("window", "stored"), [("0s", False), ("30m", True)])
def test_samples_older_than_those_of_another_poller_need_a_window(
    server: MessagingServer,
    poller_process: Start,
    start_prometheus: Callable[..., Prometheus],
    tmp_path: Path,
    window: str,
    stored: bool,
) -> None:
    """A pod was lost with its queue, its successor delivered, and then the queue returns."""
    prometheus = start_prometheus(out_of_order=window)
    prometheus.stop()
    first = {**http(server, prometheus, tmp_path), "POLLER_LOG_LEVEL": "debug"}
    daemon = poller_process("run", env=first)
    while daemon.stderr.count(" export kept ") < 5:
        daemon.wait_for_line(" export kept ", 90, after=daemon.line_count())
    daemon.close()
    lost = time.time()
    prometheus.restart()
    successor = poller_process("run", env=http(server, prometheus, tmp_path / "successor"))
    prometheus.wait_for_series("users_total")
    successor.send(signal.SIGTERM)
    assert successor.wait() == 0

    daemon = poller_process("run", env=first)

    if stored:
        prometheus.wait_for(lambda: earlier_samples(prometheus, lost) >= 5)
        assert "rejected" not in daemon.stderr
    else:
        daemon.wait_for_line("WARNING .*(rejected|refused).*out of order", 90)
        prometheus.wait_for_series('poller_export_rejected_total{poller_reason="invalid"}')
        assert earlier_samples(prometheus, lost) == 0


def earlier_samples(prometheus: Prometheus, until: float) -> int:
    """Return the number of samples of a gauge before a time."""
    series = prometheus.samples("users_total", 600)
    return sum(at < until for _, samples in series for at, _ in samples)


@pytest.mark.parametrize(("window", "stored"), [("0s", False), ("3h", True)])
def test_samples_have_the_time_of_their_rows(
    server: MessagingServer,
    poller_process: Start,
    start_prometheus: Callable[..., Prometheus],
    tmp_path: Path,
    window: str,
    stored: bool,
) -> None:
    """Samples with times in the past need an out-of-order window, as `poller check` warns.

    Without it, only the requests with these samples are refused.
    """
    prometheus = start_prometheus(out_of_order=window)
    recent, old = (int(time.time()) - seconds for seconds in (1200, 7000))
    file = tmp_path / "timed.yaml"
    queries = [
        {
            "name": name,
            "sql": f"SELECT to_timestamp({at}) AS at, 5 AS n",
            "metrics": [
                {"name": name, "unit": "{thing}", "description": "N.", "value_column": "n"}
                | {"time_column": "at", "settle": "10m"}
            ],
        }
        for name, at in (("recent", recent), ("old", old))
    ]
    users = {"name": "users", "unit": "{thing}", "description": "Users.", "value_column": "n"}
    queries.append({"name": "users", "sql": "SELECT 1 AS n", "metrics": [users]})
    file.write_text(json.dumps({"queries": queries}), encoding="utf-8")
    variables = {**http(server, prometheus, tmp_path), "POLLER_QUERIES": str(file)}
    # The newest sample of all series decides which one is too old.
    poller_process("poll", "--query", "users", "--push", env=variables).wait()
    prometheus.wait_for_series("users")

    daemon = poller_process("run", env=variables)

    if stored:
        ((_, samples),) = prometheus.wait_for(lambda: prometheus.samples("recent", 7200))
        assert samples == [(recent, 5)]
        ((_, samples),) = prometheus.wait_for(lambda: prometheus.samples("old", 7200))
        assert samples == [(old, 5)]
    else:
        daemon.wait_for_line("WARNING .*refused.*out of (order|bounds)", 90)
    prometheus.wait_for(lambda: len(prometheus.samples("users", 600)[0][1]) >= 5)
    stored_samples = [samples for _, samples in prometheus.samples("recent", 7200)]
    assert stored_samples == ([[(recent, 5)]] if stored else []), "exported once"
    assert prometheus.series("recent") == [], "instant queries do not look back so far"
    assert prometheus.series("last_over_time(recent[30m])") == ([(IDENTITY, 5)] if stored else [])
