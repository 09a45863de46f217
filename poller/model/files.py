"""Bounded reading of regular files, and atomic replacement of a file."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import IO, Any

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NotRegularError(OSError):
    """The file is a pipe, a socket or a device: reading it could block or never end."""


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file, or a link to one, for reading.

    Raises NotRegularError for a pipe, a socket or a device, OSError if it cannot be opened.
    """
    _check(path.stat())
    # The file may have been replaced since: without O_NONBLOCK, opening a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """Read a regular file; raises OSError if it is not one, cannot be read or is longer than `most` bytes."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {_size(most)}")
    return content


def read_json(path: Path, most: int) -> Any:
    """Read a regular file of at most `most` bytes as JSON; raises OSError, or ValueError for invalid JSON."""
    return parse_json(read_regular(path, most))


def parse_json(content: bytes) -> Any:
    """Parse JSON; raises ValueError for invalid JSON and for JSON that is nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def replace_file(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace a file in one step, so that no reader sees half of it; only its owner may read it.

    With `durable`, the new content survives a power failure after the return. Two processes must not write
    the same file at the same time. Raises OSError; the file is unchanged then.
    """
    new = path.with_name(f".{path.name}.new")
    # A killed process can leave this file. O_EXCL then rejects any file that another user creates.
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names of new and replaced files in a folder survive a power failure; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise NotRegularError(errno.EINVAL, f"it is {kind}, not a regular file")


def _size(count: int) -> str:
    return f"{count / 2**20:g} MiB" if count >= 2**20 else f"{count / 2**10:g} KiB"
