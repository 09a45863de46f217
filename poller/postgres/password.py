"""Password command, for cloud services whose access tokens expire within minutes."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

from poller.config.orphans import ORPHANS
from poller.model.errors import PollError
from poller.model.secrets import read_secret

_HINT = "check the path of password_file, and that the poller's user may read the file"


def password_from(command: str, timeout: float = 10.0) -> Callable[[], str]:
    """Return a function that runs `command` and returns its output without the final line break.

    The command is split as a shell splits it, and runs without a shell. The function raises PollError
    `unavailable` if the command cannot be run, fails, takes longer than `timeout` seconds or writes
    nothing. An error never contains its output, not even stderr, because tools quote tokens there.
    """

    def ask() -> str:
        try:
            with ORPHANS.own_child():
                done = subprocess.run(  # noqa: S603 - the operator's own command
                    _words(command),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=timeout,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            problem = f"did not end within {timeout:g}s"
        except (OSError, ValueError) as error:
            # Name only the program: an argument may be a secret.
            named = f"{_words(command)[0]}: {error.strerror}" if isinstance(error, OSError) else ""
            problem = f"cannot be run: {named or 'it is not a command line'}"
        else:
            password = done.stdout.rstrip(b"\r\n")
            try:
                if done.returncode == 0 and password:
                    return password.decode()
                problem = f"ended with exit code {done.returncode}" if done.returncode else "wrote nothing"
            except UnicodeDecodeError:
                problem = "wrote text that is not UTF-8"
        # Raised outside `except`, because subprocess errors contain the command line and its output.
        raise PollError(
            "unavailable",
            f"the password command {problem}",
            hint="run POLLER_PASSWORD_COMMAND by hand as the poller's user; it is run without a shell",
        )

    return ask


def password_in(file: Path) -> Callable[[], str]:
    """Return a function that reads the password from `file`, and raises PollError `unavailable` otherwise."""

    def read() -> str:
        try:
            return read_secret(file)
        except OSError as error:
            problem = error.strerror
        except UnicodeError:
            problem = "it is not UTF-8 text"
        raise PollError("unavailable", f"the password file cannot be read: {problem}", hint=_HINT)

    return read


def _words(command: str) -> list[str]:
    words = shlex.split(command)
    if not words:
        raise ValueError
    return words
