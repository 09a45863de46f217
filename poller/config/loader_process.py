"""Child process that reads the command line, the settings and the query files for the daemon.

Their libraries (typer, pydantic, YAML, PostgreSQL's grammar) would stay in the daemon's memory. Therefore a
child imports them, sends its result through a pipe, because the result may hold secrets, and exits.

The request is one pickle on the child's stdin. Each answer is a pickle of two values: its kind, and its
content as a pickle.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import IO, Any, Literal, cast

from poller.config.orphans import ORPHANS

answers: IO[bytes] | None = None
"""In the child: the pipe to the process that started it."""


class LoaderError(Exception):
    """The child sent no answer."""

    def __init__(self, message: str, code: int = 1, *, printed: bool = False) -> None:
        """`code` is the exit code for the daemon; `printed` is true if the child printed the reason."""
        super().__init__(message)
        self.code = code
        self.printed = printed


class LoaderProcess(contextlib.ExitStack):
    """A child process that reads. It ends with its context, with `close`, or when this process ends."""

    def __init__(self, task: Literal["start", "load"], *arguments: object) -> None:
        """Start a child that runs the function `task` of `poller.cli.loader_child`.

        Raises LoaderError if the system cannot start it.
        """
        super().__init__()
        self.enter_context(ORPHANS.own_child())
        try:
            self._child, self._answers = _start()
        except OSError as error:
            self.close()
            message = f"cannot start {sys.executable} to read the configuration: {error.strerror}"
            raise LoaderError(message) from None
        self._request = cast("IO[bytes]", self._child.stdin)
        self.callback(self._end)
        with contextlib.suppress(BrokenPipeError):  # `receive` reports how it ended
            pickle.dump((task, arguments), self._request)
            self._request.flush()

    @classmethod
    def run(cls, task: Literal["load"], *arguments: object) -> Any:
        """Start a child, return its first answer and end it; raises as `receive` does."""
        with cls(task, *arguments) as process:
            return process.receive()

    def receive(self) -> Any:
        """Return the next answer.

        Raises ConfigError with the problems that the child found or if another version of the package is
        installed by now, LoaderError if the child failed or ended.
        """
        # Imported after the child is started.
        from poller.model.diagnostics import invalid
        from poller.model.errors import ConfigError

        try:
            answer = pickle.load(self._answers)  # noqa: S301 - only our own child writes to the pipe
        except (EOFError, pickle.UnpicklingError):
            answer = None
        # Another version may have other classes and modules.
        if (installed := _installed_version()) != _running_version():
            message = (
                f"version {installed} is installed, but {_running_version()} is running; restart the poller"
            )
            raise ConfigError([invalid("POLLER_QUERIES", f"cannot be read: {message}")])
        if answer is None:
            raise self._ended()
        kind, content = pickle.loads(answer)  # noqa: S301 - the same
        if kind == "problems":
            raise ConfigError(content)
        if kind == "defect":
            raise LoaderError(f"the process that reads the configuration failed: {content}")
        return content

    def _end(self) -> None:
        self._child.kill()
        self._answers.close()
        with contextlib.suppress(BrokenPipeError):
            self._request.close()
        self._child.wait()

    def _ended(self) -> LoaderError:
        self._answers.close()  # so that the child cannot block on a full pipe
        code = self._child.wait()
        reason = f"was ended by signal {-code}" if code < 0 else f"ended with {code} and sent no answer"
        message = f"the process that reads the configuration {reason}"
        return LoaderError(message, 128 - code if code < 0 else code, printed=code >= 0)


def _start() -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start a child; return it and its answers. Raises OSError."""
    reading, writing = os.pipe()
    # The child inherits this thread's signal mask: it ignores signals to the whole process group, because the
    # daemon handles them and ends the child.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    try:
        child = subprocess.Popen(  # noqa: S603 - the module is ours
            [sys.executable, "-P", "-m", "poller.cli.loader_child", str(writing)],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=[writing],
        )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    return child, os.fdopen(reading, "rb")


def _installed_version() -> str:
    import importlib.metadata  # after the child is started

    try:
        return importlib.metadata.version("obscura-poller")
    except importlib.metadata.PackageNotFoundError:
        return "none"


_running_version = functools.cache(_installed_version)
"""Version of the running code: cached at the first call, which is at the start."""


def answer(read: Callable[[], object]) -> None:
    """In the child: send what `read` returns, or why it returned nothing.

    Raises BrokenPipeError if the process that started the child has ended.
    """
    if answers is None:
        raise RuntimeError("no process waits for the answer: the daemon is started by poller.cli.main")
    from poller.model.errors import ConfigError

    message: tuple[str, object]
    try:
        message = ("value", read())
    except ConfigError as error:
        message = ("problems", error.problems)
    except Exception:  # noqa: BLE001 - a defect, which the other process reports
        import traceback

        from poller.model.redaction import redact

        message = ("defect", redact(traceback.format_exc()).strip()[-2000:])
    pickle.dump(pickle.dumps(message), answers)
    answers.flush()
