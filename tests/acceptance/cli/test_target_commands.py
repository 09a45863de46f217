"""Commands with POLLER_TARGETS on real databases: poll, doctor, check, try, new, health and watch."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from poller.daemon.health import details_path
from poller.model.shards import owner_of
from poller.receiver.ports import LOOPBACK, free_ports
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually

Start = Callable[..., Process]
EU_ONLY = "eu_only"


def a_query(name: str, sql: str, timeout: str = "1s") -> dict[str, Any]:
    metrics = [{"name": name, "unit": "{row}", "description": "x", "value_column": "n"}]
    return {"name": name, "sql": sql, "interval": timeout, "timeout": timeout, "metrics": metrics}


@pytest.fixture
def targets(database: Database, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of a poller with two targets that answer and two on a server that is down."""
    names = [f"{database.name}_{number}" for number in range(2)]
    for number, name in enumerate(names):
        database.execute(f"CREATE DATABASE {name}")
        other = Database(name, database.site)
        other.execute(f"CREATE TABLE users AS SELECT generate_series(1, {number + 3}) AS id")
    (closed,) = free_ports(1)
    document = {
        "defaults": {"require_standby": False, "connect_timeout": "60s"},
        "targets": [
            {"name": "eu-1", "url_file": "eu-1", "tags": ["eu"], "attributes": {"region": "eu"}},
            {"name": "us-1", "url_file": "us-1"},
            {"name": "dead-1", "url": f"host={LOOPBACK} port={closed} dbname=a"},
            {"name": "dead-2", "url": f"host={LOOPBACK} port={closed} dbname=b"},
        ],
    }
    for file, name in zip(("eu-1", "us-1"), names, strict=True):
        dsn = make_conninfo(Database(name, database.site).primary_dsn, password="sekret")
        (tmp_path / file).write_text(dsn)
    (tmp_path / "targets.yaml").write_text(json.dumps(document))
    queries = [
        {**a_query("users", "SELECT count(*) AS n FROM users")},
        {**a_query(EU_ONLY, "SELECT 1 AS n"), "targets": ["eu"]},
    ]
    (tmp_path / "q.yaml").write_text(json.dumps({"queries": queries}))
    yield {
        "POLLER_TARGETS": str(tmp_path / "targets.yaml"),
        "POLLER_QUERIES": str(tmp_path / "q.yaml"),
    }
    for name in names:
        database.execute(f"DROP DATABASE {name} WITH (FORCE)")


def finished(process: Process, code: int) -> str:
    assert process.wait() == code, process
    assert "sekret" not in process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    return process.stdout


def test_poll_prints_every_target_and_an_unreachable_one_stops_no_other(
    targets: dict[str, str], poller_process: Start
) -> None:
    process = poller_process("poll", env=targets)
    head, *lines = [line.split() for line in finished(process, 1).splitlines()]
    assert head[:2] == ["TARGET", "QUERY"]
    assert [(line[0], line[1], line[-1]) for line in lines] == [
        ("eu-1", "users", "ok"),
        ("eu-1", EU_ONLY, "ok"),
        ("us-1", "users", "ok"),
        ("dead-1", "users", "failed(unavailable)"),
        ("dead-2", "users", "failed(unavailable)"),
    ]
    assert re.search(r"replica unavailable: .* target=dead-1 ", process.stderr)


def test_every_format_has_the_name_of_the_target(targets: dict[str, str], poller_process: Start) -> None:
    def polled(form: str) -> str:
        command = ("poll", "--target", "eu-*", "--target", "us-1", "--query", "users", "--format", form)
        return finished(poller_process(*command, env=targets), 0)

    queries = json.loads(polled("json"))["queries"]
    assert [(query["target"], query["samples"][0]["value"]) for query in queries] == [
        ("eu-1", 3),
        ("us-1", 4),
    ]
    assert polled("prometheus").splitlines()[2:] == [
        'users{instance="eu-1",region="eu"} 3',
        'users{instance="us-1"} 4',
    ]
    resources = json.loads(polled("otlp-json"))["resourceMetrics"]
    attributes: list[dict[str, Any]] = [
        {item["key"]: item["value"]["stringValue"] for item in resource["resource"]["attributes"]}
        for resource in resources
    ]
    assert [item["service.instance.id"] for item in attributes] == ["eu-1", "us-1"]
    assert all(item["db.system.name"] == "postgresql" for item in attributes)


def test_a_shard_uses_its_own_targets_and_any_other_by_name(
    targets: dict[str, str], poller_process: Start
) -> None:
    """Each of two shards has the same share in poll, doctor and check --database."""
    polled, checked = [], []
    for index in range(2):
        env = {**targets, "POLLER_SHARD": str(index), "POLLER_SHARDS": "2"}
        process = poller_process("poll", "--format", "json", env=env)
        assert process.wait() in (0, 1), process
        queries = json.loads(process.stdout)["queries"] if process.stdout else []
        polled.append({query["target"] for query in queries})
        process = poller_process("doctor", "--format", "json", env=env)
        assert process.wait() in (0, 1), process
        checks = json.loads(process.stdout)["checks"]
        assert {check["target"] for check in checks if check.get("target")} == polled[-1]
        (shard,) = (check for check in checks if check["check"] == "shard")
        servers = len({name.partition("-")[0] == "dead" for name in polled[-1]})
        share = f"{index}/2 polls {len(polled[-1])} of 4 targets, on {servers} of 2 servers"
        assert shard["detail"] == share
        process = poller_process("check", "--database", env=env)
        assert process.wait() in (0, 1), process
        checked.append(set(re.findall(r"(?:eu|us|dead)-[0-9](?=:)", process.stdout)))
    assert sorted([*polled[0], *polled[1]]) == ["dead-1", "dead-2", "eu-1", "us-1"]
    assert checked == polled
    assert {"eu-1", "us-1"} in [names - {"dead-1", "dead-2"} for names in polled], "they are on one server"
    for index in range(2):
        command = ("poll", "--target", "eu-1", "--query", "users", "--format", "prometheus")
        process = poller_process(*command, env={**targets, "POLLER_SHARD": f"{index}/2"})
        assert finished(process, 0).endswith("3\n")


def test_a_shard_without_a_server_polls_nothing(
    database: Database, targets: dict[str, str], poller_process: Start
) -> None:
    (closed,) = re.findall(r"port=([0-9]+) dbname=a", Path(targets["POLLER_TARGETS"]).read_text())
    ports = (conninfo_to_dict(database.primary_dsn)["port"], closed)
    used = {owner_of(f"{LOOPBACK}:{port}", 5) for port in ports}
    index = min(set(range(5)) - used)
    process = poller_process("poll", env={**targets, "POLLER_SHARD": f"{index}/5"})
    assert finished(process, 0) == ""
    assert process.stderr == f"shard {index}/5 has no targets\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("poll", "--target", "eu-2"), "--target: 'eu-2' matches no target; did you mean 'eu-1'?"),
        (("poll", "--target", "us-1", "--query", EU_ONLY), "--target: none of the queries runs on"),
        (("doctor", "--target", "x*"), "'x*' matches no target; there are: dead-1, dead-2, eu-1, us-1"),
        (("check", "--target", "eu-1"), "--target: selects the databases of --database; add --database"),
        (("try", "SELECT 1 AS n"), "--target: is missing, and POLLER_TARGETS has 4 targets; write one of"),
        (("try", "--target", "eu-2", "SELECT 1 AS n"), "'eu-2' is not a target; did you mean 'eu-1'?"),
        (("new", "--table", "users", "--aggregate", "count"), "--target: is missing"),
    ],
)
def test_a_wrong_or_missing_target_is_an_error_that_names_some(
    targets: dict[str, str], poller_process: Start, command: tuple[str, ...], message: str
) -> None:
    process = poller_process(*command, env=targets)
    assert finished(process, 2) == ""
    assert message in process.stderr


@pytest.mark.parametrize(
    "command", [("poll",), ("doctor",), ("try", "SELECT 1 AS n"), ("check", "--database")]
)
@pytest.mark.parametrize("url", ["host=nowhere", ""])
def test_a_target_without_targets_is_an_error(
    poller_process: Start, command: tuple[str, ...], url: str
) -> None:
    process = poller_process(*command, "--target", "x", env={"POLLER_DATABASE_URL": url})
    assert process.wait() == 2
    assert process.stderr.strip() == (
        "--target: selects among the targets of POLLER_TARGETS, which is not set; set it to a targets file, "
        "or remove --target"
    )


def test_try_and_new_use_the_database_of_one_target(targets: dict[str, str], poller_process: Start) -> None:
    tried = poller_process(
        "try", "--target", "us-1", "--format", "json", "SELECT count(*) AS n FROM users", env=targets
    )
    assert json.loads(finished(tried, 0))["rows"] == [["4"]]
    new = poller_process("new", "--target", "us-1", "--table", "users", "--aggregate", "count", env=targets)
    assert "FROM public.users" in finished(new, 0)


def test_check_prepares_the_queries_of_each_target(targets: dict[str, str], poller_process: Start) -> None:
    lines = finished(poller_process("check", "--database", env=targets), 1).splitlines()
    assert "ok       eu-1: 2 queries accepted" in lines
    assert "ok       us-1: 1 query accepted" in lines
    assert any(line.startswith("error    dead-1: ") for line in lines)
    assert any(line.startswith("error    dead-2: not tried, because its server is") for line in lines)
    assert lines[-1].startswith("3 queries on 4 targets: 2 errors, ")

    only = poller_process("check", "--database", "--target", "eu-1", "--format", "json", env=targets)
    document = json.loads(finished(only, 0))
    assert [(query["target"], query["query"]) for query in document["queries"]] == [
        ("eu-1", "users"),
        ("eu-1", EU_ONLY),
    ]


def test_doctor_prints_a_line_for_each_target_and_the_problems(
    targets: dict[str, str], poller_process: Start
) -> None:
    lines = finished(poller_process("doctor", env=targets), 1).splitlines()
    assert any(re.match(r"(ok|warn) +eu-1 +PostgreSQL .*; 0 failed, ", line) for line in lines)
    assert "fail  dead-1  1 failed, 0 warnings, 0 ok, 0 skipped" in lines
    assert any(line.startswith("fail    database:  not tried, because its server") for line in lines)
    assert any(re.match(r"ok +schedule: +the polls of 2 targets on 1 server keep ", line) for line in lines)
    assert lines[-1].startswith("4 targets: 2 failed, ")

    document = json.loads(
        finished(poller_process("doctor", "--target", "us-1", "--format", "json", env=targets), 0)
    )
    assert {check.get("target") for check in document["checks"]} == {"us-1", None}
    assert [check["check"] for check in document["checks"] if "target" not in check] == [
        "schedule",
        "collector",
    ]


@pytest.mark.parametrize("command", ["poll", "doctor"])
def test_a_message_about_a_target_names_the_key_of_the_targets_file(
    poller_process: Start, database: Database, tmp_path: Path, command: str
) -> None:
    target = {"name": "eu-1", "url": database.primary_dsn, "require_standby": True}
    (tmp_path / "t.yaml").write_text(json.dumps({"targets": [target]}))
    (tmp_path / "q.yaml").write_text(json.dumps({"queries": [a_query("one", "SELECT 1 AS n")]}))
    env = {"POLLER_TARGETS": str(tmp_path / "t.yaml"), "POLLER_QUERIES": str(tmp_path / "q.yaml")}
    process = poller_process(command, env=env)
    assert process.wait() == 1
    text = " ".join((process.stdout + process.stderr).split())
    assert "`require_standby` of target eu-1 is true" in text
    assert "POLLER_REQUIRE_STANDBY" not in text
    if command == "doctor":
        assert "point `url` of target eu-1 at a standby" in text


def test_a_signal_ends_the_polls_of_all_servers(
    poller_process: Start, database: Database, tmp_path: Path
) -> None:
    targets = [
        {"name": "primary", "url": database.primary_dsn},
        {"name": "standby", "url": database.standby_dsn},
    ]
    (tmp_path / "t.yaml").write_text(json.dumps({"targets": targets}))
    queries = [a_query("nap", "SELECT count(*) AS n FROM pg_sleep(300)", "10m")]
    (tmp_path / "q.yaml").write_text(json.dumps({"queries": queries}))
    process = poller_process(
        "poll",
        env={"POLLER_TARGETS": str(tmp_path / "t.yaml"), "POLLER_QUERIES": str(tmp_path / "q.yaml")},
    )
    sql = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database.name}' AND wait_event = 'PgSleep'"
    )

    def running() -> list[tuple[int, ...]]:
        return [*database.execute(sql), *database.ask_standby(sql)]

    assert eventually(lambda: running() == [(1,), (1,)]), process
    process.send(signal.SIGINT)
    assert process.wait() == 130
    assert eventually(lambda: running() == [(0,), (0,)])


def test_a_daemon_reports_its_targets_to_health_and_watch(
    targets: dict[str, str], poller_process: Start
) -> None:
    daemon = poller_process("run", env=targets)
    daemon.wait_for_line("is unavailable, it will be retried")
    daemon.wait_for_line("users = 4")
    variables = {"POLLER_HEALTH_FILE": str(daemon.health_file)}

    def watched(*arguments: str) -> list[str]:
        return finished(poller_process("watch", *arguments, env=variables), 0).splitlines()

    assert eventually(lambda: sum(" up " in line for line in watched()) == 2)
    assert "targets: 2 of 4 up" in finished(poller_process("health", "--ready", env=variables), 0)
    lines = watched()
    assert [line.split()[:2] for line in lines[3:]] == [
        ["dead-1", "down"],
        ["dead-2", "down"],
        ["eu-1", "up"],
        ["us-1", "up"],
    ]
    assert len(watched("--target", "eu*")) == 4
    opened = watched("--target", "eu-1")
    assert opened[1].startswith("eu-1: up, primary ")
    assert any(re.match(r"users +ok ", line) for line in opened)
    assert daemon.health_file.stat().st_size < 1000
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    assert not details_path(daemon.health_file).exists()


@pytest.mark.parametrize(
    ("secret", "message", "advice"),
    [
        (
            "url_file: missing",
            "cannot read how to connect: '{folder}/missing': No such file",
            "correct its path",
        ),
        (
            "url: host=127.0.0.1, password_file: missing",
            "the password file cannot be read: No such file",
            "check the path of password_file",
        ),
        (
            "url: host=127.0.0.1, password_command: /nowhere/command",
            "the password command cannot be run: /nowhere/command: No such file",
            "run `password_command` of target a by hand",
        ),
    ],
    ids=["url_file", "password_file", "password_command"],
)
def test_poll_and_doctor_say_which_secret_cannot_be_read_and_what_to_do(
    poller_process: Start, tmp_path: Path, secret: str, message: str, advice: str
) -> None:
    (tmp_path / "t.yaml").write_text(f"targets: [{{name: a, {secret}}}]")
    (tmp_path / "q.yaml").write_text(json.dumps({"queries": [a_query("one", "SELECT 1 AS n")]}))
    env = {"POLLER_TARGETS": str(tmp_path / "t.yaml"), "POLLER_QUERIES": str(tmp_path / "q.yaml")}
    for command in ("poll", "doctor"):
        process = poller_process(command, env=env)
        assert process.wait() == 1
        text = " ".join((process.stdout + process.stderr).split())
        assert message.format(folder=tmp_path) in text
        assert advice in text
        assert "socket" not in text
