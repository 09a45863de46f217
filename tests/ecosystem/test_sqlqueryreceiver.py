"""The poller next to the Collector's sqlqueryreceiver: the same standby, queries and OTLP receiver.

These tests keep the comparison in docs/explanation/why-not-an-exporter.md true for the tested version.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from poller.demo.cluster import Cluster
from poller.receiver.receiver import ACCEPT, UNAVAILABLE, Point, Receiver
from tests.bed import programs
from tests.bed.conflict_database import ConflictDatabase
from tests.bed.conflicts import PRIMARY, SLOW, STANDBY
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually
from tests.bed.proxy import Proxy
from tests.bed.watch import NAME
from tests.ecosystem.backends import PATIENCE, Collector, Prometheus
from tests.ecosystem.builds import FOLDER
from tests.ecosystem.test_collector_faults import sink

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

StartCollector = Callable[..., Collector]
MODULE = "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/sqlqueryreceiver"
FIRST, LAST = ("first", "SELECT 1 AS n"), ("last", "SELECT 2 AS n")
HANGING = (
    "hanging",
    "SELECT count(*) AS n FROM generate_series(1, 2) WHERE pg_sleep(3600)::text IS NOT NULL",
)


@dataclass(frozen=True)
class Tools:
    """The poller and a Collector with the sqlqueryreceiver, which export to the same OTLP receiver."""

    folder: Path
    receiver: Receiver
    poller_process: Callable[..., Process]
    start_collector: StartCollector

    def start_poller(
        self, dsn: str, *queries: tuple[str, str], interval: str = "1s", timeout: str = "1s", **more: str
    ) -> Process:
        """Poll each (name, sql) for a gauge `name` from the column n, with the column label if it exists."""
        entries = [
            {
                "name": name,
                "sql": sql,
                "interval": interval,
                "timeout": timeout,
                "metrics": [
                    {"name": name, "unit": "1", "description": name, "value_column": "n", **_labels(sql)}
                ],
            }
            for name, sql in queries
        ]
        file = self.folder / "queries.yaml"
        file.write_text(json.dumps({"queries": entries}))
        return self.run_poller(dsn, file, **more)

    def run_poller(self, dsn: str, file: Path, **more: str) -> Process:
        environment = {
            "POLLER_DATABASE_URL": dsn,
            "POLLER_QUERIES": str(file),
            "POLLER_OTLP_ENDPOINT": self.receiver.grpc_endpoint,
            "POLLER_EXPORT_INTERVAL": "1s",
            "POLLER_STATE_DIR": str(self.folder / "state"),
            "POLLER_TRACES": "false",
            **more,
        }
        return self.poller_process("run", env=environment)

    def start_theirs(
        self, dsn: str, *queries: tuple[str, str], exporters: Mapping[str, Any] | None = None, **more: object
    ) -> Collector:
        """Start a Collector with the same queries; `more` are keys of the receiver."""
        configuration = {
            "driver": "postgres",
            "datasource": datasource(dsn),
            "collection_interval": "1s",
            "queries": [
                {
                    "sql": sql,
                    "metrics": [
                        {"metric_name": name, "value_column": "n", "value_type": "double", **_labels(sql)}
                    ],
                }
                for name, sql in queries
            ],
            **more,
        }
        return self.start_collector(
            {**sink(self.receiver), **(exporters or {})}, receivers={"sqlquery": configuration}
        )

    def points(self, metric: str, *, theirs: bool) -> list[Point]:
        """Return the points of a metric that one of the two exported."""
        return [point for point in self.receiver.points(metric) if is_theirs(point) == theirs]

    def wait_for_points(self, metric: str, *, theirs: bool, count: int = 1) -> list[Point]:
        """Return the points of a metric from one of the two, as soon as they have `count` timestamps."""

        def enough() -> list[Point] | None:
            points = self.points(metric, theirs=theirs)
            return points if len({point.time_unix_nano for point in points}) >= count else None

        return self.receiver.wait_until(enough, PATIENCE) or []

    def wait_for_rejected(self, reason: str) -> None:
        """Wait until the poller has reported data points that it omitted for this reason."""
        self.receiver.wait_until(
            lambda: any(
                point.attributes["poller.reason"] == reason and point.value
                for point in self.receiver.points("poller.query.quarantined")
            ),
            PATIENCE,
        )


def is_theirs(point: Point) -> bool:
    return point.scope == MODULE


def datasource(dsn: str) -> str:
    """Return a DSN for the receiver; the name makes its sessions visible to `ConflictDatabase`."""
    return make_conninfo(dsn, sslmode="disable", application_name=NAME)


def _labels(sql: str) -> dict[str, list[str]]:
    return {"attribute_columns": ["label"]} if " AS label" in sql else {}


@pytest.fixture
def tools(
    tmp_path: Path,
    receiver: Receiver,
    poller_process: Callable[..., Process],
    start_collector: StartCollector,
) -> Tools:
    return Tools(tmp_path, receiver, poller_process, start_collector)


# --- behaviour ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("theirs", [False, True], ids=["poller", "sqlqueryreceiver"])
def test_a_query_that_recovery_cancels_arrives_from_the_poller_only(
    tools: Tools, make_cluster: Callable[..., Cluster], theirs: bool
) -> None:
    """The interval is an hour: what does not arrive after the first collection is missing for an hour."""
    cluster = make_cluster(primary=PRIMARY, standby=STANDBY, standby_delay="50ms")
    database = ConflictDatabase.make(cluster, "conflicts")
    queries = [FIRST, ("cancelled", SLOW["snapshot"]), LAST]
    with database.whenever(SLOW["snapshot"], lambda: database.provoke_once("snapshot")):
        if theirs:
            collector = tools.start_theirs(database.standby_dsn, *queries, collection_interval="1h")
        else:
            tools.start_poller(database.standby_dsn, *queries, interval="1h", timeout="1m")
        tools.wait_for_points("last", theirs=theirs)
    assert database.conflicts_logged()
    if theirs:
        collector.process.wait_for_line("canceling statement due to conflict with recovery")
        assert tools.points("first", theirs=True)
        assert not tools.points("cancelled", theirs=True)
    else:
        assert tools.wait_for_points("cancelled", theirs=False)


def test_a_hanging_query_affects_no_other_in_the_poller_and_all_in_the_receiver(
    tools: Tools, database: Database
) -> None:
    """By default, the receiver has no timeout and exports nothing before its last query has ended."""
    queries = [FIRST, HANGING, LAST]
    tools.start_theirs(database.standby_dsn, *queries)
    assert eventually(
        lambda: (
            database.ask_standby(
                f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database.name}' "
                "AND wait_event = 'PgSleep'"
            )
            == [(1,)]
        )
    )
    tools.start_poller(database.standby_dsn, *queries)
    tools.wait_for_points("first", theirs=False, count=3)
    tools.wait_for_points("last", theirs=False, count=3)
    tools.receiver.wait_until(
        lambda: any(
            point.attributes.get("error.type") == "timeout" for point in tools.receiver.points("poller.polls")
        ),
        PATIENCE,
    )
    assert not any(is_theirs(point) for point in tools.receiver.points())


def test_a_timeout_of_the_receiver_ends_the_queries_after_the_hanging_one_as_well(
    tools: Tools, database: Database
) -> None:
    tools.start_theirs(database.standby_dsn, FIRST, HANGING, LAST, timeout="2s")
    tools.wait_for_points("first", theirs=True, count=3)
    assert not tools.points("last", theirs=True)


def test_a_null_is_reported_by_the_poller_and_0_in_prometheus_from_the_receiver(
    tools: Tools, database: Database, prometheus: Prometheus
) -> None:
    """The receiver's data point has no value, and Prometheus stores it as 0."""
    queries = [FIRST, ("missing", "SELECT NULL::float8 AS n")]
    collector = tools.start_theirs(
        database.standby_dsn, *queries, exporters={"otlp_http/prometheus": {"endpoint": prometheus.otlp}}
    )
    tools.start_poller(database.standby_dsn, *queries)
    assert tools.wait_for_points("missing", theirs=True)[0].value is None
    assert [value for _, value in prometheus.wait_for_series("missing")] == [0.0]
    collector.process.wait_for_line("warn.*problems encountered getting metric rows.*NULL value")
    tools.wait_for_rejected("null")
    assert not tools.points("missing", theirs=False)


def test_duplicate_series_are_withheld_by_the_poller_and_exported_twice_by_the_receiver(
    tools: Tools, database: Database
) -> None:
    queries = [("twice", "SELECT 'a' AS label, n FROM (VALUES (1), (2)) AS rows (n)")]
    tools.start_theirs(database.standby_dsn, *queries)
    tools.start_poller(database.standby_dsn, *queries)
    points = tools.wait_for_points("twice", theirs=True)[:2]
    assert [(point.value, point.attributes) for point in points] == [(1, {"label": "a"}), (2, {"label": "a"})]
    assert len({point.time_unix_nano for point in points}) == 1
    tools.wait_for_rejected("duplicate")
    assert not tools.points("twice", theirs=False)


def test_a_query_that_fails_after_its_first_rows_fails_in_the_poller_and_is_cut_off_in_the_receiver(
    tools: Tools, database: Database
) -> None:
    """The receiver does not check for an error after the last row that it got, and logs none."""
    sql = "SELECT i::text AS label, 6 / (4 - i) AS n FROM generate_series(1, 9) AS i"
    queries = [("partial", sql), LAST]
    collector = tools.start_theirs(database.standby_dsn, *queries)
    tools.start_poller(database.standby_dsn, *queries)
    tools.wait_for_points("last", theirs=True, count=2)
    points = tools.points("partial", theirs=True)
    assert [(point.attributes["label"], point.value) for point in points[:3]] == [
        ("1", 2),
        ("2", 3),
        ("3", 6),
    ]
    assert "division by zero" not in collector.process.stderr
    tools.wait_for_points("last", theirs=False, count=2)
    tools.receiver.wait_until(
        lambda: any(
            point.attributes.get("db.response.status_code") == "22012"
            for point in tools.receiver.points("poller.polls")
        ),
        PATIENCE,
    )
    assert not tools.points("partial", theirs=False)


# --- outage and kill ----------------------------------------------------------------------------------

CLOCK = ("clock", "SELECT 9000000000 + extract(epoch FROM clock_timestamp()) AS n")
"""A different value each time that it runs."""


def executed(proxy: Proxy) -> list[float]:
    """Return each value of CLOCK that the server has sent through the proxy."""
    values = re.findall(rb"1\d{10}\.\d{6}", b"\0".join(bytes(server) for _, server in proxy.record or ()))
    return [float(value) for value in values]


@pytest.mark.parametrize("stored", [True, False], ids=["file_storage", "default queue"])
def test_an_outage_and_a_kill_lose_nothing_that_was_stored_on_disk(
    tools: Tools, database: Database, make_proxy: Callable[[int], Proxy], stored: bool
) -> None:
    """The value that a program has just read when it is killed may be missing in both.

    The Collector's default queue is in memory: all its values are missing.
    """
    port = int(str(conninfo_to_dict(database.standby_dsn)["port"]))
    ours, theirs = make_proxy(port), make_proxy(port)
    ours.record, theirs.record = [], []

    def wait_for_executed(count: int) -> None:
        before = [len(executed(proxy)) for proxy in (ours, theirs)]
        assert eventually(
            lambda: len(executed(ours)) >= before[0] + count and len(executed(theirs)) >= before[1] + count,
            PATIENCE,
        )

    def missing(proxy: Proxy, *, theirs: bool) -> set[float]:
        delivered = {point.value for point in tools.points("clock", theirs=theirs)}
        return {value for value in executed(proxy) if value not in delivered}

    # Several exports in each interval, so that the next poll cannot replace a value before its export.
    timing = {"interval": "4s", "timeout": "4s", "POLLER_EXPORT_INTERVAL": "500ms"}
    daemon = tools.start_poller(ours.dsn(database.standby_dsn), CLOCK, **timing)
    more = {} if stored else {"exporters": {"otlp_grpc/sink": in_memory(tools.receiver)}}
    collector = tools.start_theirs(theirs.dsn(database.standby_dsn), CLOCK, **more)
    for theirs_too in (False, True):
        tools.wait_for_points("clock", theirs=theirs_too)

    tools.receiver.answer = UNAVAILABLE
    wait_for_executed(3)
    daemon.close()
    collector.stop()
    killed = {"ours": executed(ours)[-1], "theirs": executed(theirs)[-1]}
    queued = missing(theirs, theirs=True) - {killed["theirs"]}
    assert queued, "otherwise the kill would lose nothing"

    tools.start_poller(ours.dsn(database.standby_dsn), CLOCK, **timing)
    collector.restart()
    wait_for_executed(2)
    tools.receiver.answer = ACCEPT
    wait_for_executed(2)
    before = set(executed(ours)[:-1]) | set(executed(theirs)[:-1])

    def settled() -> bool:
        """Return whether everything that will arrive has arrived."""
        ours_missing = missing(ours, theirs=False) & before - {killed["ours"]}
        theirs_missing = missing(theirs, theirs=True) & before - {killed["theirs"]}
        return not ours_missing and theirs_missing == (set() if stored else queued)

    tools.receiver.wait_until(settled, PATIENCE)


def in_memory(receiver: Receiver) -> dict[str, Any]:
    """Return an exporter with the Collector's default queue."""
    (exporter,) = sink(receiver).values()
    assert isinstance(exporter, dict)
    return {name: value for name, value in exporter.items() if name != "sending_queue"}


# --- import -------------------------------------------------------------------------------------------

DIFFERENCES = {
    "h": "null, of type text: the receiver's data point has no value, the poller rejects it as not_a_number",
}
"""Metrics of the receiver's test configuration that differ on purpose, with the reason."""


def module_folder() -> Path:
    """Return the folder of the receiver's published module in Go's module cache."""
    programs.need("go", None)
    command = ["go", "list", "-m", "-f", "{{.Dir}}", MODULE]
    listed = subprocess.run(command, cwd=FOLDER / "collector", capture_output=True, text=True)
    if not (folder := listed.stdout.strip()):
        programs.lacking(f"{MODULE} (go mod download): {listed.stderr.strip()}")
    return Path(folder)


def integration_queries(source: str) -> list[dict[str, Any]]:
    """Return the queries of the receiver's own integration test for PostgreSQL, which are written in Go."""
    body = source.partition("func TestPostgresqlIntegrationMetrics(")[2].partition("\nfunc ")[0]
    constants = {
        "sqlquery.MetricValueTypeInt": "int",
        "sqlquery.MetricValueTypeDouble": "double",
        "sqlquery.MetricTypeGauge": "gauge",
    }
    keys = {
        "MetricName": "metric_name", "ValueColumn": "value_column", "AttributeColumns": "attribute_columns",
        "ValueType": "value_type", "DataType": "data_type",
    }  # fmt: skip
    queries: list[dict[str, Any]] = []
    for text in body.split("SQL: ")[1:]:
        sql, _, metrics = text.partition("Metrics:")
        entries = []
        for metric in re.findall(r"\{\s*(MetricName:.*?)\n\s*\},", metrics, re.DOTALL):
            entry: dict[str, Any] = {}
            for field, value in re.findall(r"(\w+):\s+(.+),\n", metric + "\n"):
                text_or_list = re.sub(r"^\[\]string\{(.*)\}$", r"[\1]", value)
                entry[keys[field]] = constants.get(value) or json.loads(text_or_list)
            entries.append(entry)
        queries.append({"sql": "".join(re.findall(r'"([^"]*)"', sql)), "metrics": entries})
    return queries


def test_the_receivers_own_test_configuration_gives_the_same_data_points(
    tools: Tools, own_cluster: Cluster
) -> None:
    module = module_folder()
    configuration = yaml.safe_load((module / "testdata/config.yaml").read_text())["sqlquery"]
    queries = integration_queries((module / "integration_test.go").read_text())
    assert [len(query["metrics"]) for query in queries] == [2, 8]
    prepare(own_cluster, (module / "testdata/integration/postgresql/init.sql").read_text())
    dsn = own_cluster.standby.dsn("otel", "otel")
    source = {"datasource": datasource(dsn), "collection_interval": "1s"}
    receivers = {
        "sqlquery": {**configuration, **source},
        "sqlquery/integration": {**configuration, **source, "queries": queries},
    }
    theirs, imported = tools.folder / "receivers.yaml", tools.folder / "imported.yaml"
    theirs.write_text(json.dumps(receivers))
    done = tools.poller_process("import", "--from", "sqlquery", str(theirs), "--write", str(imported))
    assert done.wait() == 0, done
    assert "3 queries, 11 metrics imported from sqlquery; 0 not converted" in done.stderr

    tools.start_collector(sink(tools.receiver), receivers=receivers)
    tools.run_poller(dsn, imported)
    names = [metric["metric_name"] for query in queries for metric in query["metrics"]] + ["val.count"]
    for name in names:
        tools.wait_for_points(name, theirs=True)
    tools.wait_for_rejected("not_a_number")
    for name in names:
        if name in DIFFERENCES:
            continue
        tools.wait_for_points(name, theirs=False)
        assert newest(tools, name, theirs=False) == newest(tools, name, theirs=True)
    assert {point.value for point in tools.points("h", theirs=True)} == {None}
    assert not tools.points("h", theirs=False)


def newest(tools: Tools, metric: str, *, theirs: bool) -> set[tuple[object, ...]]:
    """Return type, unit, temporality, monotonicity, attributes and value of the last points of a metric."""
    points = tools.points(metric, theirs=theirs)
    last = max(point.time_unix_nano for point in points)
    return {
        (
            point.kind,
            point.unit,
            point.temporality,
            point.monotonic,
            tuple(sorted(point.attributes.items())),
            point.value,
            type(point.value),
        )
        for point in points
        if point.time_unix_nano == last
    }


def prepare(cluster: Cluster, script: str) -> None:
    """Create the database and the tables of the receiver's tests, and wait for the standby."""
    cluster.primary.execute("CREATE DATABASE otel")
    cluster.primary.execute(script, "otel")
    cluster.primary.execute(
        "CREATE TABLE mytable (type text); INSERT INTO mytable VALUES ('a'), ('a'), ('b'); "
        "GRANT SELECT ON mytable TO otel",
        "otel",
    )
    cluster.wait_replayed()
