"""Have another process read what is only read once in a while, and hear from it what it found.

The command line, pydantic, YAML and PostgreSQL's grammar are more than all that the daemon works with, and it
needs them for a moment. So a child loads them and ends. What it found comes through a pipe, as it may hold
secrets.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from typing import IO, Any, NoReturn

from poller.orphans import ORPHANS

_listener: IO[bytes] | None = None
"""In the child: to whoever has forked it."""


class NothingFoundError(Exception):
    """The child ended before it had told everything."""


class Reader:
    """A child that reads, seen by who waits for it."""

    def __init__(self, child: int, pipe: IO[bytes], lifeline: int) -> None:
        self._child = child
        self._pipe = pipe
        self._lifeline = lifeline
        self._code: int | None = None

    def hear(self) -> Any:
        """What the child tells next; raises NothingFoundError where it has ended instead."""
        try:
            return pickle.load(self._pipe)  # noqa: S301 - our own child, and nobody else, writes to the pipe
        except (EOFError, pickle.UnpicklingError):
            raise NothingFoundError from None

    def wait(self) -> int:
        """The exit code of the child, the number of a signal negative; waits for its end."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
            self._pipe.close()
            os.close(self._lifeline)
        return self._code

    def end(self) -> None:
        """End the child, if it has not ended."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
            self.wait()


def fork() -> Reader | None:
    """Begin a child that goes on where this process is; it gets None, and `tell` and `leave` are for it.

    Only while there is one thread.
    """
    global _listener  # noqa: PLW0603 - a process is forked once, and its command is called without arguments
    reading, writing = os.pipe()
    ours, theirs = os.pipe()
    # So that it ends nobody halfway: in the child it means nothing, as who waits hears it too, and ends us.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    try:
        child = os.fork()
        if not child:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    if child:
        os.close(writing)
        os.close(ours)
        return Reader(child, os.fdopen(reading, "rb"), theirs)
    os.close(reading)
    os.close(theirs)
    end_with(ours)
    _listener = os.fdopen(writing, "wb")
    return None


def end_with(lifeline: int) -> None:
    """End this process when whoever holds the other end of a pipe has ended, however that came."""

    def wait() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def tell(found: object) -> None:
    """Send to who waits for this child; raises BrokenPipeError where it has ended."""
    if _listener is None:
        raise RuntimeError("nobody listens: the daemon is started by poller.main")
    pickle.dump(found, _listener)
    _listener.flush()


def leave() -> NoReturn:
    """End this child at once, as it has nothing to tidy up and somebody waits."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def ask(module: str, *questions: object) -> Any:
    """Run `module` in a new interpreter, which is sent `questions` one by one, and return what it tells.

    For a process with threads, which must not fork. The module's argument is the descriptor to `end_with`.
    Raises NothingFoundError with the last of what the child wrote to stderr, or why there can be no child.
    """
    with ORPHANS.own_child():
        return _ask(module, *questions)


def _ask(module: str, *questions: object) -> Any:
    theirs, ours = os.pipe()
    # Whoever stops the whole group or service means us. The mask is this thread's, and the child's.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    try:
        child = subprocess.Popen(  # noqa: S603 - the module is one of ours
            [sys.executable, "-P", "-m", module, str(theirs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            pass_fds=[theirs],
        )
    except OSError as error:
        os.close(ours)
        raise NothingFoundError(
            f"no process can be made that reads them, by {sys.executable}: {error.strerror}"
        ) from None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        os.close(theirs)
    with child, os.fdopen(ours, "wb"):
        told, wrong = child.communicate(b"".join(map(pickle.dumps, questions)))
    if child.returncode != 0:
        last = wrong.decode(errors="replace").strip()[-2000:]
        raise NothingFoundError(f"the process that reads them ended with {child.returncode}: {last}")
    try:
        return pickle.loads(told)  # noqa: S301 - of our own child
    except (EOFError, pickle.UnpicklingError):
        raise NothingFoundError("the process that reads them ended without an answer") from None
