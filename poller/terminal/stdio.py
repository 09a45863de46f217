"""Standard streams: closed ones are opened, output is escaped, and write errors are recognised."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO, cast

from poller.model.printable import lines

_STDIN, _STDOUT, _STDERR = range(3)
_TAKES_NO_MORE = {errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPIPE}


def open_missing() -> None:
    """Open /dev/null in place of each standard stream that is closed.

    The next file or socket would get its number, and be written to by whoever means the stream. What is
    written to such a stderr is lost, as its closing asked for; writing to such a stdout is an error, as the
    result is what a command was started for.
    """
    for number in (_STDIN, _STDOUT, _STDERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number == _STDERR else os.O_RDONLY)
    sys.stdin = sys.stdin or os.fdopen(_STDIN, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(_STDOUT, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(_STDERR, "w", closefd=False)


def speak_utf8() -> None:
    """Have stdout take every text: what programs read is UTF-8, and a terminal is shown escapes for the rest.

    A locale or PYTHONIOENCODING may say otherwise, and a name of the database's would then be an exception.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


class _Guarded:
    """A standard stream that escapes what would act on the reader's terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.unguarded = stream

    def write(self, text: str) -> int:
        self.unguarded.write(lines(text))
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        self.unguarded.writelines(map(lines, texts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


def guard() -> None:
    """Escape everything that is written to stdout and stderr from now on, whatever writes it.

    Text of files, servers and clients cannot act on a terminal then. What formats text for a terminal itself
    (`terminal.console`, `telemetry.logging`) escapes it too, and writes to the `unguarded` stream.
    """
    sys.stdout, sys.stderr = (
        cast(TextIO, _Guarded(unguarded(stream))) for stream in (sys.stdout, sys.stderr)
    )


def unguarded(stream: TextIO) -> TextIO:
    """The stream itself, also of one that `guard` replaced."""
    return stream.unguarded if isinstance(stream, _Guarded) else stream


def unwritable(error: OSError) -> bool:
    """Whether `error` may come of writing to stdout: its disk is full, its reader left, it is closed."""
    return error.filename is None and error.errno in _TAKES_NO_MORE


def drop_stdout() -> None:
    """Let go of what stdout still holds; the interpreter would try to write it once more at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDOUT)
    os.close(nowhere)
