"""Entry point of the command line, with fast paths for `poller health` and `poller run`."""

from __future__ import annotations

import gc
import os
import signal
import sys

_LEAST_FILES = 64
"""Number of open files that is enough for every command."""


def main() -> None:
    """Run the command line and end the process with the command's exit code."""
    if sys.argv[1:2] == ["health"]:
        from poller.cli.health import main as health

        health(sys.argv[2:])
    _require_files()
    # Imports create no garbage, so a collection would only cost time. The commands enable it again.
    gc.disable()
    if [argument for argument in sys.argv[1:] if argument != "--"][:1] == ["run"]:
        # The default action would end the process, although the daemon is about to read the files anyway.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # There is nothing to clean up yet. Process 1 of a container would ignore the signals by default.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
        _run()
        return
    from poller.cli.app import main as command_line

    command_line()


def _require_files() -> None:
    """End the process if its limit of open files is too low, because libraries would fail silently."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if 0 <= limit < _LEAST_FILES:
        message = f"the limit of {limit} open files is too low; raise it to 256 or more (ulimit -n)"
        print(message, file=sys.stderr)  # noqa: T201 - logging is not set up yet
        sys.exit(2)


def _run() -> None:
    """Run the daemon and end the process; a child reads the command line while this process imports."""
    from poller.terminal.stdio import open_missing

    open_missing()  # before a pipe gets the file descriptor of a standard stream
    from poller.config.loader_process import LoaderError, LoaderProcess

    try:
        with LoaderProcess("start", sys.modules["__main__"].__package__, sys.argv) as loader:
            from poller.daemon.signals import on_hangup

            reloads: list[bool] = []
            on_hangup(lambda: reloads.append(True))  # the child starts to read the files
            from poller.daemon.run import main as serve

            serve(loader, reloads)
    except LoaderError as error:
        if not error.printed:
            import logging

            logging.getLogger(__name__).critical("%s", error)  # to stderr, if logging is not set up yet
        sys.exit(error.code)
