"""Child process that reads the command line, the settings and the query files for the daemon.

The libraries for it (typer, pydantic, YAML, PostgreSQL's grammar) would stay in the memory of the daemon. So
a child imports them, sends what it reads through a pipe, because it may hold secrets, and ends.

The request is one pickle on the child's stdin. Each answer is two pickles: the version of the package that
wrote it, and a pair of its kind and its content.
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
from typing import IO, TYPE_CHECKING, Any, Literal, Self, cast

from poller.orphans import ORPHANS

if TYPE_CHECKING:
    from poller.errors import ConfigError  # imported where it is used: the child starts a little earlier

_TRACEBACK_CHARACTERS = 2000

_answers: IO[bytes] | None = None
"""In the child: the pipe to the process that started it."""


class LoaderError(Exception):
    """The child sent no answer."""

    def __init__(self, message: str, code: int = 1, *, printed: bool = False) -> None:
        """`code` is the exit code of a process that needs the answer; `printed`: the child said why."""
        super().__init__(message)
        self.code = code
        self.printed = printed


class LoaderProcess:
    """A child that reads. It ends with its context manager, and with this process however that ends."""

    def __init__(self, task: Literal["start", "load"], *arguments: object) -> None:
        """Start a child with a function of `poller.loaderchild`; raises LoaderError if the system refuses."""
        with contextlib.ExitStack() as resources:
            resources.enter_context(ORPHANS.own_child())
            try:
                self._child, self._answers = _start()
            except OSError as error:
                what = f"cannot start {sys.executable} to read the configuration: {error.strerror}"
                raise LoaderError(what) from None
            resources.enter_context(self._answers)
            resources.callback(self._end)
            with contextlib.suppress(BrokenPipeError):  # `receive` reports how it ended
                pickle.dump((task, arguments), self._stdin)
                self._stdin.flush()
            self._resources = resources.pop_all()

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
        try:
            # First, because the classes of another version may have other fields.
            if (theirs := pickle.load(self._answers)) != version():  # noqa: S301 - only our child writes it
                raise _replaced(theirs)
            kind, content = pickle.load(self._answers)  # noqa: S301 - the same
        except (EOFError, pickle.UnpicklingError):
            raise self._ended() from None
        if kind == "problems":
            from poller.errors import ConfigError

            raise ConfigError(content)
        if kind == "defect":
            raise LoaderError(f"the process that reads the configuration failed: {content}")
        return content

    def close(self) -> None:
        """End the child, if it has not ended."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _stdin(self) -> IO[bytes]:
        return cast("IO[bytes]", self._child.stdin)

    def _end(self) -> None:
        self._child.kill()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        self._child.wait()

    def _ended(self) -> Exception:
        self._answers.close()  # so that it cannot wait for us
        code = self._child.wait()
        if code < 0:
            what = f"the process that reads the configuration was ended by signal {-code}"
            return LoaderError(what, 128 - code)
        if (installed := _installed()) != version():  # and may have no such module
            return _replaced(installed)
        what = f"the process that reads the configuration ended with {code} and sent no answer"
        return LoaderError(what, code, printed=True)


def _start() -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start a child; return it and its answers. Raises OSError."""
    reading, writing = os.pipe()
    # A signal to the whole group or service is for the daemon, and the child ends with it. It inherits the
    # mask of this thread.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    try:
        child = subprocess.Popen(  # noqa: S603 - the module is ours
            [sys.executable, "-P", "-m", "poller.loaderchild", str(writing)],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=[writing],
        )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    return child, os.fdopen(reading, "rb")


@functools.cache
def version() -> str:
    """The version of this package that runs; the first call must come before another can be installed."""
    return _installed()


def _installed() -> str:
    import importlib.metadata  # after the child is started

    try:
        return importlib.metadata.version("obscura-poller")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _replaced(installed: str) -> ConfigError:
    from poller.errors import ConfigError, Problem

    what = f"version {installed} is installed, but {version()} is running; restart the poller"
    return ConfigError([Problem("POLLER_QUERIES", f"cannot be read: {what}")])


def answer_to(descriptor: int) -> None:
    """In the child: send all answers to `descriptor`."""
    global _answers  # noqa: PLW0603 - a command of the command line is called without arguments
    os.set_inheritable(descriptor, False)
    _answers = os.fdopen(descriptor, "wb")


def answer(read: Callable[[], object]) -> None:
    """In the child: send what `read` returns, or why it returned nothing.

    Raises BrokenPipeError if the process that started the child has ended.
    """
    if _answers is None:
        raise RuntimeError("no process waits for the answer: the daemon is started by poller.main")
    from poller.errors import ConfigError

    message: tuple[str, object]
    try:
        message = ("value", read())
    except ConfigError as error:
        message = ("problems", error.problems)
    except Exception:  # noqa: BLE001 - a defect, which the other process reports
        import traceback

        from poller.redaction import redact

        message = ("defect", redact(traceback.format_exc()).strip()[-_TRACEBACK_CHARACTERS:])
    pickle.dump(version(), _answers)
    pickle.dump(message, _answers)
    _answers.flush()
