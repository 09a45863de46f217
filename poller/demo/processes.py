"""Child processes of the demo, which end when the demo ends, even after SIGKILL."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_PR_SET_PDEATHSIG = 1


class Child:
    """A started `python -m ...`, its output read line by line in a thread of its own.

    It has its own session, so that Ctrl-C reaches the demo alone, which then stops everything in order.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        env: Mapping[str, str],
        *,
        on_stdout: Callable[[str], None] = lambda _: None,
        on_stderr: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", module, *arguments],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - no threads yet
        )
        self.pid = self._process.pid
        self._readers = [
            threading.Thread(target=_read, args=(stream, tell), daemon=True)
            for stream, tell in ((self._process.stdout, on_stdout), (self._process.stderr, on_stderr))
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def ended(self) -> int | None:
        """The exit code of a child that ended, else None."""
        return self._process.poll()

    def stop(self, seconds: float = 12.0) -> int:
        """Ask it to end, insist after `seconds`, and return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
        code = self._process.wait()
        for reader in self._readers:
            reader.join(5)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr] # all three are pipes
        return code


def _read(stream: Sequence[str], tell: Callable[[str], None]) -> None:
    for line in stream:
        tell(line.rstrip("\n"))


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


_SCRIPT = """
cat >/dev/null
postmasters() {
    for file in "$1"/*/postmaster.pid; do
        [ -f "$file" ] || continue
        pid=$(head -n 1 "$file")
        # The number may belong to another process by now; a postmaster runs in its data directory.
        [ ! -d /proc/self ] || [ "$(readlink "/proc/$pid/cwd")" = "${file%/*}" ] || continue
        kill -0 "$pid" 2>/dev/null && echo "$pid"
    done
}
for second in 1 2 3 4 5 6 7 8 9 10; do
    pids=$(postmasters "$1")
    [ -n "$pids" ] && kill -QUIT $pids
    rm -rf "$1" 2>/dev/null
    [ -d "$1" ] || break
    sleep 1
done
"""
"""Waits for the end of its standard input: we alone hold it open, the kernel closes it however we end."""


class Keeper:
    """A shell that waits for our end, then stops every server under `directory` and removes it."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - fixed command
            ["/bin/sh", "-c", _SCRIPT, "sh", str(directory)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # neither Ctrl-C nor a closed terminal is to reach it
        )

    def dismiss(self) -> None:
        """Let it go; what of the directory is left, it removes. Returns when it is gone."""
        self._process.communicate()
