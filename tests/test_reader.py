"""Another process reads the files and settings: nothing of it stays, nothing it says is lost."""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.catalog import Catalog, Defaults
from poller.errors import Problem
from poller.reader import NothingFoundError, ask, tell
from poller.receiver.receiver import Receiver
from tests.bed.process import Process, eventually, gone
from tests.bed.queries import write_queries

READ_ONLY_BY_THE_CHILD = (
    "annotated_types", "dotenv", "pgparse", "pydantic", "pydantic_core", "pydantic_settings", "rich", "typer",
    "yaml",
    "poller.cli", "poller.commands.options", "poller.commands.run", "poller.declared", "poller.environment",
    "poller.loading", "poller.queryfiles", "poller.statement", "poller.variables",
)  # fmt: skip
VERSION = importlib.metadata.version("obscura-poller")
NO_DATABASE = "postgresql://127.0.0.1:1/none"
ANSWERS_USR1 = """
import signal, sys
signal.signal(signal.SIGUSR1, lambda *_: print("loaded:", *sys.modules, flush=True))
"""
Start = Callable[..., Process]


@pytest.fixture
def daemon(start_process: Callable[..., Process], tmp_path: Path) -> Start:
    """Starts `poller run`, without a database, after some lines of Python."""
    queries = write_queries(tmp_path, ("a", "SELECT 1 AS n"))

    def start(before: str, **env: str) -> Process:
        code = f"{before}\nimport sys\nsys.argv = ['poller', 'run']\nfrom poller.main import main\nmain()\n"
        given = {
            "POLLER_DATABASE_URL": "postgresql://127.0.0.1:1/none",
            "POLLER_QUERIES": str(queries),
            **env,
        }
        return start_process([sys.executable, "-c", code], env=given)

    return start


def test_the_daemon_never_imports_what_only_reading_takes_nor_after_a_reload(
    daemon: Start, receiver: Receiver, tmp_path: Path
) -> None:
    process = daemon(ANSWERS_USR1, POLLER_OTLP_ENDPOINT=receiver.grpc_endpoint)
    receiver.wait_for(lambda points: any(point.metric == "poller.polls" for point in points))
    write_queries(tmp_path, ("a", "SELECT 2 AS n"))
    process.send(signal.SIGHUP)
    process.wait_for_line("query files read again: 0 added, 0 removed, 1 changed")
    write_queries(tmp_path, ("a", "SELEC oops"))
    process.send(signal.SIGHUP)
    process.wait_for_line("query files not taken over")
    process.send(signal.SIGUSR1)
    loaded = set(process.wait_for_line(r"loaded: (.*)")[1].split())
    assert {"poller.commands.serve", "psycopg", "grpc"} <= loaded
    assert not loaded.intersection(READ_ONLY_BY_THE_CHILD)


def test_a_hangup_while_the_files_are_read_has_them_read_again(daemon: Start) -> None:
    asks = """
import os, signal, poller.reader
def tell(found, tell=poller.reader.tell):
    if isinstance(found, tuple):  # the files are about to be read
        os.kill(os.getppid(), signal.SIGHUP)
    tell(found)
poller.reader.tell = tell
"""
    process = daemon(asks, POLLER_WATCH="false")
    process.wait_for_line("query files read again: nothing changed")


def test_a_child_that_is_killed_is_told(daemon: Start) -> None:
    process = daemon("import os, poller.reader\npoller.reader.tell = lambda _: os.kill(os.getpid(), 9)")
    assert process.wait() == 128 + 9
    assert process.stderr == "the process that reads the settings was ended by signal 9\n"


def test_without_room_for_a_child_it_is_told(daemon: Start) -> None:
    process = daemon(
        "import errno, os\n"
        "def fork():\n"
        "    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))\n"
        "os.fork = fork"
    )
    assert process.wait() == 1
    told = "no process can be made that reads the settings: Resource temporarily unavailable\n"
    assert process.stderr == told


def test_a_defect_in_the_child_ends_both_and_is_told(daemon: Start) -> None:
    process = daemon("import poller.watcher\npoller.watcher.fingerprint = lambda _: 1 / 0")
    assert process.wait() == 1
    assert "ZeroDivisionError" in process.stderr
    assert process.stderr.count("Traceback") == 1


def test_an_interrupt_ends_both_without_a_word(daemon: Start) -> None:
    process = daemon(
        "import os, signal, time, poller.reader\n"
        # Whoever runs the tests in the background may have it ignored, and so has every child.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "poller.reader.tell = lambda _: (print('child', os.getpid(), flush=True), time.sleep(3600))"
    )
    child = int(process.wait_for_line(r"child (\d+)")[1])
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT
    assert process.stderr == ""
    assert eventually(lambda: gone(child))


def test_an_interrupt_before_there_is_a_child_ends_without_a_word(daemon: Start) -> None:
    process = daemon(
        "import importlib, os\n"
        "def load(name, load=importlib.import_module):\n"
        "    os.kill(os.getpid(), 2)\n"
        "    return load(name)\n"
        "importlib.import_module = load"
    )
    assert process.wait() == 128 + signal.SIGINT
    assert process.stderr == ""


def test_a_child_that_hangs_ends_with_who_waits_for_it(daemon: Start) -> None:
    process = daemon(
        "import os, time, poller.reader\n"
        "poller.reader.tell = lambda _: (print('child', os.getpid(), flush=True), time.sleep(3600))"
    )
    child = int(process.wait_for_line(r"child (\d+)")[1])
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert eventually(lambda: gone(child))


def test_where_nobody_can_read_the_files_again_they_are_refused_once_and_a_hangup_tries_again(
    daemon: Start, tmp_path: Path
) -> None:
    process = daemon("import sys\nsys.executable = '/nowhere/python'")
    process.wait_for_line("polling 1 query")
    write_queries(tmp_path, ("a", "SELECT 2 AS n"))
    told = "POLLER_QUERIES: cannot be read again: no process can be made"
    process.wait_for_line(told)
    process.send(signal.SIGHUP)
    assert eventually(lambda: process.stderr.count(told) == 2)
    assert "Traceback" not in process.stderr


def test_the_child_leaves_when_nobody_listens_any_more(daemon: Start) -> None:
    waits = """
import os, time, poller.reader
def tell(found, tell=poller.reader.tell):
    print("child", os.getpid(), flush=True)
    while os.getppid() == parent:
        time.sleep(0.01)
    tell(found)
poller.reader.tell = tell
parent = os.getpid()
"""
    process = daemon(waits)
    child = int(process.wait_for_line(r"child (\d+)")[1])
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert eventually(lambda: gone(child))
    assert process.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "stream", "told"),
    [
        (["run", "--help"], 0, "stdout", "--grace-period"),
        (["--", "run", "--help"], 0, "stdout", "--grace-period"),
        (["run", "--intervall", "5m"], 2, "stderr", "No such option: --intervall"),
        (["run", "--interval", "often"], 2, "stderr", "--interval: 'often' is not a duration"),
        (["run", "--queries", "/nowhere"], 2, "stderr", "POLLER_QUERIES: '/nowhere' does not exist"),
    ],
)
def test_what_the_child_prints_or_refuses_ends_the_process_as_one(
    poller_process: Callable[..., Process], arguments: list[str], code: int, stream: str, told: str
) -> None:
    process = poller_process(*arguments, env={"POLLER_DATABASE_URL": NO_DATABASE})
    assert process.wait() == code
    assert told in (process.stdout if stream == "stdout" else process.stderr)
    assert (process.stderr if stream == "stdout" else process.stdout) == ""


def test_a_daemon_that_nobody_split_says_how_it_is_started() -> None:
    with pytest.raises(RuntimeError, match=r"started by poller\.main"):
        tell("anything")


# --- a new interpreter --------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a module of some lines that is sent a question, and gives its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(lines: str) -> str:
        (tmp_path / "asked_module.py").write_text(f"import os, pickle, signal, sys\n{lines}\n")
        return "asked_module"

    return make


def test_a_question_goes_and_its_answer_comes_through_pipes_alone(module: Callable[[str], str]) -> None:
    name = module(
        "question = pickle.load(sys.stdin.buffer)\n"
        "told = (question, sys.argv, dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
        "pickle.dump(told, sys.stdout.buffer)"
    )
    question, arguments, environ, masked = ask(name, ["secret-1"])
    assert question == ["secret-1"]
    assert "secret-1" not in f"{arguments}{environ}"
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP} <= masked
    assert not {signal.SIGTERM, signal.SIGINT} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("1 / 0", "ended with 1: .*ZeroDivisionError"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended with -9"),
        ("sys.exit(0)", "ended without an answer"),
    ],
)
def test_without_an_answer_it_is_told_how_the_child_ended(
    module: Callable[[str], str], lines: str, told: str
) -> None:
    name = module(lines)
    with pytest.raises(NothingFoundError, match=f"(?s){told}"):
        ask(name, "x" * 1_000_000)


def test_the_reading_module_answers_with_a_catalogue_or_with_every_problem(tmp_path: Path) -> None:
    file = write_queries(tmp_path, ("a", "SELECT 1 AS n"))
    defaults = Defaults(60.0, 5.0, 10)
    catalog = ask("poller.commands.reading", VERSION, (file, defaults))
    assert isinstance(catalog, Catalog)
    assert [(query.name, query.sql, query.max_series) for query in catalog.queries] == [
        ("a", "SELECT 1 AS n", 10)
    ]

    write_queries(tmp_path, ("a", "DELETE FROM users"), ("b", "SELEC"))
    problems = ask("poller.commands.reading", VERSION, (file, defaults))
    assert all(isinstance(problem, Problem) for problem in problems)
    assert [problem.place.path for problem in problems] == ["queries[0].sql", "queries[1].sql"]


def test_a_newer_version_is_asked_nothing_as_its_answer_would_be_misread() -> None:
    (problem,) = ask("poller.commands.reading", "0.0.1")
    assert str(problem) == (
        f"POLLER_QUERIES: cannot be read again: version {VERSION} is installed by now, and 0.0.1 runs; "
        "restart the poller"
    )


def test_without_an_interpreter_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(NothingFoundError, match="by /nowhere/python: No such file or directory"):
        ask("poller.commands.reading")


def test_the_asked_one_ends_with_who_has_asked(module: Callable[[str], str], tmp_path: Path) -> None:
    name = module(
        "import time\nfrom poller.reader import end_with\nend_with(int(sys.argv[1]))\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}}\\n')\n"
        "time.sleep(3600)"
    )
    asks = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from poller.reader import ask; ask({name!r})"
    asking = subprocess.Popen([sys.executable, "-c", asks])
    try:
        written = tmp_path / "pid"
        assert eventually(lambda: written.exists() and written.read_text().endswith("\n"))
        child = int(written.read_text())
        assert not gone(child)
    finally:
        asking.kill()
        asking.wait()
    assert eventually(lambda: gone(child))


def test_what_a_library_prints_is_no_part_of_the_answer(tmp_path: Path) -> None:
    file = write_queries(tmp_path, ("a", "SELECT 1 AS n"))
    code = (
        "import poller.commands.reading as reading\n"
        "answer = reading.answer\n"
        "reading.answer = lambda *question: print('noise') or answer(*question)\n"
        "reading.main()"
    )
    questions = pickle.dumps(VERSION) + pickle.dumps((file, Defaults(60.0, 5.0, 10)))
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, str(reading)],
            input=questions, capture_output=True, pass_fds=[reading],
        )  # fmt: skip
    finally:
        os.close(reading)
        os.close(writing)
    assert done.returncode == 0, done.stderr
    assert [query.name for query in pickle.loads(done.stdout).queries] == ["a"]
    assert done.stderr == b"noise\n"
