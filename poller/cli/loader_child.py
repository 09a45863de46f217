"""Entry point of the child process that loads the configuration and answers through a pipe."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import sys
import threading

from poller.config import loader_process as loader
from poller.config.settings import Settings


def start(package: str | None, arguments: list[str]) -> None:
    """Run the command line of the parent process; `poller.cli.run` answers.

    `package` is the package of the parent's `__main__`, which gives the usage line the program's name.
    """
    gc.disable()  # until everything is imported, as in `poller.cli.main`
    sys.modules["__main__"].__package__ = package
    sys.argv[:] = arguments
    from poller.cli.app import main as command_line

    command_line()


def load(settings: Settings) -> None:
    """Send the queries and targets."""
    from poller.config.load import open_configuration

    loader.answer(lambda: open_configuration(settings))


def _end_with_starter() -> None:
    """End this process when the parent has ended, which closes the other end of stdin."""
    os.read(0, 1)
    os._exit(1)


def main() -> None:
    """Read the request from stdin and run it."""
    os.set_inheritable(int(sys.argv[1]), False)
    loader.answers = os.fdopen(int(sys.argv[1]), "wb")
    try:
        task, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - only the parent process writes it
    except (EOFError, pickle.UnpicklingError):
        return  # the parent has ended
    threading.Thread(target=_end_with_starter, name="lifeline", daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # the parent has ended
        (start if task == "start" else load)(*arguments)


if __name__ == "__main__":
    main()
