"""Entry point of the child process of `poller.loader`, whose argument is the descriptor for its answers."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from poller.loader import answer, answer_to

if TYPE_CHECKING:
    from poller.catalog import Defaults


def start(package: str | None, arguments: list[str]) -> None:
    """Run the command line of the process that started this one: `poller.commands.run` answers.

    `package` is that of its `__main__`, by which the usage line names the program.
    """
    gc.disable()  # until all is imported, as in `poller.main`
    sys.modules["__main__"].__package__ = package
    sys.argv[:] = arguments
    from poller.cli import main as command_line

    command_line()


def load(queries: str, defaults: Defaults) -> None:
    """Answer with the catalogue of the query files."""

    def read() -> object:
        from poller.queryfiles import load as read_files
        from poller.sources import resolve

        return read_files(resolve(queries), defaults)

    answer(read)


_TASKS: dict[str, Callable[..., None]] = {"start": start, "load": load}


def _end_with_starter() -> None:
    """End this process when the other end of stdin is closed, as it is however the other process ends."""
    os.read(0, 1)
    os._exit(1)


def main() -> None:
    """Do what the request on stdin says."""
    answer_to(int(sys.argv[1]))
    try:
        task, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - only the process that started us writes it
    except (EOFError, pickle.UnpicklingError):
        return  # that process has ended
    threading.Thread(target=_end_with_starter, name="lifeline", daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # the same
        _TASKS[task](*arguments)


if __name__ == "__main__":
    main()
