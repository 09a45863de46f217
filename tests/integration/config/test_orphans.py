"""The daemon as a process of the system: it reaps orphans and reports too few open files."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.config.orphans import Orphans
from tests.bed.process import ROOT, Process, eventually

Start = Callable[..., Process]

_AS_REAPER = """
import ctypes, os, sys
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-m", "poller", "run"])
"""
LEAVES_AN_ORPHAN = "sh -c 'sleep 0.2 >/dev/null 2>&1 & echo secret'"


def children(pid: int) -> list[str]:
    """Return the states of the children of a process: `Z` is a child that has ended and is not reaped."""
    states = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == pid:
            states.append(state)
    return states


def test_the_daemon_reaps_adopted_orphans(start_process: Start, tmp_path: Path) -> None:
    """Process 1 of a container adopts orphans."""
    daemon = start_process(
        [sys.executable, "-c", _AS_REAPER],
        env={
            "POLLER_DATABASE_URL": "postgresql://poller@127.0.0.1:9/none",
            "POLLER_PASSWORD_COMMAND": LEAVES_AN_ORPHAN,
            "POLLER_STATE_DIR": str(tmp_path),
        },
    )
    assert eventually(lambda: "Z" in children(daemon.pid)), daemon
    assert eventually(lambda: not children(daemon.pid)), daemon
    assert daemon.running


@pytest.mark.skipif(os.getuid() != 0, reason="only root can create a process namespace")
@pytest.mark.parametrize("moment", ["early", "later"])
def test_a_daemon_that_is_process_1_reaps_orphans_and_ends_in_order(
    start_process: Start, tmp_path: Path, moment: str
) -> None:
    """The kernel has no default action for signals to process 1, so SIGTERM needs a handler."""
    ready = tmp_path / "ready"
    ready.mkdir()
    # `poller.config.loader_process` is imported after the handlers are set, before anything is read.
    early = f"""
import sys
class AtImport:
    def find_spec(self, name, *_):
        if name == "poller.config.loader_process":
            open({str(ready / "begun")!r}, "w").close()
sys.meta_path.insert(0, AtImport())
"""
    command = f"{early}\nsys.argv[1:] = ['run']\nfrom poller.cli.main import main\nmain()"
    unshare = start_process(
        ["unshare", "-p", "-f", "--mount-proc", "--kill-child", sys.executable, "-c", command],
        env={
            "POLLER_DATABASE_URL": "postgresql://poller@127.0.0.1:9/none",
            "POLLER_PASSWORD_COMMAND": LEAVES_AN_ORPHAN,
            "POLLER_STATE_DIR": str(tmp_path / "state"),
        },
    )
    assert eventually((ready / "begun").exists, 120), unshare
    (daemon,) = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
    if moment == "later":
        unshare.wait_for_line("polling .* queries", 120)
        assert eventually(lambda: "Z" in children(int(daemon)), 60), unshare
        assert eventually(lambda: not children(int(daemon)), 60), unshare
    os.kill(int(daemon), signal.SIGTERM)
    assert unshare.wait(60) == 0, unshare
    assert ("stopped" in unshare.stderr) == (moment == "later")


def test_reaping_does_not_take_the_exit_status_of_an_own_child() -> None:
    orphans = Orphans()
    with orphans.own_child():
        child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"], stdout=subprocess.PIPE)
        with child:
            assert child.stdout is not None
            child.stdout.read()  # ends with the child
            orphans.reap()
        assert child.returncode == 7


@pytest.mark.parametrize("limit", [8, 12, 16, 63])
@pytest.mark.parametrize("command", ["run", "poll", "check"])
def test_too_few_open_files_are_a_message_and_an_exit_code(command: str, limit: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "poller", command],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr == f"the limit of {limit} open files is too low; raise it to 256 or more (ulimit -n)\n"


def test_a_probe_needs_no_more_than_a_few_open_files(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "poller", "health", "--file", str(tmp_path / "none")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8)),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("not alive: no heartbeat")
