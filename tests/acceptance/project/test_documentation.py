"""The documentation is correct: its commands, snippets, outputs, links and generated parts."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict

from poller.cli.app import COMMANDS
from poller.config.load_settings import load as load_settings
from poller.config.queries.schema.json_schema import schema
from poller.config.settings import SETTINGS
from poller.config.targets.json_schema import schema as targets_schema
from poller.config.targets.load import load_targets
from poller.daemon.health import judge
from poller.receiver.ports import free_ports
from poller.receiver.receiver import Receiver
from poller.tools.test.case import Case, Expectation
from tests.bed import documentation
from tests.bed.documentation import all_blocks, blocks, only, read, script, table_below
from tests.bed.messaging import MessagingServer
from tests.bed.process import ROOT, Process
from tests.bed.repository import files_of_git
from tests.bed.role import Role

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = documentation.pages()
_EXECUTED = ("run", "file", "check", "python", "server", "sql", "targetsfile", "targetscommands")
_LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def command(name: str, page: Path = README) -> str:
    (text,) = [block.text for block in blocks(page) if (block.kind, block.argument) == ("run", name)]
    return textwrap.dedent(text).strip()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh copy of the files that git tracks."""
    copy = tmp_path / "clone"
    for name in files_of_git():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    return copy


def test_the_readme_is_one_page() -> None:
    assert len(read(README).splitlines()) <= 250


def test_ci_runs_the_second_command_of_the_readme_unchanged() -> None:
    assert command("tests") in read(ROOT / ".ci" / "run").splitlines()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_and_snippet_of_the_poller_is_marked_for_execution(page: Path) -> None:
    """`sh`, `text` and YAML of other programs are not executed."""
    fences = re.findall(r"^ *```(bash|yaml|python|sql)\n(.*?)^ *```", read(page), re.MULTILINE | re.DOTALL)
    checked = [
        text
        for language, text in fences
        if language != "yaml" or re.search("^(queries|cases):", text, re.MULTILINE)
    ]
    executed = [block.text for block in blocks(page) if block.kind in _EXECUTED]

    assert [text for text in checked if text not in executed] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_and_anchor_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(read(page)):
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        assert file.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(file), link


def test_every_page_is_in_the_navigation_and_in_the_readme() -> None:
    navigation = re.findall(r"([\w/-]+\.md)$", read(ROOT / "mkdocs.yml"), re.MULTILINE)
    pages = {str(page.relative_to(DOCS)) for page in PAGES if page != README}

    assert sorted(navigation) == sorted(pages)
    assert {name.partition("docs/")[2] for name in _LINK.findall(read(README))} >= pages - {"index.md"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_generated_parts_are_up_to_date(page: Path) -> None:
    """`python -m tests.bed.documentation` writes them again."""
    assert documentation.with_generated_parts(read(page)) == read(page)


def test_the_table_of_settings_has_every_setting() -> None:
    assert all(f"`POLLER_{name.upper()}`" in read(DOCS / "reference/settings.md") for name in SETTINGS)


@pytest.mark.timeout(400)
def test_the_first_command_shows_changing_values(
    start_process: Callable[..., Process], clone: Path, tmp_path: Path
) -> None:
    """With an empty home, until Ctrl-C."""
    process = start_process(
        ["bash", "-c", f"exec bash -c {command('demo')!r}"],
        cwd=clone,
        env={"HOME": str(tmp_path), "PYTHONPATH": "", "POLLER_INSTANCE": "x"},
    )
    values: set[str] = set()
    after = 0
    while len(values) < 3:
        values.add(process.wait_for_line(r"received users_total = (\d+) \{user\}", 300, after=after).group(1))
        after = process.line_count()
    subprocess.run(["pkill", "-INT", "-s", str(process.pid), "-f", "poller demo"], check=True)
    process.wait_for_line("every process and file of the demo is gone")

    assert process.wait() in (0, 130)


@pytest.mark.parametrize("page", [README, DOCS / "install.md"], ids=name_of)
@pytest.mark.timeout(400)
def test_after_the_installation_poller_is_on_the_path(page: Path, clone: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-ec", f"{command('install', page)}\npoller --version"],
        cwd=clone, capture_output=True, text=True, check=False,
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"], **_pip_variables()},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("poller ")


def test_the_daemon_runs_with_the_variables_of_the_readme(
    server: MessagingServer, receiver: Receiver, start_process: Callable[..., Process], tmp_path: Path
) -> None:
    text = command("daemon")
    for example, real in (
        ("postgresql://poller@replica.example:5432/app", f"'{server.standby_dsn}'"),
        ("http://collector.example:4317", receiver.grpc_endpoint),
    ):
        assert example in text
        text = text.replace(example, real)
    for block in blocks(README):
        if block.kind == "file":
            (tmp_path / block.argument).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.argument).write_text(block.text, encoding="utf-8")
    process = start_process(["bash", "-c", script(f"{text}\nexec poller run")], cwd=tmp_path)
    receiver.wait_for(lambda points: "devices_by_name" in {point.metric for point in points})
    process.send(signal.SIGTERM)

    assert process.wait() == 0
    assert not receiver.points("users_total")


def _steps(page: Path, folder: Path) -> Iterator[tuple[str, str | None, Path]]:
    """Yield the shell commands of a page, the output that it shows, and the file for the real output."""
    for number, block in enumerate(blocks(page)):
        output = folder / f"output-{number}"
        if block.kind in ("file", "check"):
            folder_of = shlex.quote(str(Path(block.argument).parent))
            yield (
                f"mkdir -p {folder_of}\ncat > {block.argument} <<'END OF FILE'\n{block.text}END OF FILE",
                None,
                output,
            )
        elif block.kind == "run" and block.argument in ("shell", "dashboards", "alerts"):
            # The extras are installed in the environment of the tests.
            lines = [line for line in block.text.splitlines() if not line.startswith("pip install")]
            yield "\n".join(lines), None, output
        elif block.kind == "output":
            yield f"{{ {block.argument}; }} > {output} 2>&1 || true", block.text, output


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.kind in ("output", "file") for b in blocks(page))], ids=name_of
)
def test_the_commands_of_a_page_print_the_documented_output(
    page: Path,
    server: MessagingServer,
    receiver: Receiver,
    tmp_path: Path,
    start_process: Callable[..., Process],
) -> None:
    """Durations and costs depend on the machine and are not compared."""
    for block in blocks(page):
        if block.kind == "sql":
            server.execute(block.text)
            server.replayed()
    steps = list(_steps(page, tmp_path))
    commands = "\n".join(["set -e", *(step for step, _, _ in steps)])
    process = start_process(
        ["bash", "-c", script(commands)],
        cwd=tmp_path,
        env={
            "POLLER_DATABASE_URL": server.standby_dsn,
            "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
            "POLLER_QUERIES": "my-queries" if page == README else "shipped",
        },
    )

    assert process.wait(300) == 0, str(process)
    for step, documented, output in steps:
        if documented is not None:
            assert _comparable(read(output)) == _comparable(documented), step


def test_the_table_of_test_cases_has_every_key() -> None:
    documented = set(
        re.findall(r"`(\w+)`", read(DOCS / "how-to/test-queries.md").partition("## Keys of a case")[2])
    )

    assert set(Case.model_fields) | set(Expectation.model_fields) <= documented


def test_python_snippets_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["poller.events.fixtures"]\n', encoding="utf-8")
    snippets = all_blocks("python")
    for block in snippets:
        body = (
            block.text
            if "def test_" in block.text
            else f"def test_it():\n{textwrap.indent(block.text, '    ')}"
        )
        (tmp_path / f"test_{block.argument}.py").write_text(body, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout
    assert f"{len(snippets)} passed" in done.stdout


def test_the_instrumented_server_exports_the_documented_telemetry(
    server: MessagingServer, receiver: Receiver, tmp_path: Path, start_process: Callable[..., Process]
) -> None:
    process, url = start_documented_server(
        start_process,
        "messages.py",
        tmp_path,
        DATABASE_URL=server.primary_dsn,
        OBSCURA_OTLP_ENDPOINT=receiver.grpc_endpoint,
    )
    assert httpx.get(f"{url}/v1/users/u-1/messages", timeout=60).text == "11"
    assert httpx.get(f"{url}/manage/readyz", timeout=60).json() == {"status": "ok", "database": "ok"}
    process.send(signal.SIGTERM)
    process.wait()

    (root,) = receiver.spans("GET /v1/users/{user_id}/messages")
    (inner,) = receiver.spans("fetch_messages")
    assert root.attributes["user.id"] == "u-1"
    assert (inner.parent_span_id, inner.attributes["limit"]) == (root.span_id, 50)
    exported = {point.metric for point in receiver.points()}
    assert {"health_status", "db_pool_idle_connections", "http_request_duration_seconds"} <= exported


def test_poller_receive_prints_the_output_of_the_smallest_server(
    tmp_path: Path, start_process: Callable[..., Process], poller_process: Callable[..., Process]
) -> None:
    receiving = poller_process("receive", "--grpc-port", "0", "--http-port", "0")
    endpoint = receiving.wait_for_line(r"receiving: grpc (\S+),", stream="stderr").group(1)
    process, url = start_documented_server(start_process, "shop.py", tmp_path, OBSCURA_OTLP_ENDPOINT=endpoint)
    assert httpx.get(f"{url}/orders/7", timeout=60).json() == {"number": 7}
    process.send(signal.SIGTERM)
    process.wait()

    receiving.wait_for_line(r" span GET /orders/{number}{")
    receiving.wait_for_line(
        r" metric http_requests_total{method=GET, route=/orders/{number}, status=200} 1 {request}"
    )
    receiving.wait_for_line(r" log INFO .*GET /orders/7.*, trace \w{32}")


def start_documented_server(
    start_process: Callable[..., Process], name: str, folder: Path, **env: str
) -> tuple[Process, str]:
    """Start the server of a page with uvicorn; return the process and its URL."""
    (text,) = [block.text for block in all_blocks("server") if block.argument == name]
    (folder / name).write_text(text, encoding="utf-8")
    (port,) = free_ports(1)
    process = start_process(
        [sys.executable, "-m", "uvicorn", f"{name.removesuffix('.py')}:app", "--port", str(port)],
        cwd=folder,
        env={"OBSCURA_SERVER_SHUTDOWN_TIMEOUT_SECS": "120", **env},
    )
    process.wait_for_line("Uvicorn running on", 120)
    return process, f"http://127.0.0.1:{port}"


def test_doctor_accepts_the_role_of_the_documentation(
    server: MessagingServer, receiver: Receiver, role: Role, start_process: Callable[..., Process]
) -> None:
    text = command("role", DOCS / "operating.md")
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
    line, documented = only("doctor")
    process = start_process(
        ["bash", "-c", script(line)],
        env={"POLLER_DATABASE_URL": role.standby_dsn, "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint},
    )

    assert process.wait() == 0, str(process)
    assert _measured(process.stdout.replace(role.name, "poller")) == _measured(documented)


def test_the_lines_of_poller_health_are_as_documented() -> None:
    tick = {"interval": 300.0, "last_run": None}
    states = {"a": "ok", "b": "ok", "c": "ok", "d": "skipped(column)"}
    healthy = {"pid": 7, "boottime": 98.0, "process_namespace": "another", "ready": False}
    healthy |= {"instance": "eu-1"}
    healthy |= {"ticks": {"default/5m": tick}, "queries": states, "export": "ok", "query_files": "ok"}
    _, documented = only("health")

    assert documented.splitlines() == [
        judge(healthy, ready=False, now=100.0).why,
        judge({**healthy, "boottime": -5.0}, ready=False, now=100.0).why,
        judge(healthy, ready=True, now=100.0).why,
    ]


def test_each_guarantee_names_tests_that_exist() -> None:
    page = DOCS / "explanation/guarantees.md"
    table = read(page).partition("## What the poller can never do")[2].partition("\n### ")[0]
    rows = [row for row in table.splitlines() if row.startswith("| ") and "shown by" not in row]
    assert len(rows) > 10
    for row in rows:
        proofs = re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", row)
        assert proofs, row
        for name, file in proofs:
            assert f"def {name}(" in read(page.parent / file), name


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", read(page), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _pip_variables() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PIP_") or "proxy" in name.lower()
    }


def _libpq(dsn: str) -> dict[str, str]:
    """Return a connection string as variables of libpq."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}
    return {names[key]: str(value) for key, value in conninfo_to_dict(dsn).items() if key in names}


def _measured(text: str) -> str:
    """Return the text without values and line breaks that depend on the machine."""
    words = " ".join(text.split())
    words = re.sub(r"PostgreSQL [\d.]+ at \S+", "PostgreSQL N at HOST", words)
    words = re.sub(r"http://\S+", "URL", words)
    words = re.sub(r"<?[\d.]+ (ms|s)\b, cost \d+", "N ms, cost N", words)
    return re.sub(r"empty export in [\d.]+ m?s", "empty export in N ms", words)


def _comparable(text: str) -> list[str]:
    lines = [re.sub(r"\d+ ms", "N ms", line) for line in text.strip().splitlines()]
    return [" ".join(line.split()) for line in lines]


@pytest.mark.parametrize(
    ("page", "heading", "kind", "document"),
    [
        ("query-file", "## Keys of a query", "QueryDefinition", schema()),
        ("query-file", "## Keys of a metric", "MetricDefinition", schema()),
        ("targets", "## Keys of a target", "Target", targets_schema()),
        ("targets", "## All databases of a server", "Databases", targets_schema()),
    ],
)
def test_the_reference_lists_every_key_of_a_file(
    page: str, heading: str, kind: str, document: dict[str, Any]
) -> None:
    documented = [cells[0].strip("`") for cells in table_below(heading, DOCS / "reference" / f"{page}.md")]

    assert sorted(documented) == sorted(document["$defs"][kind]["properties"])


def test_the_targets_file_of_the_reference_is_valid(tmp_path: Path) -> None:
    _, text = only("targets")
    (tmp_path / "t.yaml").write_text(text, encoding="utf-8")

    assert [target.name for target in load_targets(tmp_path / "t.yaml", load_settings({}))] == [
        "eu-1",
        "tenants",
    ]


def test_the_reference_of_exit_codes_names_commands_that_exist() -> None:
    rows = table_below("What makes the result negative:", DOCS / "reference" / "exit-codes.md")

    assert {name for cells in rows for name in re.findall(r"`(\w+)`", cells[0])} <= set(COMMANDS)
