"""One daemon polls many databases: each under its own identity, and no target costs another one anything."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from poller.demo.cluster import Cluster
from poller.receiver.decode import Point
from poller.receiver.receiver import Receiver
from tests.bed.documentation import only, script
from tests.bed.polled import Json
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually
from tests.bed.proxy import Proxy
from tests.bed.stored import make_older

Start = Callable[..., Process]
OID = "SELECT oid::bigint AS n FROM pg_database WHERE datname = current_database()"


def query(name: str, sql: str, interval: str = "1s", **keys: object) -> Json:
    metric = {"name": name, "unit": "{row}", "description": "Rows.", "value_column": "n"}
    return {
        "name": name,
        "sql": sql,
        "interval": interval,
        "timeout": "900ms",
        "max_age": "1h",
        "metrics": [metric],
        **keys,
    }


class Bed:
    """A folder with a query file and a targets file, and a daemon with a receiver."""

    def __init__(self, folder: Path, receiver: Receiver, start: Start) -> None:
        self._folder = folder
        self.receiver = receiver
        self._start = start
        self.targets: dict[str, Json] = {}
        self.queries(
            query("database", "SELECT oid::bigint AS n FROM pg_database WHERE datname = current_database()")
        )

    def queries(self, *queries: Json) -> None:
        (self._folder / "queries.yaml").write_text(json.dumps({"queries": queries}))

    def put(self, name: str, dsn: str, **keys: object) -> None:
        """Add or replace a target; its connection string is in a file."""
        (self._folder / f"{name}.url").write_text(dsn)
        self.targets[name] = {"name": name, "url_file": f"{name}.url", **keys}

    def write(self) -> None:
        content = {"targets": list(self.targets.values()), "defaults": {"require_standby": "false"}}
        (self._folder / "new").write_text(json.dumps(content))
        (self._folder / "new").replace(self._folder / "targets.yaml")

    def start(self, **settings: str) -> Process:
        self.write()
        return self._start(
            "run",
            env={
                "POLLER_TARGETS": str(self._folder / "targets.yaml"),
                "POLLER_QUERIES": str(self._folder / "queries.yaml"),
                "POLLER_OTLP_ENDPOINT": self.receiver.grpc_endpoint,
                "POLLER_EXPORT_INTERVAL": "200ms",
                "POLLER_LOG_FORMAT": "json",
                "POLLER_CONNECT_TIMEOUT": "2s",
                "POLLER_STATE_DIR": str(self._folder / "state"),
                **settings,
            },
        )

    def newest(self) -> dict[str, list[Point]]:
        """Return the data points of the newest push, by the target of their resource."""
        requests = self.receiver.requests()
        by_target: dict[str, list[Point]] = {}
        for point in requests[-1].points() if requests else []:
            by_target.setdefault(str(point.resource.get("service.instance.id")), []).append(point)
        return by_target

    def value(self, target: str, metric: str, **attributes: str) -> object:
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}
        for point in self.newest().get(target, []):
            if point.metric == metric and wanted.items() <= point.attributes.items():
                return point.value
        return None

    def up(self, *targets: str) -> bool:
        return all(self.value(target, "poller.target.up") == 1 for target in targets)


@pytest.fixture
def bed(tmp_path: Path, receiver: Receiver, poller_process: Start) -> Bed:
    return Bed(tmp_path, receiver, poller_process)


@pytest.fixture
def databases(database: Database) -> Iterator[list[str]]:
    """Yield connection strings of three databases on one server."""
    names = [f"{database.name}_{number}" for number in range(3)]
    with psycopg.connect(database.primary_dsn, autocommit=True) as connection:
        for name in names:
            connection.execute(f"CREATE DATABASE {name}")
        yield [make_conninfo(database.primary_dsn, dbname=name) for name in names]
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def proxy(databases: list[str]) -> Iterator[Proxy]:
    parts = conninfo_to_dict(databases[0])
    with Proxy(int(parts["port"] or 5432), str(parts["host"])) as proxy:
        yield proxy


@pytest.mark.every_version
def test_each_target_has_its_own_resource_and_the_same_series_never_mix(
    bed: Bed, databases: list[str]
) -> None:
    names = ["a", "b", "c"]
    for name, dsn in zip(names, databases, strict=True):
        bed.put(name, dsn, resource={"team": f"team {name}"}, attributes={"region": f"eu-{name}"})
    bed.start(POLLER_INSTANCE="the-poller")
    assert eventually(lambda: bed.up(*names))
    for name, dsn in zip(names, databases, strict=True):
        with psycopg.connect(dsn) as connection:
            ((oid,),) = connection.execute(
                "SELECT oid::bigint FROM pg_database WHERE datname = current_database()"
            )
        (point,) = [point for point in bed.newest()[name] if point.metric == "database"]
        assert (point.value, point.attributes) == (oid, {"region": f"eu-{name}"})
        assert point.resource["team"] == f"team {name}"
        assert point.resource["db.namespace"] == conninfo_to_dict(dsn)["dbname"]
        assert point.resource["db.system.name"] == "postgresql"
        assert "server.address" not in point.resource, "a failover would rename every series"
    own = {point.metric for point in bed.newest()["the-poller"]}
    assert {"poller.polls", "poller.config.reload.success"} <= own
    assert not {"database", "poller.target.up"} & own


def test_the_first_steps_of_the_documentation_work(
    databases: list[str], start_process: Start, tmp_path: Path
) -> None:
    name, text = only("targetsfile")
    (tmp_path / name).write_text(text)
    for target, dsn in zip(("eu-1", "us-1"), databases, strict=False):
        (tmp_path / f"{target}.url").write_text(dsn)
    _, commands = only("targetscommands")
    commands = commands.replace("poller run", "exec poller run")  # so that the daemon gets the signal
    process = start_process(["bash", "-c", script(f"set -e\n{commands}")], cwd=tmp_path)
    process.wait_for_line("on 2 targets", 120)
    process.send(signal.SIGTERM)
    assert process.wait() == 0, process
    assert "eu-1" in process.stdout
    assert "us-1" in process.stdout


def test_a_missed_run_of_a_schedule_is_made_up_for_on_each_target(
    bed: Bed, databases: list[str], tmp_path: Path
) -> None:
    clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS n"
    names = ["a", "b", "c"]
    for name, dsn in zip(names, databases, strict=True):
        bed.put(name, dsn)
    bed.queries(query("nightly", clock, "1h"))
    process = bed.start()
    assert eventually(lambda: all(bed.value(name, "nightly") for name in names))
    before = {name: bed.value(name, "nightly") for name in names}
    process.send(signal.SIGTERM)
    assert process.wait() == 0, process
    make_older(tmp_path / "state", "nightly", 25.0)

    ran = datetime.now(UTC) - timedelta(hours=12)
    scheduled = query("nightly", clock, schedule=f"{ran:%M %H} * * *", max_age="3d")
    del scheduled["interval"]
    bed.queries(scheduled)
    bed.start()
    assert eventually(lambda: all(bed.value(name, "nightly") not in (None, before[name]) for name in names))
    made_up = {name: bed.value(name, "nightly") for name in names}
    pushes = len(bed.receiver.requests())
    assert eventually(lambda: len(bed.receiver.requests()) >= pushes + 10)
    assert made_up == {name: bed.value(name, "nightly") for name in names}


def test_targets_are_added_removed_and_changed_without_touching_the_others(
    bed: Bed, databases: list[str]
) -> None:
    a, b, c = databases
    once = query("stamp", "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS n", "1h")
    bed.queries(once)
    bed.put("stays", a)
    bed.put("goes", b)
    process = bed.start(POLLER_WATCH="false")
    assert eventually(lambda: bed.up("stays", "goes"))
    stamp = bed.value("stays", "stamp")

    del bed.targets["goes"]
    bed.put("comes", c, attributes={"region": "eu"})
    bed.write()
    process.send(signal.SIGHUP)
    assert eventually(lambda: bed.up("comes") and "goes" not in bed.newest())
    assert bed.value("comes", "stamp", region="eu")
    assert bed.value("stays", "stamp") == stamp, "it is polled once an hour"

    bed.put("comes", c, attributes={"region": "us"})
    bed.write()
    process.send(signal.SIGHUP)
    assert eventually(lambda: bed.value("comes", "stamp", region="us") is not None)
    assert bed.value("comes", "stamp", region="eu") is None
    assert bed.value("stays", "stamp") == stamp

    (bed._folder / "targets.yaml").write_text("targets: [{name: x}]")  # noqa: SLF001 - a mistake
    process.send(signal.SIGHUP)
    assert eventually(lambda: "targets[0]" in process.stderr)
    assert bed.up("stays", "comes")
    records = [json.loads(line) for line in process.stderr.splitlines()]
    reports = [record["message"] for record in records if record["logger"] == "poller.daemon.reload"]
    assert "query files and targets read again: targets: 1 added, 1 removed, 0 changed" in reports
    assert "query files and targets read again: targets: 0 added, 0 removed, 1 changed" in reports
    rejected = reports.index("query files and targets rejected; the running queries and targets stay in use")
    assert "targets.yaml:1: targets[0]" in reports[rejected + 1], reports


def test_queries_select_targets_by_tags_and_names(bed: Bed, databases: list[str]) -> None:
    bed.queries(
        query("everywhere", "SELECT 1 AS n"),
        query("tagged", "SELECT 2 AS n", targets=["chat"]),
        query("named", "SELECT 3 AS n", targets=["name:eu-*", "!chat"]),
    )
    for name, dsn, tags in zip(["eu-1", "eu-2", "us-1"], databases, (["chat"], [], ["chat"]), strict=True):
        bed.put(name, dsn, tags=tags)
    bed.start()
    assert eventually(lambda: bed.up("eu-1", "eu-2", "us-1"))
    metrics = {
        name: {point.metric for point in points} & {"everywhere", "tagged", "named"}
        for name, points in bed.newest().items()
    }
    assert metrics["eu-1"] == metrics["us-1"] == {"everywhere", "tagged"}
    assert metrics["eu-2"] == {"everywhere", "named"}


def test_values_of_every_target_survive_a_restart(bed: Bed, databases: list[str]) -> None:
    bed.queries(query("stamp", "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS n", "1h"))
    for name, dsn in zip("ab", databases, strict=False):
        bed.put(name, dsn)
    process = bed.start()
    assert eventually(lambda: bed.up("a", "b"))
    before = [bed.value(name, "stamp") for name in "ab"]
    process.send(signal.SIGKILL)
    process.wait()
    for name in "ab":
        bed.put(name, make_conninfo(databases[0], port=1))  # unreachable: only stored values can be exported
    mark = len(bed.receiver.requests())
    bed.start()
    assert eventually(lambda: len(bed.receiver.requests()) > mark and bed.value("a", "poller.target.up") == 0)
    assert [bed.value(name, "stamp") for name in "ab"] == before


def test_no_value_has_the_name_of_another_database_if_the_connection_string_is_changed(
    bed: Bed, databases: list[str]
) -> None:
    bed.queries(query("database", OID), query("once", OID, "1h"))
    oids = {}
    for dsn in databases:
        with psycopg.connect(dsn) as connection:
            ((name, oid),) = connection.execute(f"SELECT current_database(), n FROM ({OID}) AS oid")
            oids[name] = oid
    names = list(oids)
    bed.put("a", databases[0])
    process = bed.start()
    assert eventually(lambda: bed.value("a", "once") == bed.value("a", "database") == oids[names[0]])

    bed.put("a", databases[1])
    with psycopg.connect(databases[1]) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = %s AND application_name = 'obscura-poller'",
            [names[0]],
        )
    assert eventually(lambda: bed.value("a", "database") == oids[names[1]])
    assert bed.value("a", "once") is None, "it is polled once an hour"

    process.send(signal.SIGTERM)
    assert process.wait() == 0, process
    mark = len(bed.receiver.requests())
    bed.put("a", make_conninfo(databases[2], port=1))  # unreachable: only stored values can be exported
    bed.start()
    assert eventually(lambda: len(bed.receiver.requests()) > mark and bed.value("a", "poller.target.up") == 0)
    assert bed.value("a", "database") == oids[names[1]]
    assert bed.value("a", "once") is None
    values = [
        (point.resource["db.namespace"], point.value)
        for request in bed.receiver.requests()
        for point in request.points()
        if point.metric in ("database", "once")
    ]
    assert all(oids[name] == value for name, value in values)


def test_the_secret_of_a_target_appears_nowhere(bed: Bed, databases: list[str], tmp_path: Path) -> None:
    secrets = ["planted-in-url-7h2", "planted-in-file-9k4", "planted-by-command-3m8"]
    closed = make_conninfo(databases[0], host="127.0.0.1", port=1)
    bed.put("in-url", make_conninfo(closed, password=secrets[0]))
    (tmp_path / "password").write_text(secrets[1])
    bed.put("in-file", closed, password_file="password")
    bed.put("by-command", closed, password_command=f"echo {secrets[2]}")
    bed.put("missing", closed, password_file="no-such-file")
    bed.put("broken", f"postgresql://user:{secrets[0]}@x@127.0.0.1/db")
    bed.put("good", databases[0])
    process = bed.start(POLLER_LOG_LEVEL="debug", POLLER_OTLP_LOGS="true")
    assert eventually(lambda: bed.up("good"))
    assert eventually(
        lambda: all(
            bed.value(name, "poller.target.up") == 0
            for name in ("in-url", "in-file", "by-command", "missing", "broken")
        )
    )
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    written = process.stderr + "".join(
        path.read_bytes().decode(errors="replace")
        for path in (tmp_path / "state").iterdir()
        if path.is_file()
    )
    pushed = b"".join(received.request.SerializeToString() for received in bed.receiver.requests())
    for secret in secrets:
        assert secret not in written
        assert secret.encode() not in pushed


@pytest.mark.timeout(400)
def test_dead_and_full_servers_cost_the_targets_of_other_servers_nothing(
    bed: Bed, own_cluster: Cluster, make_cluster: Callable[..., Cluster], databases: list[str], proxy: Proxy
) -> None:
    """One server hangs, one is stopped, one admits one connection; the good targets are polled on time."""
    full, stopped = own_cluster.primary, make_cluster().primary
    with psycopg.connect(full.dsn(), autocommit=True) as connection:
        connection.execute("CREATE ROLE narrow LOGIN CONNECTION LIMIT 1")
    stopped_dsn = stopped.dsn()
    stopped.stop()
    hanging = proxy.dsn(databases[0])
    for number in range(20):
        bed.put(f"hangs-{number}", hanging)
        bed.put(f"stopped-{number}", stopped_dsn)
        bed.put(f"full-{number}", make_conninfo(full.dsn(), user="narrow"), connections=4)
    good = [f"good-{number}" for number in range(3)]
    for name, dsn in zip(good, databases, strict=True):
        bed.put(name, dsn, connections=2)
    proxy.hang()
    process = bed.start(POLLER_EXPORT_INTERVAL="1s")
    assert eventually(lambda: bed.up(*good))
    most, mark, began = 0, len(bed.receiver.requests()), time.time()
    with psycopg.connect(databases[0], autocommit=True) as watcher:
        while time.time() - began < 12:
            ((count,),) = watcher.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'obscura-poller'"
            )
            most = max(most, count)
            time.sleep(0.002)
    assert most <= 2
    successes: dict[str, set[object]] = {}
    for request in bed.receiver.requests()[mark:]:
        for point in request.points():
            if point.metric == "poller.target.last_success":
                successes.setdefault(str(point.resource["service.instance.id"]), set()).add(point.value)
    # A poll in each of twelve seconds, on a machine that may be busy.
    assert min(len(successes[name]) for name in good) >= 6, {name: len(successes[name]) for name in good}
    assert all(bed.value(f"hangs-{number}", "poller.target.up") == 0 for number in range(20))
    assert all(bed.value(f"stopped-{number}", "poller.target.up") == 0 for number in range(20))
    assert eventually(lambda: bed.up(*[f"full-{number}" for number in range(20)]))
    records = [json.loads(line) for line in process.stderr.splitlines()]
    warnings = [
        line for line in records if line["severity"] == "WARNING" and "unavailable" in line["message"]
    ]
    assert len(warnings) < 20, "one record when a server fails, not one for each of its targets"

    proxy.resume()
    stopped.start()
    assert eventually(lambda: bed.up(*[f"hangs-{number}" for number in range(20)]), 120)
    assert eventually(lambda: bed.up(*[f"stopped-{number}" for number in range(20)]), 120)
    assert process.running
