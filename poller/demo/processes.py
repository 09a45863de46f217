"""Child processes of the demo, which end when the demo ends, even after SIGKILL."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

_PR_SET_PDEATHSIG = 1


class Child(AbstractContextManager["Child"]):
    """A running `python -m ...`; one thread per stream reads its output line by line.

    It has its own session. So only the demo receives Ctrl-C, and then stops its processes in order.
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
            threading.Thread(target=_read, args=(stream, handle), daemon=True)
            for stream, handle in ((self._process.stdout, on_stdout), (self._process.stderr, on_stderr))
        ]
        for reader in self._readers:
            reader.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def ended(self) -> int | None:
        """The exit code if the child has ended, else None."""
        return self._process.poll()

    def stop(self, seconds: float = 12.0) -> int:
        """Send SIGTERM, and SIGKILL after `seconds`; returns the exit code."""
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


def _read(stream: Sequence[str], handle: Callable[[str], None]) -> None:
    for line in stream:
        handle(line.rstrip("\n"))


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


_SCRIPT = """
cat >/dev/null
postmasters() {
    for file in "$1"/*/postmaster.pid; do
        [ -f "$file" ] || continue
        pid=$(head -n 1 "$file")
        # Another process may have this number by now; a postmaster runs in its data directory.
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
"""Waits for the end of its standard input, which the kernel closes when the demo ends for any reason."""


class CleanupProcess:
    """A shell that waits until this process ends, then stops every server in `directory` and removes it."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - fixed command
            ["/bin/sh", "-c", _SCRIPT, "sh", str(directory)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # neither Ctrl-C nor a closed terminal must end it
        )

    def end(self) -> None:
        """End it and wait for it; it removes the rest of the directory."""
        self._process.communicate()
