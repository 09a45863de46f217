"""`poller doctor` examines everything that a poll depends on, and gives advice about failures."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo

from poller.config.queries.schema.query import DeclaredQuery
from poller.demo.cluster import Cluster
from poller.model.diagnostics import Diagnostic, failed
from poller.model.otlp_endpoint import Protocol, resolve
from poller.postgres.server_tracker import ServerInfo
from poller.receiver.answers import CannedAnswer
from poller.receiver.ports import LOOPBACK, free_ports
from poller.receiver.receiver import HANG, Receiver
from poller.terminal.diagnostics import count_checks
from poller.tools.doctor import collector as collector_diagnosis
from poller.tools.doctor.server import clock, encryption, is_local, limits
from poller.tools.doctor.standby import examine as examine_replay
from tests.bed.messaging import MessagingServer
from tests.bed.otlp import Certificates
from tests.bed.process import Process, eventually
from tests.bed.programs import lacking
from tests.bed.proxy import Proxy
from tests.bed.terminal import Terminal

Start = Callable[..., Process]
Json = dict[str, Any]
DEBIAN = Path("/usr/lib/postgresql/15/bin")
PROTOCOLS: list[Protocol] = ["grpc", "http/protobuf"]


def examined(start: Start, *options: str, code: int | None = None, **environ: str) -> dict[str, Json]:
    """Return every check of `poller doctor` by name, after assertions that hold for each run."""
    process = start("doctor", "--format", "json", *options, env=environ)
    ended = process.wait()
    assert process.stdout, process
    report = json.loads(process.stdout)
    assert ended == (0 if report["ok"] else 1), process
    assert code in (None, ended), process
    assert report["ok"] is all(check["state"] != "fail" for check in report["checks"])
    assert "Traceback" not in process.stderr
    assert "sekret" not in process.stdout + process.stderr
    return {
        " ".join(filter(None, (check["check"], check.get("subject")))): check for check in report["checks"]
    }


def states(checks: dict[str, Json]) -> dict[str, str]:
    return {name: check["state"] for name, check in checks.items()}


def endpoint(receiver: Receiver, protocol: Protocol) -> str:
    return receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint


# --- Output ---------------------------------------------------------------------------------------------


@pytest.mark.every_version
def test_a_healthy_standby_has_a_line_for_each_check_over_one_connection(
    server: MessagingServer,
    receiver: Receiver,
    poller_process: Start,
    make_proxy: Callable[[int], Proxy],
    cluster: Cluster,
) -> None:
    """In a pipe the output has no colour, a line for each check, and a summary at the end."""
    proxy = make_proxy(cluster.standby.port)
    process = poller_process(
        "doctor",
        env={
            "POLLER_DATABASE_URL": proxy.dsn(server.standby_dsn),
            "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        },
    )
    code = process.wait()
    *lines, export_result = process.stdout.splitlines()

    assert code == 0, process
    assert [line[:30].split()[:2] for line in lines if line.split()[1] != "query"] == [
        ["ok", "database"],
        ["ok", "tls"],
        ["warn", "role"],
        ["warn", "connections"],
        ["warn", "limits"],
        ["ok", "clock"],
        ["ok", "standby"],
        ["ok", "lag"],
        ["ok", "conflicts"],
        ["ok", "collector"],
    ]
    assert [line.split()[:3] for line in lines if line.split()[1] == "query"] == [
        ["ok", "query", "attachments"],
        ["ok", "query", "attachments_bytes"],
        ["ok", "query", "pending_messages"],
        ["ok", "query", "users"],
    ]
    assert export_result == "0 failed, 3 warnings, 11 ok, 0 skipped"
    assert "\x1b" not in process.stdout
    assert process.stderr == ""
    assert proxy.connections == 1


@pytest.mark.every_version
def test_a_schema_that_another_role_owns_or_may_create_in_the_search_path_is_a_warning(
    server: MessagingServer, poller_process: Start
) -> None:
    def open_schemas() -> dict[str, list[str]]:
        checks = examined(poller_process, POLLER_DATABASE_URL=make_conninfo(server.primary_dsn, user=mine))
        return dict(checks["search_path"]["facts"]["open_schemas"]) if "search_path" in checks else {}

    mine, other = f"mine_{server.name}", f"other_{server.name}"
    server.execute(
        f"CREATE ROLE {mine} LOGIN; CREATE ROLE {other}; CREATE SCHEMA owned AUTHORIZATION {other}"
    )
    server.execute(f"GRANT USAGE ON SCHEMA owned TO {mine}; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        assert open_schemas() == {}
        server.execute(f"GRANT CREATE ON DATABASE {server.name} TO {other}")
        assert open_schemas() == {mine: [other]}
        server.execute(f"CREATE SCHEMA {mine} AUTHORIZATION {other}; GRANT USAGE ON SCHEMA {mine} TO {mine}")
        assert open_schemas() == {mine: [other]}
        server.execute(f"ALTER DATABASE {server.name} SET search_path = public, owned")
        assert open_schemas() == {"owned": [other]}
    finally:
        server.execute(f"DROP OWNED BY {other}; DROP OWNED BY {mine}; DROP ROLE {other}; DROP ROLE {mine}")


@pytest.mark.every_version
def test_a_schema_of_the_search_path_in_which_others_may_create_is_a_warning(
    server: MessagingServer, poller_process: Start
) -> None:
    """Schemas in which only superusers may create, and those outside the search_path, do not count."""

    def search_path() -> Json | None:
        return examined(poller_process, POLLER_DATABASE_URL=server.primary_dsn).get("search_path")

    server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    server.execute("CREATE SCHEMA apart; GRANT CREATE ON SCHEMA apart TO PUBLIC, pg_monitor")
    assert search_path() is None
    server.execute(f"ALTER DATABASE {server.name} SET search_path = public, apart")
    warning = search_path()
    assert warning is not None
    assert (warning["state"], warning["facts"]["open_schemas"]) == (
        "warn",
        {"apart": ["PUBLIC", "pg_monitor"]},
    )
    assert "other roles may create objects in apart (PUBLIC, pg_monitor)" in warning["detail"]
    assert "REVOKE CREATE ON SCHEMA apart" in warning["advice"]


@pytest.mark.every_version
@pytest.mark.parametrize("no_color", ["", "1"])
def test_lines_fit_a_terminal_of_80_columns_and_have_colour_unless_disabled(
    server: MessagingServer, on_terminal: Callable[..., Terminal], no_color: str
) -> None:
    (closed,) = free_ports(1)
    terminal = on_terminal(
        "doctor",
        NO_COLOR=no_color,
        POLLER_DATABASE_URL=server.primary_dsn,
        POLLER_OTLP_ENDPOINT=f"http://{LOOPBACK}:{closed}",
        POLLER_EXPORT_TIMEOUT="500ms",
    )
    assert terminal.wait() == 1
    output = terminal.text
    assert ("\x1b[31mfail" in output) is (no_color == "")
    assert ("\x1b[33mwarn" in output) is (no_color == "")
    text = plain(output)
    assert all(len(line) <= 80 for line in text.splitlines()), text
    assert "-> start the collector" in text
    assert "1 failed, " in text


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_failures_decide_the_result_and_warnings_do_not() -> None:
    ok, warn, fail = Diagnostic("ok", "a", ""), Diagnostic("warning", "b", ""), Diagnostic("error", "c", "")
    assert not failed([ok, warn])
    assert failed([ok, warn, fail])
    assert (
        count_checks([ok, warn, fail, Diagnostic("skip", "d", "")]) == "1 failed, 1 warning, 1 ok, 1 skipped"
    )


# --- The database ---------------------------------------------------------------------------------------


@pytest.mark.every_version
def test_privileges_in_excess_are_a_warning_and_with_strict_a_failure(
    server: MessagingServer, poller_process: Start
) -> None:
    environ = {"POLLER_DATABASE_URL": server.standby_dsn}
    checks = examined(poller_process, code=0, **environ)
    assert checks["role"]["state"] == "warn"
    assert "superuser" in checks["role"]["detail"]
    assert "deploy/role.sql" in checks["role"]["advice"]
    assert checks["connections"]["detail"] == "1 in use; a superuser has no limit"

    for strict in (
        examined(poller_process, "--strict", code=1, **environ),
        examined(poller_process, code=1, POLLER_STRICT="true", **environ),
    ):
        assert strict["role"]["state"] == "fail"
        # Like the daemon, it sends no query with such a role.
        assert strict["query users"]["state"] == "skip"
        assert strict["query users"]["detail"] == "not run: see role"
        assert strict["query users"]["facts"]["cost"] is None
        assert strict["lag"]["state"] == "ok"
    assert examined(poller_process, "--no-strict", code=0, POLLER_STRICT="true", **environ)


@pytest.mark.every_version
def test_a_role_that_can_switch_to_a_writing_role_counts_as_writing(
    server: MessagingServer, poller_process: Start
) -> None:
    role = f"switching_{server.name}"
    server.execute(f"CREATE ROLE {role} LOGIN NOINHERIT; GRANT pg_write_all_data TO {role}")
    server.replayed()
    try:
        environ = {"POLLER_DATABASE_URL": make_conninfo(server.standby_dsn, user=role)}
        checks = examined(poller_process, "--strict", code=1, **environ)
        assert checks["role"]["state"] == "fail"
        assert "member of pg_write_all_data" in checks["role"]["detail"]
    finally:
        server.execute(f"DROP ROLE {role}")


@pytest.mark.every_version
def test_a_limit_of_active_backends_without_effect_is_a_warning(
    server: MessagingServer, poller_process: Start
) -> None:
    """The daemon logs the same warning, because a role without pg_read_all_stats sees no other backends."""

    def backends() -> Json:
        url = make_conninfo(server.primary_dsn, user=role)
        checks = examined(poller_process, POLLER_DATABASE_URL=url, POLLER_MAX_ACTIVE_BACKENDS="20")
        return checks["backends"]

    role = f"ordinary_{server.name}"
    server.execute(f"CREATE ROLE {role} LOGIN")
    try:
        check = backends()
        assert (check["state"], check["detail"], check["advice"]) == (
            "warn",
            "POLLER_MAX_ACTIVE_BACKENDS has no effect: the role cannot see other backends",
            f"GRANT pg_read_all_stats TO {role}",
        )
        assert check["facts"] == {"active": None, "limit": 20}
        server.execute(check["advice"])
        check = backends()
        active = check["facts"]["active"]
        assert (check["state"], check["detail"]) == ("ok", f"{active} active, the limit is 20")
    finally:
        server.execute(f"DROP ROLE {role}")


def test_each_missing_limit_is_reported_with_its_command() -> None:
    good = {"temp_file_limit": "1024", "max_parallel_workers_per_gather": "0", "hash_mem_multiplier": "1"}
    for name, value in {
        "temp_file_limit": "-1", "max_parallel_workers_per_gather": "2", "hash_mem_multiplier": "1.5"
    }.items():  # fmt: skip
        diagnostic = limits("Po ller", {**good, name: value})
        assert (diagnostic.severity, diagnostic.facts["missing"]) == ("warning", [name])
        assert diagnostic.advice is not None
        assert diagnostic.advice.startswith(f'ALTER ROLE "Po ller" SET {name} = ')
    assert limits("poller", good).severity == "ok"
    del good["hash_mem_multiplier"]  # which PostgreSQL 12 does not have
    assert limits("poller", good).severity == "ok"


@pytest.mark.every_version
def test_the_setting_decides_about_a_primary(server: MessagingServer, poller_process: Start) -> None:
    for require, state, queries in (("warn", "warn", "ok"), ("true", "fail", "skip"), ("false", "ok", "ok")):
        checks = examined(
            poller_process, POLLER_DATABASE_URL=server.primary_dsn, POLLER_REQUIRE_STANDBY=require
        )
        assert checks["standby"]["state"] == state
        assert checks["standby"]["facts"] == {"role": "primary", "timeline": 1}
        assert checks["conflicts"]["state"] == "skip"
        assert checks["query users"]["state"] == queries
    assert checks["lag"]["detail"] == "a primary has no replay lag"


@pytest.mark.every_version
def test_a_lag_above_the_limit_fails_and_no_query_is_run(
    server: MessagingServer, poller_process: Start
) -> None:
    server.ask_standby("SELECT pg_wal_replay_pause()")
    try:
        server.execute("INSERT INTO attachments VALUES (gen_random_uuid(), now())")
        checks = examined(
            poller_process,
            code=1,
            POLLER_DATABASE_URL=server.standby_dsn,
            POLLER_MAX_REPLAY_LAG="1ms",
        )
    finally:
        server.ask_standby("SELECT pg_wal_replay_resume()")
    assert checks["lag"]["state"] == "fail"
    assert "replay is paused" in checks["lag"]["detail"]
    assert "the limit is 1ms" in checks["lag"]["detail"]
    assert checks["query users"]["detail"] == "not run: see lag"


@pytest.mark.every_version
def test_recovery_conflicts_are_reported_for_the_longest_query(
    server: MessagingServer, poller_process: Start
) -> None:
    environ = {"POLLER_DATABASE_URL": server.standby_dsn, "POLLER_TIMEOUT": "60s"}
    checks = examined(poller_process, code=0, **environ)
    assert checks["conflicts"]["state"] == "warn"
    assert "max_standby_streaming_delay 30s, hot_standby_feedback off" in checks["conflicts"]["detail"]
    assert "hot_standby_feedback = on" in checks["conflicts"]["advice"]
    assert checks["conflicts"]["facts"] == {
        "max_standby_streaming_delay": 30.0,
        "hot_standby_feedback": False,
        "longest_timeout": 60.0,
    }


def test_each_pair_of_delay_and_feedback() -> None:
    metric = {"name": "n", "unit": "{row}", "description": "n", "value_column": "n"}
    slow = DeclaredQuery.model_validate(
        {"name": "slow", "sql": "SELECT 1 AS n", "timeout": "40s", "metrics": [metric]}
    ).definition()

    def state_and_detail(delay: int, feedback: str) -> tuple[str, str]:
        server_info = ServerInfo("standby", 5432, True, 1, 0.0, 0.0, "", 0.0)
        settings = {"max_standby_streaming_delay": str(delay), "hot_standby_feedback": feedback}
        *_, conflicts = examine_replay(server_info, settings, [slow], require_standby="warn", max_lag=None)
        return conflicts.severity, conflicts.message.partition(": ")[2]

    assert state_and_detail(-1, "off") == ("ok", "a query may run 40s (slow), and replay waits for it")
    assert state_and_detail(60000, "off") == ("ok", "a query may run 40s (slow), and replay waits as long")
    assert state_and_detail(0, "off") == (
        "warning",
        "a query may run 40s (slow), and VACUUM or DDL on the primary may cancel it",
    )
    assert state_and_detail(30000, "on")[0] == "ok"
    assert "VACUUM on the primary does not cancel it" in state_and_detail(30000, "on")[1]


def test_lag_is_compared_with_the_limit_or_the_intervals() -> None:
    metric = {"name": "n", "unit": "{row}", "description": "n", "value_column": "n"}
    query = DeclaredQuery.model_validate(
        {"name": "n", "sql": "SELECT 1 AS n", "interval": "60s", "metrics": [metric]}
    ).definition()
    settings = {"max_standby_streaming_delay": "-1", "hot_standby_feedback": "on"}

    def lag(seconds: float | None, limit: float | None) -> str:
        server_info = ServerInfo("standby", 5432, True, 1, seconds, seconds, "", 0.0)
        diagnostics = examine_replay(server_info, settings, [query], require_standby="warn", max_lag=limit)
        return diagnostics[1].severity

    assert [lag(0.0, None), lag(59.0, None), lag(61.0, None), lag(None, None)] == [
        "ok",
        "ok",
        "warning",
        "warning",
    ]
    assert [lag(9.0, 10.0), lag(11.0, 10.0), lag(None, 10.0)] == ["ok", "error", "error"]


@pytest.mark.every_version
@pytest.mark.parametrize(
    ("changes", "message", "advice"),
    [
        (
            {"user": "nobody_here", "password": "sekret"},
            'role "nobody_here" does not exist',
            "deploy/role.sql",
        ),
        ({"dbname": "nothing_here"}, 'database "nothing_here" does not exist', "database's name"),
        ({"sslmode": "require"}, "does not support SSL", "ssl = on"),
        ({"host": "nowhere.invalid"}, "failed to resolve host", "DNS"),
    ],
)
def test_a_failed_connection_is_a_single_failure_and_the_collector_is_still_examined(
    server: MessagingServer,
    receiver: Receiver,
    poller_process: Start,
    changes: dict[str, str],
    message: str,
    advice: str,
) -> None:
    checks = examined(
        poller_process,
        code=1,
        POLLER_DATABASE_URL=make_conninfo(server.standby_dsn, **changes),
        POLLER_OTLP_ENDPOINT=receiver.http_endpoint,
        POLLER_OTLP_PROTOCOL="http/protobuf",
    )
    assert states(checks) == {"database": "fail", "collector": "ok"}
    assert message in checks["database"]["detail"]
    assert advice in checks["database"]["advice"]


def test_if_nothing_works_each_failure_is_reported_without_secrets(poller_process: Start) -> None:
    (closed,) = free_ports(1)
    checks = examined(
        poller_process,
        code=1,
        POLLER_DATABASE_URL=f"postgresql://poller:sekret@{LOOPBACK}:{closed}/app?sslpassword=sekret-key",
        POLLER_OTLP_ENDPOINT=f"http://poller:sekret-word@{LOOPBACK}:{closed}",
        POLLER_OTLP_PROTOCOL="http/protobuf",
        POLLER_EXPORT_TIMEOUT="500ms",
        POLLER_LOG_LEVEL="debug",
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20sekret-token",
        PGPASSWORD="sekret-too",
    )
    assert states(checks) == {"database": "fail", "collector": "fail"}
    assert "Connection refused" in checks["database"]["detail"]
    assert f"postgresql://poller:***@{LOOPBACK}:{closed}/app" in checks["database"]["detail"]
    assert "start the server" in checks["database"]["advice"]
    assert checks["collector"]["detail"].endswith("by http/protobuf: connection refused")


def test_tls_is_reported_with_its_version_and_cipher(
    certificates: Certificates, poller_process: Start, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--test-dsn"):
        pytest.skip("this test creates its own server")
    if not DEBIAN.is_dir():  # the PostgreSQL of the wheel has no TLS
        lacking("PostgreSQL 15 of Debian (apt-get install postgresql-15)")
    with Cluster(DEBIAN) as cluster:
        cluster.standby.add_file("tls.pem", certificates.server.read_bytes())
        cluster.standby.add_file("tls.key", certificates.server_key.read_bytes())
        cluster.standby.configure(ssl="on", ssl_cert_file="tls.pem", ssl_key_file="tls.key")
        cluster.standby.restart()
        dsn = make_conninfo(cluster.standby.dsn(), sslmode="verify-full", sslrootcert=str(certificates.ca))
        checks = examined(poller_process, code=0, POLLER_DATABASE_URL=dsn)
        strange = examined(
            poller_process, code=1,
            POLLER_DATABASE_URL=make_conninfo(dsn, sslrootcert=str(certificates.stranger)),
        )  # fmt: skip
    assert checks["tls"]["state"] == "ok"
    assert checks["tls"]["detail"].startswith("TLSv1.3, TLS_")
    assert checks["tls"]["facts"]["sslmode"] == "verify-full"
    # This database has no tables.
    assert checks["query users"]["state"] == "skip"
    assert checks["query users"]["detail"] == "skipped: relation users does not exist"
    assert "certificate verify failed" in strange["database"]["detail"]
    assert "sslrootcert" in strange["database"]["advice"]


def test_a_remote_connection_needs_tls_and_a_verified_certificate() -> None:
    tls = {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384"}

    def state_and_detail(sslmode: str, *, in_use: bool, here: bool = False) -> tuple[str, str]:
        diagnostic = encryption(tls if in_use else None, in_use=in_use, sslmode=sslmode, here=here)
        return diagnostic.severity, diagnostic.message

    assert state_and_detail("prefer", in_use=False, here=True)[0] == "ok"
    state, detail = state_and_detail("prefer", in_use=False)
    assert (state, "no TLS (sslmode=prefer)" in detail) == ("warning", True)
    state, detail = state_and_detail("require", in_use=True)
    assert (state, detail) == (
        "warning",
        "TLSv1.3, TLS_AES_256_GCM_SHA384, but the server's certificate is not verified (sslmode=require)",
    )
    assert state_and_detail("verify-full", in_use=True)[0] == "ok"
    assert [
        is_local(host, address)
        for host, address in (
            ("/run/postgresql", ""),
            ("@abstract", ""),
            ("localhost", "::1"),
            ("db", "10.0.0.7"),
            ("db", ""),
        )
    ] == [True, True, True, False, False]


def test_a_clock_that_is_off_by_more_than_five_seconds_is_a_warning() -> None:
    assert [clock(seconds).severity for seconds in (0.0, 5.0, -5.0, 5.1, -61.0)] == [
        "ok", "ok", "ok", "warning", "warning",
    ]  # fmt: skip
    assert clock(-61.0).message.startswith("the server's clock is 1m1s behind the local clock")
    assert clock(5.1).message.startswith("the server's clock is 5.1s ahead of the local clock")


# --- The queries ----------------------------------------------------------------------------------------


@pytest.mark.every_version
def test_every_query_runs_once_and_its_result_is_reported(
    server: MessagingServer, poller_process: Start, tmp_path: Path
) -> None:
    server.execute("CREATE TABLE locked_up (id int); CREATE ROLE reader_of_nothing LOGIN")
    server.execute("GRANT SELECT (id) ON users TO reader_of_nothing")
    server.replayed()

    def query(name: str, sql: str, **more: object) -> Json:
        metric = {"name": name, "unit": "{row}", "description": name, "value_column": "n"}
        return {"name": name, "sql": sql, "metrics": [metric], **more}

    expensive = "SELECT count(*) AS n FROM generate_series(1, 100000)"
    queries = [
        query("good", "SELECT count(id) AS n FROM users", owner="user-team"),
        query("bad", "SELECT nothing AS n FROM users", owner="user-team"),
        query("hidden", "SELECT count(*) AS n FROM locked_up", requires={"columns": {"locked_up": ["id"]}}),
        query("absent", "SELECT count(*) AS n FROM absent", requires={"columns": {"absent": []}}),
        query("endless", "SELECT count(*) AS n FROM pg_sleep(60)", timeout="200ms"),
        query("slow", "SELECT count(*) AS n FROM pg_sleep(0.3)", interval="1s", timeout="900ms"),
        query("null", "SELECT NULL::int AS n"),
        query("nan", "SELECT 'NaN'::float8 AS n"),
        query("text", "SELECT 'x'::text AS n"),
        query("expensive", expensive, estimate={"sql": "SELECT 7 AS n", "above_cost": 1}),
        query("forbidden", expensive, max_cost=1),
        query(
            "elsewhere", "SELECT count(*) AS n FROM tables",
            settings={"search_path": "information_schema"}, max_cost=1e9,
        ),
        query("misspelt", "SELECT count(id) AS n FROM users", settings={"search_path": "publik, public"}),
    ]  # fmt: skip
    (tmp_path / "queries.yaml").write_text(json.dumps({"queries": queries}))
    try:
        checks = examined(
            poller_process,
            code=1,
            POLLER_DATABASE_URL=make_conninfo(server.standby_dsn, user="reader_of_nothing"),
            POLLER_QUERIES=str(tmp_path),
        )
    finally:
        server.execute("DROP OWNED BY reader_of_nothing; DROP ROLE reader_of_nothing")
    by_name = {name.removeprefix("query "): check for name, check in checks.items() if "query" in name}

    assert states(by_name) == {
        "good": "ok",
        "bad": "fail",
        "hidden": "warn",
        "absent": "skip",
        "endless": "fail",
        "slow": "warn",
        "null": "ok",
        "nan": "warn",
        "text": "fail",
        "expensive": "ok",
        "forbidden": "warn",
        "elsewhere": "ok",
        "misspelt": "warn",
    }
    assert "the schema 'publik' does not exist in this database" in by_name["misspelt"]["detail"]
    good = by_name["good"]["facts"]
    assert good["cost"] > 0
    assert good["duration"] > 0
    assert good["series"] == 1
    assert 'rejected (42703): column "nothing" does not exist' in by_name["bad"]["detail"]
    assert by_name["bad"]["detail"].endswith("; owner: user-team")
    assert by_name["good"]["detail"].endswith("; owner: user-team")
    assert "requires.columns" in by_name["bad"]["advice"]
    assert by_name["bad"]["facts"]["cost"] is None
    assert (by_name["bad"]["facts"]["owner"], by_name["null"]["facts"]["owner"]) == ("user-team", None)
    assert "may not be read" in by_name["hidden"]["detail"]
    assert by_name["absent"]["detail"] == "skipped: relation absent does not exist"
    assert "timeout (57014)" in by_name["endless"]["detail"]
    assert by_name["endless"]["facts"]["cost"] > 0
    # Ten times its duration, which is longer on a busy server.
    assert re.search(r"more than 10% of its interval, so it runs every [3-9]s", by_name["slow"]["detail"])
    assert "rows dropped: 1 " in by_name["null"]["detail"]
    assert by_name["nan"]["advice"] == "check the rows: poller poll --query nan -v"
    assert by_name["text"]["facts"]["error"] == "mismatch"
    assert "by its estimate (cost above 1)" in by_name["expensive"]["detail"]
    assert by_name["expensive"]["facts"]["cost"] > 1
    assert re.fullmatch(
        r"skipped: the planner's cost [\d,]+ is above max_cost 1", by_name["forbidden"]["detail"]
    )
    assert "max_cost" in by_name["forbidden"]["advice"]
    assert re.search(r"cost [\d,]+ of 1,000,000,000", by_name["elsewhere"]["detail"])
    assert by_name["elsewhere"]["facts"]["max_cost"] == 1e9
    assert checks["role"]["detail"] == "reader_of_nothing may only read"
    assert checks["connections"]["detail"] == "1 in use, the role has no limit"


def test_a_query_that_recovery_cancels_is_retried(
    make_cluster: Callable[..., Cluster], poller_process: Start, tmp_path: Path
) -> None:
    """As in a tick; otherwise the failure would be a false alarm."""
    cluster = make_cluster(standby_delay="50ms")
    cluster.primary.execute(
        "CREATE TABLE gate (n int); CREATE TABLE locked (n int); INSERT INTO locked VALUES (1)"
    )
    cluster.wait_replayed()
    # The gate opens before the conflict, so the retried query is short.
    sleep = "CASE WHEN EXISTS (SELECT FROM gate) THEN '' ELSE pg_sleep(60)::text END IS NOT NULL"
    metric = {"name": "n", "unit": "{row}", "description": "n", "value_column": "n"}
    queries = [
        {"name": "locked", "sql": f"SELECT count(*) AS n FROM locked WHERE {sleep}", "metrics": [metric]},
        {"name": "other", "sql": "SELECT 1 AS n", "metrics": [{**metric, "name": "other"}]},
    ]
    (tmp_path / "queries.yaml").write_text(json.dumps({"queries": queries}))
    process = poller_process(
        "doctor",
        "--format",
        "json",
        env={"POLLER_DATABASE_URL": cluster.standby.dsn(), "POLLER_QUERIES": str(tmp_path)},
    )
    asleep = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    assert eventually(lambda: bool(cluster.standby.execute(asleep))), process
    cluster.primary.execute("INSERT INTO gate VALUES (1)")
    cluster.primary.execute(
        "BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE; INSERT INTO locked VALUES (2); COMMIT"
    )
    assert process.wait() == 0, process
    ((cancelled,),) = cluster.standby.execute(
        "SELECT confl_lock FROM pg_stat_database_conflicts WHERE datname = 'postgres'"
    )
    assert cancelled == 1
    results = {check.get("subject"): check for check in json.loads(process.stdout)["checks"]}
    assert results["locked"]["state"] == results["other"]["state"] == "ok"


@pytest.mark.every_version
def test_a_signal_ends_doctor_and_cancels_the_query(
    server: MessagingServer, poller_process: Start, tmp_path: Path
) -> None:
    metric = {"name": "nap", "unit": "{row}", "description": "nap", "value_column": "n"}
    nap = {"name": "nap", "sql": "SELECT count(*) AS n FROM pg_sleep(30)", "metrics": [metric]}
    (tmp_path / "queries.yaml").write_text(json.dumps({"queries": [nap]}))
    process = poller_process(
        "doctor", env={"POLLER_DATABASE_URL": server.primary_dsn, "POLLER_QUERIES": str(tmp_path)}
    )

    def naps() -> int:
        ((count,),) = server.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND state = 'active' AND query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid()"
        )
        return int(count)

    assert eventually(lambda: naps() == 1), process
    process.send(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert process.stdout == ""
    assert eventually(lambda: naps() == 0)


# --- The collector --------------------------------------------------------------------------------------


def collector(url: str, protocol: Protocol, timeout: float = 20.0) -> Diagnostic:
    diagnostic = collector_diagnosis.examine(resolve(url, "POLLER_OTLP_ENDPOINT", protocol), timeout)
    assert diagnostic.rule == "collector"
    return diagnostic


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_collector_gets_a_single_empty_request(receiver: Receiver, protocol: Protocol) -> None:
    diagnostic = collector(endpoint(receiver, protocol), protocol)
    assert diagnostic.severity == "ok"
    (received,) = receiver.requests()
    assert received.protocol == protocol.partition("/")[0]
    assert received.points() == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (CannedAnswer("UNAUTHENTICATED", 401, "who are you"), "HEADERS, for example authorization="),
        (CannedAnswer("PERMISSION_DENIED", 403, "not you"), "use another token"),
        (CannedAnswer("UNIMPLEMENTED", 404, "what is that"), "pipeline for metrics"),
        (HANG, "does not answer in time"),
    ],
)
def test_the_collectors_answer_is_reported_with_advice(
    receiver: Receiver, protocol: Protocol, answer: CannedAnswer, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20sekret-token")
    receiver.answer = answer
    timeout = 2.0 if answer.hang else 20.0
    diagnostic = collector(endpoint(receiver, protocol), protocol, timeout)
    assert diagnostic.severity == "error"
    assert advice in (diagnostic.advice or "")
    assert receiver.attempts()
    assert "sekret" not in str(diagnostic)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_closed_port_or_another_service_is_reported(
    receiver: Receiver, protocol: Protocol, certificates: Certificates
) -> None:
    (closed,) = free_ports(1)
    diagnostic = collector(f"http://{LOOPBACK}:{closed}", protocol)
    assert "connection refused" in diagnostic.message

    diagnostic = collector("http://nowhere.invalid:4317", protocol)
    assert "the host name nowhere.invalid cannot be resolved" in diagnostic.message

    other: Protocol = "http/protobuf" if protocol == "grpc" else "grpc"
    diagnostic = collector(endpoint(receiver, other), protocol)
    message = "the port uses HTTP/1.1" if protocol == "grpc" else "the port uses gRPC"
    assert message in diagnostic.message
    assert f"set POLLER_OTLP_PROTOCOL={other}" in (diagnostic.advice or "")

    diagnostic = collector(endpoint(receiver, protocol).replace("http:", "https:"), protocol)
    assert "the port does not use TLS" in diagnostic.message
    assert "http://" in (diagnostic.advice or "")

    with Receiver(tls=certificates.tls) as secure:
        diagnostic = collector(endpoint(secure, protocol).replace("https:", "http:"), protocol)
    assert "the port uses TLS, but the endpoint is plain text" in diagnostic.message
    assert "https://" in (diagnostic.advice or "")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_certificate_problems_are_distinguished(
    protocol: Protocol, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver(tls=certificates.mtls) as receiver:
        url = endpoint(receiver, protocol)
        diagnostic = collector(url, protocol)
        assert "the collector's certificate is not accepted" in diagnostic.message
        assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in (diagnostic.advice or "")

        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificates.ca))
        diagnostic = collector(url, protocol)
        assert "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE" in (diagnostic.advice or ""), diagnostic

        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(certificates.client))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(certificates.client_key))
        assert collector(url, protocol).severity == "ok"

        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem")
        diagnostic = collector(url, protocol)
        assert (diagnostic.severity, "cannot be read" in diagnostic.message) == ("error", True)


# --- The configuration ----------------------------------------------------------------------------------


def test_an_invalid_configuration_ends_with_2_before_any_check(poller_process: Start) -> None:
    for environ, message in (
        ({}, "POLLER_DATABASE_URL: is not set"),
        ({"POLLER_DATABASE_URL": "dbname=x", "POLLER_QUERIES": "/nowhere"}, "POLLER_QUERIES: '/nowhere'"),
    ):
        process = poller_process("doctor", env=environ)
        assert process.wait() == 2
        assert process.stderr.startswith(message), process
        assert process.stdout == ""


def test_a_misspelt_variable_is_a_warning(poller_process: Start) -> None:
    (closed,) = free_ports(1)
    checks = examined(
        poller_process,
        POLLER_DATABASE_URL=f"host={LOOPBACK} port={closed} password=sekret",
        POLLER_INTERVALL="1s",
    )
    assert checks["settings"]["state"] == "warn"
    assert "did you mean POLLER_INTERVAL?" in checks["settings"]["detail"]
