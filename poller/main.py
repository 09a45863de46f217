"""Begin: `poller health` by itself, as probes run it all the time, `poller run` in two processes."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poller.reader import Reader

_SHARED = ("asyncio", "importlib.metadata", "poller.logs", "poller.settings", "poller.watcher")
"""What the daemon needs, and so does the child that reads for it: loaded once, before they part."""


_LEAST_FILES = 64
"""Open files that are enough for every command."""


def main() -> None:
    """Run the command that the arguments name, and end the process with its exit code."""
    if sys.argv[1:2] == ["health"]:
        from poller.commands.health import main as health

        health(sys.argv[2:])
    _require_files()
    # What is loaded stays, so that looking for garbage in it is time lost; who goes on turns it on.
    gc.disable()
    if [word for word in sys.argv[1:] if word != "--"][:1] == ["run"]:
        # It would end a daemon that is about to read the files anyway; from then on it is heeded.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # Nothing is begun that had to be ended. As process 1 of a container the default action does nothing.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        _run()
    from poller.cli import main as command_line

    command_line()


def _require_files() -> None:
    """End the process if it may have too few open files: some library would end it without a word."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < _LEAST_FILES:
        what = f"the limit of {limit} open files is too low; raise it to 256 or more (ulimit -n)"
        print(what, file=sys.stderr)  # noqa: T201 - logging is not set up yet
        sys.exit(2)


def _run() -> None:
    """Have a child read the command line and all that it names; returns in the child."""
    reader: Reader | None = None
    try:
        from poller.streams import open_missing

        open_missing()  # before a pipe gets the number of a stream
        from poller.reader import fork

        for shared in _SHARED:
            importlib.import_module(shared)
        try:
            reader = fork()
        except OSError as error:
            sys.exit(f"no process can be made that reads the settings: {error.strerror}")
        if reader is not None:
            from poller.signals import on_hangup

            asked: list[bool] = []
            on_hangup(lambda: asked.append(True))  # the child reads the files from now on
            from poller.commands.serve import main as serve

            serve(reader, asked)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        if reader is not None:
            reader.end()
