"""Exit codes and final error messages of commands."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

from poller.model.errors import ConfigError
from poller.model.printable import one_line
from poller.terminal.stdio import drop_stdout, guard, open_missing, speak_utf8, unwritable


def run_to_end(act: Callable[[], None]) -> None:
    """Call `act`, and end the process with an exit code if it fails.

    The code is 2 for an unusable configuration or too few file descriptors, 1 if stdout cannot be written.
    """
    open_missing()
    speak_utf8()
    guard()
    try:
        try:
            act()
        except SystemExit:
            sys.stdout.flush()
            raise
    except ConfigError as error:
        for problem in error.problems:
            print(one_line(str(problem)), file=sys.stderr)  # noqa: T201 - logging may not be set up yet
        sys.exit(2)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            print(f"{error.strerror}; raise the limit to 256 or more (ulimit -n)", file=sys.stderr)  # noqa: T201 - the same
            sys.exit(2)
        if not unwritable(error):
            raise
        drop_stdout()
        if error.errno != errno.EPIPE:  # a reader that closes the pipe needs no message
            print(f"the output cannot be written: {error.strerror}", file=sys.stderr)  # noqa: T201 - the same
        sys.exit(1)
