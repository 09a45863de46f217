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

    Otherwise the next file or socket would get the stream's number and its output. Output to a replaced
    stderr is discarded, because the caller closed it on purpose. Output to a replaced stdout is an error,
    because the result of the command would be lost.
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
    """Let stdout accept every text: UTF-8 for programs, and escapes for characters a terminal cannot show.

    Otherwise a locale or PYTHONIOENCODING could turn a name from the database into an encoding error.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = sys.stdout.encoding if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


class _Guarded:
    """A standard stream that escapes text that would act on the reader's terminal."""

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
    """Escape everything that is written to stdout and stderr from now on.

    So text from files, servers and clients cannot act on a terminal. Code that formats for a terminal
    (`terminal.console`, `telemetry.logging`) escapes text itself and writes to the `unguarded` stream.
    """
    sys.stdout, sys.stderr = (
        cast(TextIO, _Guarded(unguarded(stream))) for stream in (sys.stdout, sys.stderr)
    )


def unguarded(stream: TextIO) -> TextIO:
    """Return the stream, or the original stream if `guard` replaced it."""
    return stream.unguarded if isinstance(stream, _Guarded) else stream


def unwritable(error: OSError) -> bool:
    """Return whether `error` may come from writing to stdout: a full disk, a closed reader or stream."""
    return error.filename is None and error.errno in _TAKES_NO_MORE


def drop_stdout() -> None:
    """Discard the buffered output of stdout, which the interpreter would try to write again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDOUT)
    os.close(nowhere)
