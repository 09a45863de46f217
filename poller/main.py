"""Begin: `poller health` by itself, as probes run it all the time; everything else by the command line."""

from __future__ import annotations

import gc
import signal
import sys


def main() -> None:
    """Run the command that the arguments name, and end the process with its exit code."""
    if sys.argv[1:2] == ["health"]:
        from poller.commands.health import main as health

        health(sys.argv[2:])
    if sys.argv[1:2] == ["run"]:
        # It would end a daemon that is about to read the files anyway; from then on it is heeded.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # What is loaded stays, so that looking for garbage in it is time lost; the command line turns it on.
    gc.disable()
    from poller.cli import main as command_line

    command_line()
