"""No text of a file, server, client or collector can control a terminal or imitate another line."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import MessageToJson
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from poller.config.yaml_text import to_text
from poller.events import logs as event_logs
from poller.model.log_format import JsonFormatter, RecordReader, TextFormatter
from poller.model.printable import indented, lines, one_line
from poller.telemetry import logging as logs
from poller.terminal.console import open_console, say
from tests.bed.messaging import MessagingServer
from tests.bed.process import ROOT

FORBIDDEN = [
    *(code for code in range(0x20) if chr(code) not in "\n\t"),
    *range(0x7F, 0xA0),
    *(0x61C, 0x200E, 0x200F, 0x2028, 0x2029),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
]
"""Characters that control a terminal, break or reorder a line; lone surrogates cannot be encoded at all."""
BAD = re.compile("[" + "".join(map(re.escape, map(chr, FORBIDDEN))) + "\ud800-\udfff]")
FORGED = "2026-01-01T00:00:00.000Z ERROR   poller: forged"
HOSTILE = f"a\x1b[2J\x9b31m\x7f\u202eb\u2066\u2028\u200f\u061c\rc\n{FORGED}\n"
ARGUMENT = HOSTILE.replace("\n", " ")
"""The same for a single line, which must not contain a line feed."""


def clean(text: str) -> None:
    assert not (match := BAD.search(text)), repr(text[max(0, match.start() - 40) : match.end() + 40])
    assert not any(line.startswith("2026-01-01T") for line in text.split("\n"))


# --- the function itself


@given(st.text(st.characters()))
def test_a_formatted_line_has_no_line_break_and_preserves_the_text(text: str) -> None:
    formatted = one_line(text)
    assert not BAD.search(formatted)
    assert not set("\n\t") & set(formatted)
    assert json.loads(json.dumps(formatted).replace(r"\\", "\\")) is not None if "\\" not in text else True
    assert lines(formatted) == formatted


@pytest.mark.parametrize("code", [*FORBIDDEN, 0xD800, 0xDFFF, 0x200B, 0xFEFF])
def test_each_control_character_is_escaped_in_every_format(code: int) -> None:
    text = f"a{chr(code)}b"
    assert one_line(text) == lines(text)
    assert json.loads(f'"{lines(text)}"') == text
    assert yaml.safe_load(to_text([text], width=80)) == [text] or 0xD800 <= code <= 0xDFFF


def test_ordinary_texts_are_unchanged() -> None:
    text = 'Grüße, 東京\u3000"\u200d👨\u200d👩" \\n [red]x[/]'
    assert one_line(text) == lines(text) == text


@given(st.text(st.characters()))
def test_lines_keep_line_feeds_and_tabs_and_json_keeps_its_meaning(text: str) -> None:
    assert lines(text).count("\n") == text.count("\n")
    value = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert json.loads(lines(json.dumps(value, ensure_ascii=False, indent=2))) == value
    assert indented(text).count("\n    ") == text.count("\n") + 1


# --- logs


@pytest.fixture
def _root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("reader", [logs.READER, event_logs.READER], ids=["daemon", "events"])
def test_a_record_starts_a_single_line_with_any_content(reader: RecordReader, form: str) -> None:
    formatter = JsonFormatter(reader) if form == "json" else TextFormatter(reader)
    try:
        int(HOSTILE + "\u202e")
    except ValueError:
        record = logging.LogRecord(HOSTILE, 40, "f", 1, "said %s", (HOSTILE,), sys.exc_info())
    record.levelname = record.stack_info = HOSTILE
    record.__dict__.update({"hint": HOSTILE, HOSTILE: "x"})
    text = formatter.format(record)
    clean(text)
    first, *rest = text.split("\n")
    if form == "json":
        assert not rest
        assert HOSTILE.strip("\n") in json.loads(first)["message"]
    else:
        assert rest
        assert all(line.startswith("    ") for line in rest)


# --- everything that prints


def run(*arguments: str | bytes, **keywords: Any) -> str:
    """Run a command, check its two streams for control characters, and return them."""
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "POLLER_HEALTH_FILE": "/none",
        **keywords.pop("env", {}),
    }
    done = subprocess.run(
        [sys.executable, "-m", "poller", *arguments],
        capture_output=True,
        env=environ,
        timeout=120,
        **keywords,
    )
    text = f"{done.stdout.decode()}{done.stderr.decode()}"
    clean(text)
    assert "Traceback" not in text, text
    return text


def test_every_stream_escapes_any_output() -> None:
    code = """
import sys, logging, typer
from poller.terminal.exit import run_to_end
text = "".join(map(chr, [*range(0x20), *range(0x7f, 0xa0), 0x61c, 0x200e, 0x202e, 0x2028, 0xd800]))
def act():
    from rich.table import Table
    from poller.terminal.console import open_console, say
    print(text); typer.echo(text, err=True); sys.stdout.writelines([text]); sys.stderr.write(text)
    table = Table(text); table.add_row(text)
    for stderr in (True, False):
        console = open_console(stderr=stderr)
        console.print(text, table); say(console, text, "red")
    raise ValueError(text)
run_to_end(act)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT)
    for stream in (done.stdout, done.stderr):
        assert not BAD.search(stream.decode())
        assert rb"\u009f" in stream
    assert b"ValueError" in done.stderr


def test_the_pollers_own_colours_reach_a_terminal() -> None:
    output = io.StringIO()
    console = type(open_console())(file=output, force_terminal=True, color_system="standard", highlight=False)
    say(console, HOSTILE, "red")
    assert output.getvalue().startswith("\x1b[31ma\\u001b[2J")
    assert output.getvalue().count("\n") == 1


@pytest.mark.slow
def test_every_console_is_created_by_open_console() -> None:
    for path in (ROOT / "poller").rglob("*.py"):
        if path.name == "console.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                assert name != "Console", f"{path}:{node.lineno}: open_console() escapes what it prints"


QUERY = {
    "name": "users",
    "sql": f"SELECT 1 AS n /* {ARGUMENT} */",
    "metrics": [
        {
            "name": "users",
            "description": f"Users {ARGUMENT}",
            "unit": "{user}",
            "value_column": "n",
            "attributes": {"kind": f"k{ARGUMENT}"},
            "alert": [{"above": 5, "summary": f"many {ARGUMENT}"}],
        }
    ],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a hostile name that contains a valid query file with a hostile name."""
    directory = tmp_path / HOSTILE
    directory.mkdir()
    (directory / f"good{HOSTILE}.yaml").write_text(yaml.safe_dump({"queries": [QUERY]}))
    return directory


MISTAKES = {
    "key": {"queries": [{**QUERY, HOSTILE: 1}]},
    "sql": {"queries": [{**QUERY, "sql": f'SELECT 1 AS n "{HOSTILE}" "{HOSTILE}"'}]},
}


@pytest.mark.parametrize("form", ["text", "json", "github", "sarif"])
@pytest.mark.parametrize("mistake", [None, *MISTAKES])
def test_check_with_hostile_file_names_and_texts(folder: Path, form: str, mistake: str | None) -> None:
    if mistake:
        (folder / f"bad{HOSTILE}.yaml").write_text(yaml.safe_dump(MISTAKES[mistake]))
    printed = run("check", "--format", form, str(folder))
    assert (r"a\u001b[2J" in printed or r"a\x1b[2J" in printed) is bool(mistake)
    if form in ("json", "sarif"):
        json.loads(printed)


@pytest.mark.parametrize(
    "command",
    [
        ["alerts", "--runbook", ARGUMENT],
        ["catalog"],
        ["catalog", "--format", "json"],
        ["catalog", "--format", "weaver"],
        ["dashboard"],
        ["settings"],
        ["settings", "--format", "json"],
        ["schema"],
        ["poll"],
        ["watch"],
        ["health", "--format", "json"],
        ["health"],
        ["health", f"--{ARGUMENT}"],
        ["conform", ARGUMENT],
        ["conform", "--for", ARGUMENT],
        [ARGUMENT],
        ["check", ARGUMENT],
        ["check", f"--{ARGUMENT}"],
        ["import", "--from", "pgwatch", ARGUMENT],
        ["try", f"SELECT FROM {ARGUMENT}"],
        ["new", "--table", ARGUMENT],
        ["doctor"],
        ["doctor", "--format", "json"],
        ["run"],
    ],
    ids=lambda command: " ".join(command[:3]).encode("ascii", "replace").decode(),
)
def test_commands_without_a_server_with_hostile_names(folder: Path, command: list[str]) -> None:
    good = next(folder.iterdir())
    heartbeat = {
        "boottime": 1e18,
        "pid": os.getpid(),
        "stuck": HOSTILE,
        "export": HOSTILE,
        "server": HOSTILE,
        "queries": {HOSTILE: HOSTILE},
    }
    (folder / "beat").write_text(json.dumps(heartbeat))
    env = {
        "POLLER_QUERIES": str(good) if command[0] != "settings" else HOSTILE,
        "POLLER_DATABASE_URL": f"host={HOSTILE.split(maxsplit=1)[0]} dbname='{ARGUMENT}' connect_timeout=1",
        "POLLER_SERVICE_NAME": ARGUMENT,
        "POLLER_HEALTH_FILE": str(folder / "beat"),
        "POLLER_UNKNOWN" + ARGUMENT: HOSTILE,
    }
    printed = run(*command, env=env, stdin=subprocess.DEVNULL)
    assert printed


def test_a_hostile_heartbeat(tmp_path: Path) -> None:
    boottime = float(Path("/proc/uptime").read_text().split()[0])
    reading = {"metric": HOSTILE, "unit": HOSTILE, "attributes": HOSTILE, "value": 1.0}
    query_status = {
        "query": HOSTILE,
        "state": HOSTILE,
        "detail": HOSTILE,
        "last_success": 0.0,
        "next_run": 0.0,
        "stale": False,
        "series": 2,
        "readings": [reading, reading],
    }
    beat = {
        "boottime": boottime,
        "pid": os.getpid(),
        "server": HOSTILE,
        "glances": [query_status],
        "export": HOSTILE,
    }
    (tmp_path / "beat").write_text(json.dumps(beat))
    env = {"POLLER_HEALTH_FILE": str(tmp_path / "beat")}
    assert r"a\u001b[2J\u009b31m" in run("watch", env=env)
    assert r"a\u001b[2J\u009b31m" in run("health", env=env)


METRICS = ExportMetricsServiceRequest()
TRACES = ExportTraceServiceRequest()
LOGS = ExportLogsServiceRequest()


def _fill() -> None:
    scope = METRICS.resource_metrics.add().scope_metrics.add()
    for name in (HOSTILE, "messages_sent_total"):
        metric = scope.metrics.add(name=name, unit=HOSTILE)
        metric.sum.data_points.add(as_int=1).attributes.add(key=HOSTILE).value.string_value = HOSTILE
        metric.sum.data_points.add(as_int=1).attributes.add(key="status").value.string_value = HOSTILE
    span = TRACES.resource_spans.add().scope_spans.add().spans.add(name=HOSTILE)
    span.attributes.add(key=f"{HOSTILE}.email").value.string_value = "ada@example.org"
    scoped = LOGS.resource_logs.add().scope_logs.add()
    scoped.scope.name = HOSTILE
    scoped.log_records.add().body.string_value = f"ada@example.org {HOSTILE}"


_fill()


@pytest.mark.parametrize("form", ["text", "json"])
def test_conform_with_hostile_requests(tmp_path: Path, form: str) -> None:
    requests = [MessageToJson(request, indent=None) for request in (METRICS, TRACES, LOGS)]
    (tmp_path / "sent").write_text("\n".join(requests))
    printed = run("conform", "--format", form, str(tmp_path / "sent"))
    assert r"a\u001b[2J\u009b31m" in printed


FOREIGN: dict[str, str] = {
    "pgwatch": yaml.safe_dump(
        {"metrics": {f"m{ARGUMENT}": {"sqls": {11: f"select 1 as n /* {ARGUMENT} */"}}}}
    ),
    "postgres_exporter": yaml.safe_dump(
        {
            f"q{ARGUMENT}": {
                "query": f"SELECT 1 AS n /* {ARGUMENT} */",
                "metrics": [{"n": {"usage": "GAUGE", "description": ARGUMENT}}],
            }
        }
    ),
}


@pytest.mark.parametrize("tool", FOREIGN)
def test_import_of_hostile_queries(tmp_path: Path, tool: str) -> None:
    file = tmp_path / f"q{HOSTILE}.yaml"
    file.write_text(FOREIGN[tool])
    printed = run("import", "--from", tool, str(file))
    assert "imported from" in printed
    run("import", "--from", tool, str(file), "--write", str(tmp_path / "new.yaml"))
    written = (tmp_path / "new.yaml").read_text()
    assert not BAD.search(written)
    (query,) = yaml.safe_load(written)["queries"]
    assert query["sql"].strip().lower() == f"select 1 as n /* {ARGUMENT} */".lower()


@pytest.mark.timeout(600)  # eleven commands in sequence
def test_hostile_texts_of_a_server(server: MessagingServer, tmp_path: Path) -> None:
    quoted = HOSTILE.replace("'", "''")
    queries = tmp_path / "q.yaml"
    text = f"SELECT '{quoted}' AS who, 1 AS n /* {ARGUMENT} */"
    metric = {
        "name": "things",
        "description": "Things.",
        "unit": "{thing}",
        "value_column": "n",
        "attribute_columns": ["who"],
    }
    good = {"name": "good", "sql": text, "metrics": [metric]}
    bad = {
        "name": "bad",
        "sql": f"SELECT '{quoted}'::int AS n",
        "metrics": [{**metric, "name": "no", "attribute_columns": []}],
    }
    twice = {"name": "twice", "sql": f"{text} UNION ALL {text}", "metrics": [{**metric, "name": "two"}]}
    queries.write_text(yaml.safe_dump({"queries": [good, bad, twice]}))
    env = {"POLLER_DATABASE_URL": server.standby_dsn, "POLLER_QUERIES": str(queries)}
    for form in ("table", "json", "prometheus", "otlp-json"):
        printed = run("poll", "-v", "--format", form, env=env)
        assert r"a\u001b[2J" in printed or r"a\\u001b[2J" in printed
    for form in ("yaml", "json"):
        run("try", text, "--format", form, env=env)
    printed = run("try", f"SELECT '{quoted}'::int", env=env)
    assert r"a\u001b[2J" in printed
    for command in (["doctor"], ["check", "--database"], ["check", "--database", "--format", "github"]):
        run(*command, env=env)


def test_hostile_tables_and_columns_of_a_server(server: MessagingServer) -> None:
    table = "t" + HOSTILE[:30]
    server.execute(f'CREATE TABLE "{table}" ("{HOSTILE[:30]}" text)')
    server.replayed()
    env = {"POLLER_DATABASE_URL": server.standby_dsn}
    for arguments in ([], ["--table", table], ["--table", table, "--aggregate", "count"]):
        run("new", *arguments, env=env, stdin=subprocess.DEVNULL)
    printed = run("new", "--table", table, "--aggregate", f"count-by={HOSTILE[:30]}", env=env)
    (query,) = yaml.safe_load(printed)["queries"]
    assert query["sql"].startswith(f'SELECT "{HOSTILE[:30]}"')
