"""`poller try` runs a statement with every limit of a poll and prints a query file for it."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo
from rich.console import Console
from typer.testing import CliRunner, Result

from poller.cli.app import app
from poller.cli.database import admission_of, database_session
from poller.cli.try_statement import StatementPreview
from poller.config.load_settings import load
from poller.model.errors import ConfigError
from poller.receiver.ports import free_ports
from tests.bed.definitions import a_query
from tests.bed.messaging import MessagingServer
from tests.bed.process import Process

Try = Callable[..., Result]
SUPERUSER = (
    "warning: this role is a superuser, which only the read-only transaction restricts; "
    "create a read-only role with deploy/role.sql"
)
BY_NAME = "SELECT name, count(*) AS devices FROM devices GROUP BY name"


@pytest.fixture
def tried(server: MessagingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Try:
    """Run `poller try` on the standby, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str | None = None, **environ: str) -> Result:
        url = {"POLLER_DATABASE_URL": server.standby_dsn}
        return CliRunner().invoke(app, ["try", *arguments], input=stdin, env=url | environ)

    return run


def evened(text: str) -> list[str]:
    text = re.sub(r"in \d+ ms, planner's cost [\d,]+", "in N ms, planner's cost N", text)
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.mark.every_version
def test_rows_metrics_and_cost_are_on_stderr_and_the_query_file_on_stdout(
    tried: Try, tmp_path: Path, server: MessagingServer
) -> None:
    done = tried(BY_NAME)
    assert done.exit_code == 0, done.output
    assert done.stdout == (
        "queries:\n"
        "  - name: devices\n"
        f"    sql: {BY_NAME}\n"
        "    metrics:\n"
        "      - name: devices\n"
        "        description: Devices.\n"
        '        unit: "{device}"\n'
        "        value_column: devices\n"
        "        attribute_columns: [name]\n"
    )
    assert evened(done.stderr) == [
        SUPERUSER,
        "name character varying devices bigint",
        "phone 37",
        "1 row in N ms, planner's cost N",
        "",
        "METRIC UNIT VALUE ATTRIBUTES SERIES",
        "devices {device} devices name 1",
        "",
    ]
    (tmp_path / "q.yaml").write_text(done.stdout)
    polled = CliRunner().invoke(
        app, ["poll", "--queries", "q.yaml", "--format", "json", "--database-url", server.standby_dsn]
    )
    (sample,) = json.loads(polled.stdout)["queries"][0]["samples"]
    assert sample | {"metric": "devices", "unit": "{device}", "attributes": {"name": "phone"}} == sample
    assert sample["value"] == 37


@pytest.mark.every_version
def test_json_contains_the_query_rows_cost_and_result(tried: Try) -> None:
    done = tried(BY_NAME, "--format", "json")
    report = json.loads(done.stdout)

    assert (done.exit_code, done.stderr) == (0, f"{SUPERUSER}\n")
    assert report["query"]["metrics"][0]["attribute_columns"] == ["name"]
    assert report["columns"] == [
        {"name": "name", "type": "character varying"},
        {"name": "devices", "type": "bigint"},
    ]
    assert (report["rows"], report["rows_beyond"], report["doubts"]) == ([["phone", "37"]], 0, [])
    assert report["cost"] > 0
    assert report["poll"]["state"] == "ok"
    assert report["poll"]["samples"][0]["value"] == 37


@pytest.mark.every_version
def test_a_statement_comes_from_stdin_and_keeps_its_lines(tried: Try) -> None:
    sql = "SELECT count(*) AS users -- all of them\nFROM users\n"
    piped = tried(stdin=f"{sql};\n\n")
    assert piped.exit_code == 0, piped.output
    assert "    sql: |\n      SELECT count(*) AS users -- all of them\n      FROM users\n" in piped.stdout
    assert tried("-", stdin=sql).stdout == piped.stdout


@pytest.mark.every_version
def test_a_query_is_appended_to_a_file_and_a_used_name_is_refused_before_it_runs(
    tried: Try, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    added = tried(BY_NAME, "--write", "mine.yaml", "--interval", "10m")
    assert added.exit_code == 0, added.output
    assert added.stderr.splitlines()[-2:] == [
        "added to mine.yaml:2",
        "the daemon does not read this file yet: export POLLER_QUERIES=shipped:mine.yaml",
    ]
    assert file.read_text() == added.stdout
    assert "    interval: 10m\n" in added.stdout

    slow = "SELECT pg_sleep(3600)::text, 1 AS devices FROM devices"
    again = tried(slow, "--write", "mine.yaml", "--name", "devices")
    assert isinstance(again.exception, ConfigError)
    assert str(again.exception) == (
        "--name: the query name 'devices' is already used at mine.yaml:2; write --name devices_2"
    )
    shipped = tried("SELECT count(*) AS registered FROM users", "--name", "users", "--write", "mine.yaml")
    assert re.match(
        r"--name: the query name 'users' is already used at .*queries/users\.yaml:\d+;",
        str(shipped.exception),
    )
    assert file.read_text() == added.stdout

    second = tried(BY_NAME, "--name", "phones", "--write", "mine.yaml", POLLER_QUERIES="shipped:mine.yaml")
    assert second.stderr.splitlines()[-1] == "added to mine.yaml:12"
    checked = CliRunner().invoke(app, ["check", "mine.yaml"])
    assert checked.stdout == "1 file, 2 queries, 2 metrics: no problems\n"


@pytest.mark.every_version
def test_a_guessed_name_is_unused_and_a_given_name_in_use_is_a_warning(tried: Try) -> None:
    users = "SELECT count(*) AS users FROM users"
    done = tried(users)
    assert "  - name: users_2\n" in done.stdout
    assert "      - name: users_2\n        description: Users.\n" in done.stdout
    assert (
        "warning: 'users' is in use, so the query is called 'users_2'; choose a name with --name"
        in done.stderr.splitlines()
    )
    named = tried(users, "--name", "users")
    assert named.exit_code == 0
    assert re.search(
        r"^warning: --name: the query name 'users' is already used at .*write --name users_2$",
        named.stderr,
        re.MULTILINE,
    )


REFUSED: dict[str, list[str]] = {
    "SELECT count(*) AS n\nFROM usrs AS u": [
        ("relation \"usrs\" does not exist (42P01, line 2, column 6 of sql); did you mean 'users'?"),
        "  FROM usrs AS u",
        "       ^",
    ],
    'SELECT count(*) AS n FROM public."messges"': [
        (
            'relation "public.messges" does not exist (42P01, line 1, column 27 of sql); '
            "did you mean 'public.messages'?"
        ),
        '  SELECT count(*) AS n FROM public."messges"',
        "                            ^",
    ],
    "SELECT count(*) AS n FROM zzzzzz": [
        'relation "zzzzzz" does not exist (42P01, line 1, column 27 of sql)',
        "  SELECT count(*) AS n FROM zzzzzz",
        "                            ^",
    ],
    "SELECT count(*) AS n FROM users WHERE usrname = 'x'": [
        (
            'column "usrname" does not exist (42703, line 1, column 39 of sql); Perhaps you meant to '
            "reference the "
            'column "users.username".'
        ),
        "  SELECT count(*) AS n FROM users WHERE usrname = 'x'",
        "                                        ^",
    ],
    "SELECT 1 / (SELECT count(*) FROM users WHERE false) AS n": [
        "division by zero (22012); guard the division: x / nullif(y, 0)"
    ],
    "SELECT username FROM users": [
        (
            "no column of the result is a number (username is character varying); cast "
            "one, or add "
            "count(*) AS n"
        )
    ],
}


@pytest.mark.every_version
def test_an_error_has_the_servers_message_its_position_and_the_fix(tried: Try) -> None:
    for sql, lines in REFUSED.items():
        done = tried(sql)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.splitlines() == lines


@pytest.mark.every_version
def test_a_statement_is_stopped_by_its_timeout(tried: Try) -> None:
    done = tried("SELECT count(*) AS n FROM pg_sleep(3600)", "--timeout", "200ms")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "canceling statement due to statement timeout (57014); make the query cheaper or raise its timeout\n"
    )


@pytest.mark.every_version
def test_a_function_that_writes_fails_on_a_primary_too(tried: Try, server: MessagingServer) -> None:
    server.execute("CREATE FUNCTION wipe() RETURNS int LANGUAGE sql AS $$ DELETE FROM devices; SELECT 1 $$")
    done = tried("SELECT wipe() AS n", POLLER_DATABASE_URL=server.primary_dsn)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        "cannot execute DELETE in a read-only transaction (25006); a query may only read"
    )
    assert server.execute("SELECT count(*) FROM devices") == [(37,)]


@pytest.mark.every_version
def test_the_limits_on_role_lag_and_privileges_hold(tried: Try, server: MessagingServer) -> None:
    primary = tried(BY_NAME, "--require-standby", "true", POLLER_DATABASE_URL=server.primary_dsn)
    assert (primary.exit_code, primary.stdout) == (1, "")
    assert primary.stderr == ("not run: this server is a primary and POLLER_REQUIRE_STANDBY is true\n")
    warned = tried(BY_NAME, POLLER_DATABASE_URL=server.primary_dsn)
    assert warned.exit_code == 0
    assert "warning: this server is a primary; poll a standby" in warned.stderr
    strict = tried(BY_NAME, "--strict", "true")
    assert (strict.exit_code, strict.stdout) == (1, "")
    assert strict.stderr.startswith(
        "not run: POLLER_STRICT is set and the role may do more than read: superuser"
    )


@pytest.mark.every_version
def test_only_a_superuser_gets_a_warning(tried: Try, server: MessagingServer) -> None:
    name = f"plain_{os.getpid()}"
    server.execute(f"CREATE ROLE {name} LOGIN; GRANT SELECT ON devices TO {name}")
    try:
        url = make_conninfo(server.primary_dsn, user=name)
        plain = tried(BY_NAME, POLLER_DATABASE_URL=url)
    finally:
        server.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")
    assert plain.exit_code == 0
    assert "superuser" not in plain.stderr
    assert SUPERUSER in tried(BY_NAME).stderr.splitlines()


@pytest.mark.every_version
def test_strict_also_applies_to_another_connection(server: MessagingServer) -> None:
    """Another connection is opened if the connection that inspected the statement is lost."""
    settings = load({"POLLER_DATABASE_URL": server.standby_dsn, "POLLER_STRICT": "true"})
    target = settings.only_target()
    with database_session(settings, target, admission_of(target)) as session:
        preview = StatementPreview(settings, target, session, BY_NAME, Console(stderr=True))
        query = a_query(sql=BY_NAME)
        skipped = preview.answer(query).skipped
    assert skipped is not None
    assert skipped.reason == "excess_privilege"


@pytest.mark.every_version
def test_omitted_rows_are_listed(tried: Try) -> None:
    twins = "SELECT 'a' AS kind, g AS depth FROM generate_series(1, 30) AS g"
    done = tried(twins, "--name", "twins")
    assert done.exit_code == 1
    lines = evened(done.stderr)
    assert lines[22:24] == ["... and 10 more rows", "30 rows in N ms, planner's cost N"]
    assert "warning: twins: omitted from twins (duplicate): kind=a depth=1" in lines
    assert "warning: twins: 10 more omitted" in lines
    assert "twins {depth} depth kind 0" in lines
    assert done.stdout.startswith("queries:\n")
    assert lines[-1] == "every row is omitted, so the query feeds no metric"
    refused = tried(twins, "--name", "twins", "--write", "twins.yaml")
    assert refused.exit_code == 1
    assert refused.stderr.endswith("so the query feeds no metric and is not added to twins.yaml\n")
    assert not Path("twins.yaml").exists()
    assert tried("SELECT 1 AS n WHERE false", "--name", "none").exit_code == 0


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DELETE FROM users", ("SQL: is DELETE; a query may only read: write SELECT, WITH, VALUES "
        "or TABLE")),
        ("SELECT 1; SELECT 2", "SQL: contains 2 statements; write one query per statement"),
        (
            "SELEC 1",
            ("SQL: is not SQL that PostgreSQL understands: syntax error at or near "
            "\"SELEC\" (line 1, column 1 "
            "of sql)"),
        ),
        (" ", "SQL: contains no statement; write one SELECT, WITH, VALUES or TABLE"),
    ],
)  # fmt: skip
def test_a_statement_that_does_not_only_read_is_not_sent(sql: str, problem: str) -> None:
    done = CliRunner().invoke(app, ["try", sql, "--database-url", "postgresql://127.0.0.1:1/x"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == problem


@pytest.mark.every_version
def test_a_name_that_is_not_utf_8_is_refused(tried: Try) -> None:
    done = tried("SELECT 1 AS n", "--name", "\udcff")
    assert isinstance(done.exception, ConfigError), done.exception
    assert str(done.exception).startswith("--name: '\\udcff' is not a query name; write lower-case")


def test_a_missing_statement_on_a_terminal_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from poller.cli.try_ import _statement

    stdin = io.StringIO()
    monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)
    with pytest.raises(
        ConfigError, match="SQL: is missing; write it as an argument or to stdin, for example poller try"
    ):
        _statement(None)


def test_an_unreachable_server_is_reported_with_the_fix() -> None:
    (port,) = free_ports(1)
    url = f"postgresql://poller:sekret@127.0.0.1:{port}/app"
    done = CliRunner().invoke(app, ["try", "SELECT 1 AS n", "--database-url", url])

    assert (done.exit_code, done.stdout) == (1, "")
    assert "Connection refused" in done.stderr
    assert done.stderr.endswith("; start the server, or correct host and port (and its listen_addresses)\n")
    assert "sekret" not in done.stderr


@pytest.mark.every_version
def test_the_command_is_named_try(server: MessagingServer, poller_process: Callable[..., Process]) -> None:
    """As a process with a pipe, the output has no colour, and a row is a line."""
    process = poller_process("try", BY_NAME, env={"POLLER_DATABASE_URL": server.standby_dsn})

    assert process.wait() == 0, str(process)
    assert process.stdout.startswith("queries:\n  - name: devices\n")
    assert "\x1b" not in process.stderr
