"""Shell completion of commands, options, query names and values of settings, without slow imports."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from poller.cli.completion import folders, values
from tests.bed.process import ROOT

COMPLETED = {
    "poller po": ["poll"],
    "poller poll --query ": ["attachments", "attachments_bytes", "pending_messages", "users"],
    "poller poll --queries mine --query o": ["one", "other"],
    "poller poll --log-level ": ["debug", "info", "warning", "error"],
    "poller check mi": [],
    "poller new --aggregate o": ["oldest-age"],
    "poller nothing --x": [],
}
"""Typed words, and the words that are offered. If there are none, bash offers files."""
QUICK = (
    "run", "poll", "try", "new", "check", "schema", "test", "import", "grants", "doctor", "catalog",
    "conform", "health", "dashboard", "alerts", "watch", "demo", "settings",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with an invalid query file, and `poller` on the path."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "poller"
    program.write_text(f"#!{sys.executable}\nfrom poller.cli.main import main\nmain()\n")
    program.chmod(0o755)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.yaml").write_text("queries: [{name: one}, {name: other, sql: 7}, {name: 5}, 6]")
    (tmp_path / "mine" / "a.test.yaml").write_text("queries: [{name: once}]")
    (tmp_path / "mine" / "b.yaml").write_text("queries: [")
    (tmp_path / "mine" / "c.yaml").write_text('queries: [{name: "on\\nerous"}, {name: "one\\e[2J"}]')
    return tmp_path


def test_bash_completion_offers_matching_words(folder: Path) -> None:
    """A bash process runs the script that `poller --show-completion` prints."""
    bash = shutil.which("bash")
    assert bash
    script = ['eval "$(_POLLER_COMPLETE=source_bash poller)"', "complete -p poller"]
    for typed in COMPLETED:
        quoted = " ".join(f"'{word}'" for word in typed.split(" "))
        script += [
            f"COMP_WORDS=({quoted}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMPREPLY=()",
            "_poller_completion poller",
            'echo "> ${COMPREPLY[*]}"',
        ]
    environ = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [bash, "--norc", "-c", "\n".join(script)], cwd=folder, env=environ, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
    how, *offered = done.stdout.splitlines()
    assert how == "complete -o default -F _poller_completion poller"
    assert dict(zip(COMPLETED, [line[2:].split() for line in offered], strict=True)) == COMPLETED


def test_completion_imports_neither_the_sdk_nor_the_driver() -> None:
    code = (
        "import sys, typer.main\n"
        "from poller.cli.app import app\n"
        "group = typer.main.get_command(app)\n"
        "parent = group.make_context('poller', [], resilient_parsing=True)\n"
        f"for name in {QUICK!r}:\n"
        "    made = group.commands[name].make_context(name, [], parent=parent, resilient_parsing=True)\n"
        "    assert made.command.shell_complete(made, '--'), name\n"
        "    heavy = {'psycopg', 'opentelemetry.sdk', 'grpc', 'apscheduler', 'rich'} & set(sys.modules)\n"
        "    assert not heavy, (name, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_completion_of_health_offers_its_options() -> None:
    """`health` declares its options a second time, because a probe does not load the command line."""
    environ = {**os.environ, "COMP_WORDS": "poller health --", "COMP_CWORD": "2"}
    code = "import sys; sys.argv = ['poller']; from poller.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environ, "_POLLER_COMPLETE": "complete_bash"}, capture_output=True, text=True,
    )  # fmt: skip
    usage = subprocess.run([sys.executable, "-m", "poller", "health", "-h"], capture_output=True, text=True)
    declared = set(re.findall(r"--[a-z-]+", usage.stdout))

    assert set(done.stdout.split()) == declared | {"--help"} == declared


def test_only_matching_words_are_offered() -> None:
    assert values("log_format", ("text", "json"))("j") == ["json"]
    assert values("interval", ())("5") == []
    assert values("queries", ())("ext") == folders("ext") == ["extended"]
    assert folders("") == [], "the shell offers files"
