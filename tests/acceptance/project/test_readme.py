"""The README's commands, snippets and tables are what the program really does."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict

from poller.config.settings import SETTINGS
from poller.daemon.health import judge
from poller.receiver.ports import free_ports
from poller.receiver.receiver import Receiver
from poller.tools.test.case import Case, Expectation
from tests.bed.messaging import MessagingServer
from tests.bed.process import ROOT, Process
from tests.bed.role import Role

README = (ROOT / "README.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"<!-- (\w+): ?([^\n]*?) -->\n```\w+\n(.*?)```", re.DOTALL)


def blocks(kind: str) -> list[tuple[str, str]]:
    """(argument, text) of the blocks marked `<!-- kind: argument -->`."""
    return [(argument, text) for found, argument, text in _BLOCK.findall(README) if found == kind]


def command(name: str) -> str:
    (text,) = [text for argument, text in blocks("run") if argument == name]
    return text.strip()


def test_ci_runs_the_second_command_to_the_letter() -> None:
    assert command("tests") in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_command_and_snippet_is_marked_and_so_run() -> None:
    """No block of commands, YAML or Python stands in the README that no test looks at."""
    fences = re.findall(r"^```(?:bash|yaml|python)$", README, re.MULTILINE)
    kinds = ("run", "file", "check", "python", "server")
    looked_at = [text for kind, _, text in _BLOCK.findall(README) if kind in kinds]

    assert len(looked_at) == len(fences)


@pytest.mark.timeout(400)
def test_first_command_shows_moving_numbers(start_process: Callable[..., Process], tmp_path: Path) -> None:
    """In a fresh copy of what git tracks, with an empty home, until Ctrl-C."""
    copy = tmp_path / "clone"
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in tracked:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    process = start_process(
        ["bash", "-c", f"exec bash -c {command('demo')!r}"],
        cwd=copy,
        env={"HOME": str(tmp_path), "PYTHONPATH": "", "POLLER_INSTANCE": "x"},
    )
    seen: set[str] = set()
    after = 0
    while len(seen) < 3:
        seen.add(process.wait_for_line(r"received users_total = (\d+) \{user\}", 300, after=after).group(1))
        after = process.line_count()
    subprocess.run(["pkill", "-INT", "-s", str(process.pid), "-f", "poller demo"], check=True)
    process.wait_for_line("every process and file of the demo is gone")

    assert process.wait() in (0, 130)


@pytest.mark.postgres
def test_daemon_runs_as_the_readme_says(
    server: MessagingServer, receiver: Receiver, start_process: Callable[..., Process]
) -> None:
    text = command("daemon")
    for example, real in (
        ("postgresql://poller@replica.example:5432/app", f"'{server.standby_dsn}'"),
        ("http://collector.example:4317", receiver.grpc_endpoint),
    ):
        assert example in text
        text = text.replace(example, real)
    process = start_process(["bash", "-c", _on_path(text.replace("poller run", "exec poller run"))])
    receiver.wait_for(lambda points: {"users_total", "attachments_total_bytes"} <= {p.metric for p in points})
    process.send(signal.SIGTERM)

    assert process.wait() == 0


@pytest.mark.postgres
@pytest.mark.timeout(400)
def test_who_types_everything_from_the_top_gets_what_is_shown(
    server: MessagingServer, receiver: Receiver, tmp_path: Path, start_process: Callable[..., Process]
) -> None:
    """But for the durations, which are the machine's."""
    lines = ["set -e"]
    outputs: list[tuple[str, str, Path]] = []
    for kind, argument, text in _BLOCK.findall(README):
        if kind in ("file", "check"):
            lines += [
                f"mkdir -p $(dirname {argument})",
                f"cat > {argument} <<'END OF FILE'\n{text}END OF FILE",
            ]
        elif kind == "run" and argument in ("shell", "dashboards", "alerts"):
            # The extra is installed here already.
            lines += [line for line in text.splitlines() if not line.startswith("pip install")]
        elif kind == "output":
            got = tmp_path / f"output-{len(outputs)}"
            outputs.append((argument, text, got))
            lines.append(f"{argument} > {got} 2> {got}.err || true")
            lines.append(f"cat {got}.err >> {got}")
    process = start_process(
        ["bash", "-c", _on_path("\n".join(lines))],
        cwd=tmp_path,
        env={"POLLER_DATABASE_URL": server.standby_dsn, "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint},
    )

    assert process.wait(300) == 0, str(process)
    for command, shown, got in outputs:
        assert _even(got.read_text(encoding="utf-8")) == _even(shown), command
    assert receiver.points("users_total")
    assert "devices_by_name" in (tmp_path / "inventory.json").read_text(encoding="utf-8")
    assert "poller_query_state" in (tmp_path / "poller.json").read_text(encoding="utf-8")
    rules = (tmp_path / "rules.yaml").read_text(encoding="utf-8")
    assert rules.count("alert: OldestWaitingMessageSeconds") == 3
    assert "https://wiki.example/poller#pollergone" in rules


def test_every_key_of_a_case_is_told() -> None:
    table = README.partition("The keys of a case:")[2].partition("\n\nWhatever is not expected")[0]
    told = set(re.findall(r"`(\w+)`", table))

    assert set(Case.model_fields) | set(Expectation.model_fields) <= told


def test_python_snippets_run(tmp_path: Path) -> None:
    """Tests as tests, whatever else as it stands."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["poller.events.fixtures"]\n', encoding="utf-8")
    for name, text in blocks("python"):
        file = tmp_path / f"test_{name}.py"
        body = text if "def test_" in text else f"def test_it():\n{textwrap.indent(text, '    ')}"
        file.write_text(body, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert f"{len(blocks('python'))} passed" in done.stdout


@pytest.mark.postgres
def test_the_instrumented_server_tells_what_the_readme_says(
    server: MessagingServer, receiver: Receiver, tmp_path: Path, start_process: Callable[..., Process]
) -> None:
    ((name, text),) = blocks("server")
    (tmp_path / name).write_text(text, encoding="utf-8")
    (port,) = free_ports(1)
    process = start_process(
        [sys.executable, "-m", "uvicorn", f"{name.removesuffix('.py')}:app", "--port", str(port)],
        cwd=tmp_path,
        env={
            "DATABASE_URL": server.primary_dsn,
            "OBSCURA_OTLP_ENDPOINT": receiver.grpc_endpoint,
            "OBSCURA_SERVER_SHUTDOWN_TIMEOUT_SECS": "120",
        },
    )
    process.wait_for_line("Uvicorn running on", 120)
    url = f"http://127.0.0.1:{port}"
    assert httpx.get(f"{url}/v1/users/u-1/messages", timeout=60).text == "11"
    assert httpx.get(f"{url}/manage/readyz", timeout=60).json() == {"status": "ok", "database": "ok"}
    process.send(signal.SIGTERM)
    process.wait()

    (root,) = receiver.spans("GET /v1/users/{user_id}/messages")
    (inner,) = receiver.spans("fetch_messages")
    assert root.attributes["user.id"] == "u-1"
    assert (inner.parent_span_id, inner.attributes["limit"]) == (root.span_id, 50)
    told = {point.metric for point in receiver.points()}
    assert {"health_status", "db_pool_idle_connections", "http_request_duration_seconds"} <= told


def test_doctor_finds_nothing_wrong_with_the_role_that_the_readme_makes(
    server: MessagingServer, receiver: Receiver, role: Role, start_process: Callable[..., Process]
) -> None:
    text = command("role")
    for example, real in (
        ("psql", f"{role.psql} --no-psqlrc"),
        ("role=poller", f"role={role.name}"),
        ("database=app", f"database={server.name}"),
    ):
        assert example in text
        text = text.replace(example, real)
    subprocess.run(
        ["bash", "-c", text], check=True, cwd=ROOT, env={"PGHOST": "", **_libpq(server.primary_dsn)}
    )
    server.replayed()
    ((line, shown),) = blocks("doctor")
    process = start_process(
        ["bash", "-c", _on_path(line)],
        env={"POLLER_DATABASE_URL": role.standby_dsn, "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint},
    )

    assert process.wait() == 0, str(process)
    assert _measured(process.stdout.replace(role.name, "poller")) == _measured(shown)


def test_the_verdicts_shown_are_in_the_words_of_poller_health() -> None:
    tick = {"interval": 300.0, "last_run": None}
    states = {"a": "ok", "b": "ok", "c": "ok", "d": "skipped(column)"}
    well = {"pid": 7, "boottime": 98.0, "process_namespace": "another", "ready": False}
    well |= {"instance": "eu-1"}
    well |= {"ticks": {"default/5m": tick}, "queries": states, "export": "ok", "query_files": "ok"}
    ((_, shown),) = blocks("health")

    assert shown.splitlines() == [
        judge(well, ready=False, now=100.0).why,
        judge({**well, "boottime": 25.0}, ready=False, now=100.0).why,
        judge(well, ready=True, now=100.0).why,
    ]


def test_settings_table_is_generated_from_the_settings() -> None:
    """`python -m tests.bed.settings_table` writes it anew."""
    from tests.bed.settings_table import END, START, table

    shown = README[README.index(START) + len(START) : README.index(END)].strip()

    assert shown == table()
    assert all(f"POLLER_{name.upper()}" in shown for name in SETTINGS)


def test_links_into_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_the_tests_that_are_pointed_to_exist() -> None:
    """Each line of what it can never do has its proof."""
    table = README.partition("## What it can never do")[2].partition("\n\nThese guards")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ") and "shown by" not in row]
    assert len(rows) > 10
    for row in rows:
        proofs = re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", row)
        assert proofs, row
        for name, file in proofs:
            assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), name


def _libpq(dsn: str) -> dict[str, str]:
    """A connection string as libpq's variables."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
    return {names[key]: str(value) for key, value in conninfo_to_dict(dsn).items() if key in names}


def _measured(text: str) -> str:
    """Without what the machine decides, and where the lines break because of that."""
    words = " ".join(text.split())
    words = re.sub(r"PostgreSQL [\d.]+ at \S+", "PostgreSQL N at HOST", words)
    words = re.sub(r"http://\S+", "URL", words)
    words = re.sub(r"<?[\d.]+ (ms|s)\b, cost \d+", "N ms, cost N", words)
    return re.sub(r"empty export in [\d.]+ m?s", "empty export in N ms", words)


def _on_path(commands: str) -> str:
    """Run `poller` as the package under test, whatever is installed."""
    return f'poller() {{ {sys.executable} -m poller "$@"; }}\n{commands}'.replace(
        "exec poller", f"exec {sys.executable} -m poller"
    )


def _even(text: str) -> list[str]:
    lines = [re.sub(r"\d+ ms", "N ms", line) for line in text.strip().splitlines()]
    return [" ".join(line.split()) for line in lines]
