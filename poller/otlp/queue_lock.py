"""Lock on the state folder, so that only one process uses it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError, StateInUseError

LOCK = "spool.lock"
"""Name of the locked file in the state folder."""
_WHERE = "POLLER_STATE_DIR"
_FULL = {errno.ENOSPC, errno.EDQUOT}


def make_folder(folder: Path) -> None:
    """Create the state folder if it is missing. Raises ConfigError if that fails, except on a full disk."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in _FULL:
            raise _unusable(folder, error) from None


def _unusable(folder: Path, error: OSError) -> ConfigError:
    why = "it is not a folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
    message = f"{str(folder)!r} cannot be used: {why}; name a folder that this user may write in"
    return ConfigError([invalid(_WHERE, message)])


class FolderLock:
    """A lock that is held from its creation until `release` or the end of the process."""

    def __init__(self, folder: Path, name: str) -> None:
        """Create the folder if it is missing, and lock the file `name` in it.

        Raises StateInUseError if another process holds the lock, ConfigError if the folder cannot be used,
        and OSError if the disk is full, because that may be temporary.
        """
        self._path = folder / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in _FULL:
                raise
            raise _unusable(folder, error) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 100, 0).decode(errors="replace").strip()
            os.close(self._file)
            message = (
                f"{str(folder)!r} is in use by another poller ({holder or 'just starting'}); "
                "stop that one, or give each a folder of its own"
            )
            raise StateInUseError([invalid(_WHERE, message)]) from None
        except OSError as error:
            os.close(self._file)
            message = f"{str(folder)!r} cannot be locked: {error.strerror}; name a folder on a local disk"
            raise ConfigError([invalid(_WHERE, message)]) from None
        with contextlib.suppress(OSError):  # a full disk must not prevent the start
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)

    @property
    def is_there(self) -> bool:
        """Whether the locked file still has its name; otherwise another process may use the folder."""
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
