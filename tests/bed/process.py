"""The real command as a process: its lines, its signals, its exit code."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Literal

import pytest

from tests.bed.cleanup import closing_all

Stream = Literal["stdout", "stderr"]
ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A running command in its own session, whose output is read as it is written."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Start `command`; `env` is added to this process' environment, which the tests have cleared."""
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        # Otherwise pollers that run at the same time would share one heartbeat, and warn.
        self._folder = tempfile.TemporaryDirectory(prefix="poller-process-")
        self.health_file = Path(self._folder.name) / "heartbeat.json"
        self._changed = threading.Condition()
        self._lines: list[tuple[Stream, str]] = []
        self._process = subprocess.Popen(
            command,
            env={
                **{name: value for name, value in os.environ.items() if name != "GRPC_ENABLE_FORK_SUPPORT"},
                "PYTHONPATH": os.pathsep.join(paths),
                "PYTHONUNBUFFERED": "1",
                "POLLER_HEALTH_FILE": str(self.health_file),
                **(env or {}),
            },
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            self._read("stdout", self._process.stdout),
            self._read("stderr", self._process.stderr),
        ]

    @property
    def stdout(self) -> str:
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        return self._text("stderr")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_for_line(
        self, pattern: str, timeout: float = 60.0, *, stream: Stream | None = None, after: int = 0
    ) -> re.Match[str]:
        """Return the first match of `pattern` in an earlier or later line of one stream, or of both.

        `after` skips that many lines at the beginning: `after=process.line_count()` waits for new lines.
        Raises AssertionError with all output after the timeout or the end of the process.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            checked = after
            while True:
                ended = not any(reader.is_alive() for reader in self._readers)
                for source, line in self._lines[checked:]:
                    if stream in (None, source) and (match := re.search(pattern, line)):
                        return match
                checked = max(after, len(self._lines))
                if ended or time.monotonic() > deadline:
                    state = f"ended with {self._process.wait()}" if ended else f"ran {timeout:g} s"
                    raise AssertionError(f"the process {state} without a line like {pattern!r}\n{self}")
                self._changed.wait(min(0.1, max(0.0, deadline - time.monotonic())))

    def line_count(self) -> int:
        with self._changed:
            return len(self._lines)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = 60.0) -> int:
        """Return the exit code once all output is read; raises AssertionError after the timeout."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the process still runs after {timeout:g} s\n{self}") from None
        for reader in self._readers:
            reader.join(30)
        return code

    def close(self) -> None:
        """Kill the process and its session, and close its pipes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            reader.join()
        self._folder.cleanup()

    def __str__(self) -> str:
        return f"--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    def _text(self, stream: Stream) -> str:
        with self._changed:
            return "".join(line for source, line in self._lines if source == stream)

    def _read(self, stream: Stream, file: IO[str]) -> threading.Thread:
        def read() -> None:
            with file:
                for line in file:
                    with self._changed:
                        self._lines.append((stream, line))
                        self._changed.notify_all()

        reader = threading.Thread(target=read, name=f"read-{stream}", daemon=True)
        reader.start()
        return reader


def gone(pid: int) -> bool:
    """Return whether no such process runs; a zombie does not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until `condition` holds; return False if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def start_process() -> Iterator[Callable[..., Process]]:
    """Start commands with the arguments of `Process`; they are killed at the test's end."""
    with closing_all(Process, Process.close) as start:
        yield start


@pytest.fixture
def poller_process(start_process: Callable[..., Process]) -> Callable[..., Process]:
    """Start `poller ARGUMENTS...`, `env=` and `cwd=` as for `Process`; killed at the test's end."""

    def start(*arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Process:
        return start_process([sys.executable, "-m", "poller", *arguments], env=env, cwd=cwd)

    return start
