"""Folder of the queue: its lock, and its database, replaced if it is damaged or removed."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from poller.model.database import is_damage, move
from poller.model.errors import ConfigError
from poller.model.text import counted
from poller.otlp.queue_database import STORAGE_ERRORS, DamagedRowError, StoredRequest
from poller.otlp.queue_lock import LOCK, FolderLock
from poller.otlp.queue_recovery import salvage
from poller.otlp.queue_storage import QueueStorage

logger = logging.getLogger(__name__)

Reason = Literal["age", "size", "damaged"]
"""Reason for which a request is dropped from the queue."""
_FILE = "spool.db"
_SET_ASIDE = ("spool.damaged.db", *(f"spool.damaged.{number}.db" for number in range(2, 10)))
"""Names for damaged files; when all are in use, the last is overwritten."""
_BATCH = 64
"""Number of requests that are moved in one transaction."""


class QueueFolder:
    """The requests on disk; not thread-safe, so callers must take turns.

    A damaged request is dropped alone. A damaged file is set aside, and its readable requests are moved to a
    new file. The requests of a removed folder are moved to a new folder. Requests that cannot be moved to the
    disk are moved to the storage in memory.
    """

    def __init__(self, folder: Path | None, memory: QueueStorage, dropped: Counter[Reason]) -> None:
        """Lock `folder` and open its database, creating them if they are missing; None stores nothing.

        Damaged requests are counted in `dropped`. Raises StateInUseError if another process uses the folder,
        ConfigError if it cannot be used. If the disk is full, for example, every change tries again.
        """
        self.last = -1
        """Highest id that was ever on disk, as far as it was read; -1 if the disk could not be read yet."""
        self._folder = folder
        self._memory = memory
        self._dropped = dropped
        self._warned = False
        self._lock: FolderLock | None = None
        self._storage: QueueStorage | None = None
        if folder is not None:
            with contextlib.suppress(OSError):  # a full disk, which `_open` logs
                self._lock = FolderLock(folder, LOCK)
        self._storage = self._open()

    @property
    def requests(self) -> int:
        """Number of requests on disk."""
        return self._storage.requests if self._storage else 0

    @property
    def size(self) -> int:
        """Size of these requests in bytes."""
        return self._storage.size if self._storage else 0

    @property
    def in_removed_files(self) -> int:
        """Number of requests whose files were removed, so that they are lost at the end of the process."""
        return self._storage.requests if self._storage and self._storage.is_gone else 0

    def add(self, stored: Sequence[StoredRequest]) -> bool:
        """Store all of the requests or none; return whether they were stored."""
        if done := self.change(lambda: self._open_storage.add(stored)):
            self._warned = False
        return done

    def change(self, action: Callable[[], object]) -> bool:
        """Run `action`, which uses the open database, and handle its errors; return whether it succeeded."""
        if self._storage is None:
            self._storage = self._open()
        elif self._storage.is_gone or (self._lock is not None and not self._lock.is_there):
            self._begin_again(self._storage)
        if self._storage is None:
            return False
        try:
            action()
        except STORAGE_ERRORS as error:
            self.recover(error)
            return False
        return True

    def first(self, after: int) -> tuple[int, float] | None:
        """Return the id and time of the oldest request above the id `after`; None if there is none."""
        while self._storage is not None:
            try:
                return self._storage.first(after)
            except STORAGE_ERRORS as error:
                if not self.recover(error, reading=True):
                    break
                after = error.number if isinstance(error, DamagedRowError) else after
        return None

    def read(self, number: int) -> StoredRequest:
        """Return the request with an existing id. Raises one of STORAGE_ERRORS, for `recover`."""
        return self._open_storage.read(number)

    def remove(self, first: int, last: int) -> int:
        """Remove the requests with ids from `first` to `last`, in `change`; return how many there were."""
        return self._open_storage.remove(first, last)

    def settle(self, number: int) -> None:
        """Remove a finished request."""
        self.change(lambda: self._open_storage.settle(number))

    def recover(self, error: Exception, *, reading: bool = False) -> bool:
        """Drop a damaged request, or replace a damaged file; return whether `reading` can go on."""
        if isinstance(error, DamagedRowError):
            self._drop(error)
            return True
        if is_damage(error, reading=reading):
            return self._set_aside(error)
        self._warn(error)
        return False

    def close(self) -> None:
        """Close the files and release the lock; the requests stay for the next process."""
        if self._storage is not None:
            self._storage.close()
        if self._lock is not None:
            self._lock.release()
        self._folder = self._storage = None  # so that nothing is opened again

    @property
    def _open_storage(self) -> QueueStorage:
        if self._storage is None:
            raise OSError("the database is not open")
        return self._storage

    def _open(self, *, new: bool = False) -> QueueStorage | None:
        """Open the database; set a damaged file aside and begin a new one, unless it is `new`."""
        if self._folder is None:
            return None
        try:
            self._lock = self._lock or FolderLock(self._folder, LOCK)
            storage = QueueStorage(self._folder / _FILE)
        except (ConfigError, *STORAGE_ERRORS) as error:
            if new or not is_damage(error):
                self._warn(error)
                return None
            self._set_aside(error)
            return self._storage
        self.last = max(self.last, storage.last)
        return storage

    def _begin_again(self, old: QueueStorage) -> None:
        """Create the folder again and move the requests of the open, removed files to it."""
        logger.warning("the files in %s were removed while in use; they are created again", self._folder)
        if self._lock is not None:
            self._lock.release()
        self._lock = self._storage = None
        if old.has_name:
            old.close()  # the file can then be opened by its name again
        self._storage = self._open()
        self._move(old.rescue())
        old.close()

    def _set_aside(self, error: Exception) -> bool:
        """Begin a new file with the readable requests of the damaged file; return whether that succeeded."""
        if self._folder is None:
            raise error  # there is no file to move
        old, self._storage = self._storage, None
        names = (name for name in _SET_ASIDE if not (self._folder / name).exists())
        aside = self._folder / next(names, _SET_ASIDE[-1])
        try:
            move(self._folder / _FILE, aside)
        except OSError as why:
            self._storage = old
            self._warn(why)
            return False
        self._storage = self._open(new=True)
        moved, lost = self._move(salvage(aside) if old is None else old.rescue())
        # The number of requests in a file that could not be opened is unknown.
        lost = max(0, old.requests - moved) if old is not None else lost or int(not moved)
        if old is not None:
            old.close()
        self._dropped["damaged"] += lost
        logger.warning(
            "the spool in %s is damaged (%s): moved to %s, and a new one created; %s saved, %s%d lost",
            self._folder,
            error,
            aside.name,
            counted(moved, "request"),
            "" if old is not None else "at least ",
            lost,
        )
        return True

    def _move(self, requests: Iterator[StoredRequest | None]) -> tuple[int, int]:
        """Store the requests of another storage, on disk if possible; return the counts moved and lost."""
        moved = lost = 0
        while head := list(itertools.islice(requests, _BATCH)):
            batch = [stored for stored in head if stored is not None]
            lost += len(head) - len(batch)
            if not batch:
                continue
            try:
                self._open_storage.add(batch)
            except STORAGE_ERRORS:
                self._memory.add(batch)
            moved += len(batch)
            self.last = max(self.last, batch[-1].id)
        return moved, lost

    def _drop(self, error: DamagedRowError) -> None:
        """Drop one damaged request, of the disk or in memory."""
        try:
            if not self._memory.remove(error.number, error.number):
                self._open_storage.remove(error.number, error.number)
        except STORAGE_ERRORS as why:
            self._warn(why)  # the request is skipped now and removed later
            return
        self._dropped["damaged"] += 1
        logger.warning("one request in %s is damaged and lost: %s", self._folder, error)

    def _warn(self, error: Exception) -> None:
        """Log once, until the disk stores requests again, that it cannot."""
        if not self._warned:
            self._warned = True
            message = "requests cannot be stored in %s and stay in memory: %s"
            logger.warning(message, self._folder, error)
