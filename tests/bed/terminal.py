"""A command on a pseudo-terminal: its screen, its input, and the state in which it leaves the terminal."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from tests.bed.cleanup import closing_all
from tests.bed.process import ROOT, eventually

_HOME = "\x1b[H"
_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r")


class Terminal:
    """A running command in a session that this terminal controls."""

    def __init__(
        self, command: Sequence[str], width: int, height: int, env: Mapping[str, str] | None = None
    ) -> None:
        """Start `command` on `width` columns and `height` lines; `env` is added to the environment."""
        self._main, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.before = self.now
        """The terminal's attributes before anything ran."""
        self._text = ""
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **(env or {})},
            preexec_fn=lambda: os.login_tty(child),  # noqa: PLW1509 - it acquires no lock
        )
        os.close(child)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """Everything that the command wrote."""
        return self._text

    @property
    def screen(self) -> list[str]:
        """The lines of the last complete drawing, without colours."""
        return [_STEERING.sub("", line).rstrip() for line in self.colored_screen]

    @property
    def colored_screen(self) -> list[str]:
        """The lines of the last complete drawing, with colours; everything if the command does not draw."""
        *complete, last = self._text.split(_HOME)
        return (complete[-1] if complete[1:] else last).split("\n")

    @property
    def now(self) -> list[Any]:
        """The terminal's attributes (termios)."""
        return termios.tcgetattr(self._main)

    def shows(self, pattern: str, seconds: float = 60.0) -> None:
        """Wait for a drawn line that matches; raises AssertionError after the timeout."""
        drawn = eventually(lambda: any(re.search(pattern, line) for line in self.screen), seconds)
        assert drawn, f"no line like {pattern!r} in\n" + "\n".join(self.screen)

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float = 60.0) -> int:
        """Return the exit code once all output is read."""
        code = self._process.wait(seconds)
        self._reader.join(seconds)
        return code

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(10)
        os.close(self._main)

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while True:
            try:
                output = os.read(self._main, 65536)
            except OSError:  # on Linux, the other side is closed
                return
            if not output:
                return
            self._text += decoder.decode(output)


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., Terminal]]:
    """Start `poller ARGUMENTS...` on a terminal, with keywords as environment; killed at the test's end."""

    def start(*arguments: str, width: int = 80, height: int = 24, **env: str) -> Terminal:
        return Terminal([sys.executable, "-m", "poller", *arguments], width, height, env)

    with closing_all(start, Terminal.close) as on_terminal:
        yield on_terminal
