"""A child process reads the configuration: it leaves nothing behind, and none of its output is lost."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.config.load_settings import load
from poller.config.loader_process import LoaderError, LoaderProcess, answer
from poller.config.orphans import ORPHANS
from poller.config.settings import Settings
from poller.model.catalog import Configuration
from poller.model.diagnostics import Diagnostic
from poller.model.errors import ConfigError
from poller.receiver.receiver import Receiver
from tests.bed.process import ROOT, Process, eventually, gone
from tests.bed.queries import write_queries

READ_ONLY_BY_THE_CHILD = (
    "annotated_types", "dotenv", "pgparse", "pydantic", "pydantic_core", "pydantic_settings", "rich", "typer",
    "yaml",
    "poller.cli.app", "poller.cli.options", "poller.cli.run", "poller.config.environment",
    "poller.cli.loader_child", "poller.config.load_settings",
    "poller.config.queries.load", "poller.config.queries.schema", "poller.config.queries.sql_check",
)  # fmt: skip
VERSION = importlib.metadata.version("obscura-poller")
NO_DATABASE = "postgresql://127.0.0.1:1/none"
USR1 = """
import signal, sys
signal.signal(signal.SIGUSR1, lambda *_: {act})
"""
AT_IMPORT = """
import os, sys
class AtImport:
    def find_spec(self, name, *_):
        if name == {name!r}:
            {act}
sys.meta_path.insert(0, AtImport())
"""
"""Python code that acts before a module is imported."""
HANGS = """
import poller.config.file_watcher
watcher = poller.config.file_watcher
watcher.fingerprint = lambda _: (print("child", os.getpid(), flush=True), time.sleep(3600))
"""
Start = Callable[..., Process]
InChild = Callable[[str], Path]


@pytest.fixture
def in_child(tmp_path: Path) -> InChild:
    """Make every child run some lines of Python first; return the folder for PYTHONPATH."""
    folder = tmp_path / "in-child"
    folder.mkdir()

    def write(lines: str) -> Path:
        indented = "".join(f"    {line}\n" for line in lines.splitlines())
        (folder / "sitecustomize.py").write_text(
            f"import os, signal, sys, time\nif 'poller.cli.loader_child' in sys.orig_argv:\n{indented}"
        )
        return folder

    return write


@pytest.fixture
def daemon(start_process: Start, tmp_path: Path, in_child: InChild) -> Start:
    """Start `poller run` without a database, after some lines of Python in it and in its children."""
    queries = write_queries(tmp_path, ("a", "SELECT 1 AS n"))

    def start(before: str = "", child: str = "pass", **env: str) -> Process:
        code = (
            f"{before}\nimport sys\nsys.argv = ['poller', 'run']\nfrom poller.cli.main import main\nmain()\n"
        )
        environ = {
            "POLLER_DATABASE_URL": NO_DATABASE,
            "POLLER_QUERIES": str(queries),
            "PYTHONPATH": f"{in_child(child)}:{ROOT}",
            **env,
        }
        return start_process([sys.executable, "-c", code], env=environ)

    return start


def test_the_daemon_never_imports_the_parser_even_after_a_reload(
    daemon: Start, receiver: Receiver, tmp_path: Path
) -> None:
    act = "print('loaded:', *sys.modules, flush=True)"
    process = daemon(USR1.format(act=act), POLLER_OTLP_ENDPOINT=receiver.grpc_endpoint)
    receiver.wait_for(lambda points: any(point.metric == "poller.polls" for point in points))
    write_queries(tmp_path, ("a", "SELECT 2 AS n"))
    process.send(signal.SIGHUP)
    process.wait_for_line("query files read again: 0 added, 0 removed, 1 changed")
    write_queries(tmp_path, ("a", "SELEC oops"))
    process.send(signal.SIGHUP)
    process.wait_for_line("query files rejected")
    process.send(signal.SIGUSR1)
    loaded = set(process.wait_for_line(r"loaded: (.*)")[1].split())
    assert {"poller.daemon.run", "psycopg", "grpc"} <= loaded
    assert not loaded.intersection(READ_ONLY_BY_THE_CHILD)


def test_a_sighup_while_the_files_are_read_causes_another_reload(daemon: Start) -> None:
    hangs_up = """
import poller.config.file_watcher
def fingerprint(sources, fingerprint=poller.config.file_watcher.fingerprint):
    os.kill(os.getppid(), signal.SIGHUP)
    return fingerprint(sources)
poller.config.file_watcher.fingerprint = fingerprint
"""
    process = daemon(child=hangs_up, POLLER_WATCH="false")
    process.wait_for_line("query files read again: nothing changed")


def test_a_child_that_is_killed_is_reported(daemon: Start) -> None:
    process = daemon(child="os.kill(os.getpid(), 9)")
    assert process.wait() == 128 + 9
    assert process.stderr == "the process that reads the configuration was ended by signal 9\n"


def test_a_start_without_an_interpreter_for_the_child_is_reported(daemon: Start) -> None:
    process = daemon("import sys\nsys.executable = '/nowhere/python'")
    assert process.wait() == 1
    expected = "cannot start /nowhere/python to read the configuration: No such file or directory\n"
    assert process.stderr == expected


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_defect_in_the_child_ends_both_and_is_reported_once_without_a_secret(
    daemon: Start, form: str
) -> None:
    module = "poller.config.file_watcher"
    defect = f"import {module}\n{module}.fingerprint = lambda _: {{}}[os.environ['PGPASSWORD']]"
    process = daemon(child=defect, PGPASSWORD="correct-horse", POLLER_LOG_FORMAT=form)
    assert process.wait() == 1
    assert "KeyError" in process.stderr
    assert process.stderr.count("Traceback") == 1
    assert "correct-horse" not in process.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
@pytest.mark.parametrize("target", ["group", "daemon"])
def test_a_signal_while_the_child_reads_ends_both_without_output(
    daemon: Start, number: signal.Signals, code: int, target: str
) -> None:
    process = daemon(child=HANGS)
    child = int(process.wait_for_line(r"child (\d+)")[1])
    (os.killpg if target == "group" else os.kill)(process.pid, number)
    assert process.wait() == code
    assert process.stderr == ""
    assert eventually(lambda: gone(child))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
@pytest.mark.parametrize(
    "module",
    [
        "poller.terminal.stdio",
        "poller.config.loader_process",
        "poller.daemon.signals",
        "poller.daemon.scheduler",
    ],
)
def test_a_signal_at_any_import_of_the_start_ends_it_without_output(
    daemon: Start, module: str, number: signal.Signals, code: int
) -> None:
    process = daemon(AT_IMPORT.format(name=module, act=f"os.kill(os.getpid(), {int(number)})"))
    assert process.wait() == code
    assert process.stderr == ""


def test_a_child_that_hangs_ends_with_the_daemon(daemon: Start) -> None:
    process = daemon(child=HANGS)
    child = int(process.wait_for_line(r"child (\d+)")[1])
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert eventually(lambda: gone(child))


def test_a_child_whose_daemon_ended_before_the_request_ends_without_output(daemon: Start) -> None:
    waits = """
print("child", os.getpid(), flush=True)
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(0.01)
"""
    stops = "import pickle, time\npickle.dump = lambda *_: time.sleep(3600)"
    process = daemon(stops, waits)
    child = int(process.wait_for_line(r"child (\d+)")[1])
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert eventually(lambda: gone(child))
    assert process.stderr == ""


def test_a_reload_without_an_interpreter_is_refused_once_and_a_sighup_retries(
    daemon: Start, tmp_path: Path
) -> None:
    process = daemon(USR1.format(act="setattr(sys, 'executable', '/nowhere') or print('moved', flush=True)"))
    process.wait_for_line("polling 1 query")
    process.send(signal.SIGUSR1)
    process.wait_for_line("moved")
    write_queries(tmp_path, ("a", "SELECT 2 AS n"))
    refused = "POLLER_QUERIES: cannot be read again: cannot start /nowhere"
    process.wait_for_line(refused)
    process.send(signal.SIGHUP)
    assert eventually(lambda: process.stderr.count(refused) == 2)
    assert "Traceback" not in process.stderr


def test_a_defect_at_a_reload_is_in_the_log_and_the_daemon_polls_on(daemon: Start, tmp_path: Path) -> None:
    fails = f"""
import poller.config.load
if os.path.exists({str(tmp_path / "fail")!r}):
    poller.config.load.open_configuration = lambda _: 1 / 0
"""
    process = daemon(child=fails)
    process.wait_for_line("polling 1 query")
    (tmp_path / "fail").touch()
    process.send(signal.SIGHUP)
    process.wait_for_line("cannot be read again: the process that reads the configuration failed: .*Zero")
    (tmp_path / "fail").unlink()
    process.send(signal.SIGHUP)
    process.wait_for_line("query files read again: nothing changed")


@pytest.mark.parametrize(
    ("arguments", "code", "stream", "text"),
    [
        (["run", "--help"], 0, "stdout", "Usage: python -m poller run [OPTIONS]"),
        (["--", "run", "--help-settings"], 0, "stdout", "--grace-period"),
        (["run", "--intervall", "5m"], 2, "stderr", "No such option: --intervall"),
        (["run", "--interval", "often"], 2, "stderr", "--interval: 'often' is not a duration"),
        (["run", "--queries", "/nowhere"], 2, "stderr", "POLLER_QUERIES: '/nowhere' does not exist"),
    ],
)
def test_output_and_errors_of_the_child_are_those_of_the_process(
    poller_process: Start, arguments: list[str], code: int, stream: str, text: str
) -> None:
    process = poller_process(*arguments, env={"POLLER_DATABASE_URL": NO_DATABASE})
    assert process.wait() == code
    assert text in (process.stdout if stream == "stdout" else process.stderr)
    assert (process.stderr if stream == "stdout" else process.stdout) == ""


def test_the_installed_program_has_the_name_of_its_call_and_imports_nothing_from_the_working_directory(
    start_process: Start, tmp_path: Path
) -> None:
    (tmp_path / "yaml.py").write_text("raise RuntimeError('of the working directory')")
    (tmp_path / "queries").mkdir()
    queries = write_queries(tmp_path / "queries", ("a", "SELECT 1 AS n"))
    program = str(Path(sys.executable).with_name("poller"))
    usage = start_process([program, "run", "--help"], cwd=tmp_path)
    assert usage.wait() == 0
    assert usage.stdout.startswith("Usage: poller run [OPTIONS]")
    env = {"POLLER_DATABASE_URL": NO_DATABASE, "POLLER_QUERIES": queries}
    process = start_process([program, "run"], cwd=tmp_path, env=env)
    process.wait_for_line("polling 1 query")
    process.send(signal.SIGHUP)
    process.wait_for_line("query files read again: nothing changed")


@pytest.mark.parametrize(
    ("closed", "code", "message"),
    [("<&-", 0, ""), (">&-", 1, "the output cannot be written"), ("2>&-", 0, "")],
)
def test_a_closed_standard_stream_is_not_reused_as_a_pipe_to_the_child(
    closed: str, code: int, message: str
) -> None:
    done = subprocess.run(
        ["bash", "-c", f"exec {sys.executable} -m poller run --help {closed}"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == code, done
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_with_all_standard_streams_closed_the_daemon_runs_and_stops(
    start_process: Start, tmp_path: Path
) -> None:
    queries = write_queries(tmp_path, ("a", "SELECT 1 AS n"))
    process = start_process(
        ["bash", "-c", f"exec {sys.executable} -m poller run <&- >&- 2>&-"],
        env={"POLLER_DATABASE_URL": NO_DATABASE, "POLLER_QUERIES": queries},
    )
    assert eventually(process.health_file.exists)
    process.send(signal.SIGTERM)
    assert process.wait() == 0


def test_an_answer_without_a_process_that_waits_names_the_entry_point() -> None:
    with pytest.raises(RuntimeError, match=r"started by poller\.cli\.main"):
        answer(lambda: "anything")


# --- from a process with threads, as for a reload -----------------------------------------------------


@pytest.fixture
def child(in_child: InChild, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make the children of this process run some lines of Python first."""

    def write(lines: str) -> None:
        monkeypatch.syspath_prepend(str(in_child(lines)))

    return write


def settings(queries: str, **more: str) -> Settings:
    return load({}, {"database_url": NO_DATABASE, "queries": queries, "max_series": "10", **more})


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir() if path.exists()}


def test_request_and_answer_use_only_pipes(child: Callable[[str], None], tmp_path: Path) -> None:
    child(
        "import poller.config.load\n"
        "poller.config.load.open_configuration = lambda settings: (\n"
        "    settings.defaults, sys.orig_argv, dict(os.environ),\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, []),\n"
        "    [os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if int(n) > 2\n"
        "     and os.path.exists(f'/proc/self/fd/{n}')],\n"
        ")"
    )
    inherited = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        defaults, arguments, environ, masked, inherited_too = LoaderProcess.run(
            "load", settings("shipped", namespace="secret_1")
        )
    finally:
        os.close(inherited)
    assert defaults.namespace == "secret_1"
    assert "secret_1" not in f"{arguments}{environ}"
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} <= masked
    assert not {signal.SIGTERM, signal.SIGINT} & signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert len([target for target in inherited_too if target.startswith("pipe:")]) == 1, (
        "only the pipe for its answers"
    )
    assert str(tmp_path) not in inherited_too


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (
            "import poller.config.load as q\nq.open_configuration = lambda _: 1 / 0",
            "failed: .*ZeroDivisionError",
        ),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by signal 9"),
        ("os._exit(0)", "ended with 0 and sent no answer"),
        ("os._exit(3)", "ended with 3 and sent no answer"),
        ("open(int(sys.orig_argv[-1]), 'wb').write(b'\\x80'); os._exit(4)", "ended with 4"),
    ],
)
def test_without_an_answer_the_error_says_how_the_child_ended(
    child: Callable[[str], None], lines: str, text: str
) -> None:
    """The request is larger than a pipe, orphans are reaped meanwhile, and no descriptor stays open."""
    child(lines)
    before, done = descriptors(), threading.Event()

    def reap() -> None:
        while not done.wait(0.001):
            ORPHANS.reap()

    reaper = threading.Thread(target=reap)
    reaper.start()
    try:
        with pytest.raises(LoaderError, match=f"(?s){text}"):
            LoaderProcess.run("load", settings("shipped" + ":" * 1_000_000))
    finally:
        done.set()
        reaper.join()
    assert descriptors() <= before


def test_the_child_answers_with_a_catalogue_or_with_every_problem(tmp_path: Path) -> None:
    file = write_queries(tmp_path, ("a", "SELECT 1 AS n"))
    configuration = LoaderProcess.run("load", settings(file))
    assert isinstance(configuration, Configuration)
    assert [target.name for target in configuration.targets] == [""]
    assert [(query.name, query.sql, query.max_series) for query in configuration.catalog.queries] == [
        ("a", "SELECT 1 AS n", 10)
    ]

    write_queries(tmp_path, ("a", "DELETE FROM users"), ("b", "SELEC"))
    with pytest.raises(ConfigError) as raised:
        LoaderProcess.run("load", settings(file))
    assert all(isinstance(problem, Diagnostic) for problem in raised.value.problems)
    places = [problem.place.key for problem in raised.value.problems if problem.place]
    assert places == ["queries[0].sql", "queries[1].sql"]


@pytest.mark.parametrize("lines", ["pass", "os._exit(1)"], ids=["has the module", "has no such module"])
def test_another_installed_version_is_reported_and_its_answer_ignored(
    child: Callable[[str], None], tmp_path: Path, lines: str
) -> None:
    LoaderProcess.run("load", settings("shipped"))  # this process reads its own version
    child(lines)
    metadata = tmp_path / "in-child" / "obscura_poller-99.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.4\nName: obscura-poller\nVersion: 99\n")
    with pytest.raises(ConfigError) as raised:
        LoaderProcess.run("load", settings("/nowhere"))
    assert str(raised.value) == (
        f"POLLER_QUERIES: cannot be read: version 99 is installed, but {VERSION} is running; "
        "restart the poller"
    )


def test_without_an_interpreter_no_descriptor_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    before = descriptors()
    with pytest.raises(LoaderError, match=r"cannot start /nowhere/python .*: No such file or directory"):
        LoaderProcess.run("load", settings("shipped"))
    assert descriptors() <= before


def test_the_child_of_a_reload_ends_with_its_process(in_child: InChild) -> None:
    folder = in_child(
        "import poller.config.load as module\n"
        "module.open_configuration = lambda _: (print('child', os.getpid(), flush=True), time.sleep(3600))"
    )
    code = (
        "from poller.config.loader_process import LoaderProcess\n"
        "from poller.config.load_settings import load\n"
    )
    process = Process(
        [sys.executable, "-c", f"{code}LoaderProcess.run('load', load({{}}))"],
        env={"PYTHONPATH": f"{folder}:{ROOT}"},
    )
    try:
        child = int(process.wait_for_line(r"child (\d+)")[1])
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert eventually(lambda: gone(child))
        assert process.stderr == ""
    finally:
        process.close()


def test_output_of_a_library_is_not_part_of_the_answer(
    child: Callable[[str], None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    child("print('noise', flush=True)")
    file = write_queries(tmp_path, ("a", "SELECT 1 AS n"))
    assert [query.name for query in LoaderProcess.run("load", settings(file)).catalog.queries] == ["a"]
    assert capfd.readouterr().out == "noise\n"
