"""Queue of undelivered OTLP requests, oldest first, bounded by size and age."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from poller.model.database import is_damage, move
from poller.model.duration import format_duration
from poller.model.errors import ConfigError
from poller.model.text import counted
from poller.otlp.queue_database import STORAGE_ERRORS, DamagedRowError, StoredRequest
from poller.otlp.queue_lock import LOCK, FolderLock
from poller.otlp.queue_recovery import salvage
from poller.otlp.queue_storage import QueueStorage
from poller.otlp.request import Request
from poller.otlp.signals import SignalFormat, format_of

logger = logging.getLogger(__name__)

MEMORY_BYTES = 8 * 2**20
"""Maximum size in bytes of the requests that are kept in memory because the disk cannot be used."""
Reason = Literal["age", "size", "damaged"]
SETTINGS: Mapping[Reason, str] = {"age": "POLLER_SPOOL_MAX_AGE", "size": "POLLER_SPOOL_MAX_SIZE"}
"""Settings that limit the queue."""

_FILE = "spool.db"
_IN_MEMORY = "stored in memory, not on disk"
_SET_ASIDE = ("spool.damaged.db", *(f"spool.damaged.{number}.db" for number in range(2, 10)))
"""Names for damaged files; when all are in use, the last is overwritten."""
_BATCH = 64
"""Number of requests that are moved in one transaction."""


class SendingQueue:
    """The queued requests, oldest first, bounded by size and age; thread-safe.

    A request is on disk when `append` returns. If the disk cannot store it (because it is full, for
    example), the request is kept in memory and delivered in the same order. A damaged request is dropped
    alone. A damaged file is set aside, and its readable requests are moved to a new file. The requests of a
    removed folder are moved to a new folder. The newest export is kept at any size.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        max_size: int,
        max_age: float,
        clock: Callable[[], float] = time.time,
        form: SignalFormat | None = None,
        settings: Mapping[Reason, str] = SETTINGS,
        loss_level: int = logging.WARNING,
    ) -> None:
        """Open the spool in `folder`, creating it if it is missing; None keeps everything in memory.

        `max_size` is in bytes of requests, `max_age` in seconds; log records name the `settings` that define
        them. `form` is the form of the signal, by default of metrics; `loss_level` is the log level of the
        first dropped request. Raises StateInUseError if another process uses this spool, ConfigError if the
        folder cannot be used.
        """
        self.folder = folder
        self.dropped: Counter[Reason] = Counter()
        """Number of dropped requests by reason; a damaged file of unknown content counts as one."""
        self._max_size = max_size
        self._max_age = max_age
        self._clock = clock
        self._form = form or format_of("metrics")
        self._settings = settings
        self._loss_level = loss_level
        self._turn = threading.RLock()
        self._warned: set[str] = set()
        self._closed = False
        self._in_hand = self._last = 0
        self._memory = QueueStorage(None)
        self._disk: QueueStorage | None = None
        self._lock: FolderLock | None = None
        if folder is not None:
            try:
                self._lock = FolderLock(folder, LOCK)
            except OSError as error:  # a full disk
                self._warn_no_disk(error)
        self._disk = self._opened()
        if self._disk is None:
            # Above every id that the disk may contain, because the requests there are older.
            self._last = int(clock() * 1000)
        self._newest = self._last

    def append(self, requests: Sequence[Request]) -> list[int]:
        """Append all of the requests or none; return their ids."""
        with self._turn:
            now = self._clock()
            stored = [
                StoredRequest(self._last + number, now, request) for number, request in enumerate(requests, 1)
            ]
            if stored:
                self._newest, self._last = stored[0].id, stored[-1].id
                if self._on_disk(lambda disk: disk.add(stored)):
                    self._warned.discard("disk")
                    self._from_memory()
                else:
                    self._memory.add(stored)
                self._trim(now)
            return [candidate.id for candidate in stored]

    def take(self) -> StoredRequest | None:
        """Return the oldest request and protect it from dropping until `remove` or `give_back`, or None."""
        with self._turn:
            self._trim(self._clock())
            head = self.after(0)
            self._in_hand = head.id if head else 0
            return head

    def after(self, number: int) -> StoredRequest | None:
        """Return the oldest request after the request with this id; None if there is none."""
        with self._turn:
            while oldest := self._oldest(number):
                storage, head, _ = oldest
                try:
                    return storage.read(head)
                except DamagedRowError as error:
                    self._drop(storage, error)
                    number = head
                except STORAGE_ERRORS as error:
                    if not self._replaced(error):
                        break
            return None

    def give_back(self) -> None:
        """Return the taken request to the queue."""
        with self._turn:
            self._in_hand = 0

    def remove(self, number: int) -> None:
        """Remove the finished request with this id."""
        with self._turn:
            self._in_hand = 0
            if not self._memory.remove(number, number):
                self._on_disk(lambda disk: disk.settle(number))
            if self.empty:
                self._warned -= {"age", "size"}

    @property
    def empty(self) -> bool:
        """Whether the queue is empty."""
        with self._turn:
            return self._oldest(0) is None

    @property
    def requests(self) -> int:
        """Number of queued requests."""
        with self._turn:
            return sum(storage.requests for storage in self._storages())

    @property
    def size(self) -> int:
        """Size of the queued requests in bytes."""
        with self._turn:
            return sum(storage.size for storage in self._storages())

    @property
    def age(self) -> float:
        """Age of the oldest request in seconds; 0 if the queue is empty."""
        with self._turn:
            oldest = self._oldest(0)
            return max(0.0, self._clock() - oldest[2]) if oldest else 0.0

    @property
    def outlives(self) -> bool:
        """Whether all queued requests survive the end of the process."""
        with self._turn:
            return self.folder is not None and self.in_memory == 0

    @property
    def in_memory(self) -> int:
        """Number of queued requests that are lost at the end of the process."""
        with self._turn:
            gone = self._disk.requests if self._disk is not None and self._disk.is_gone else 0
            return self._memory.requests + gone

    def close(self) -> None:
        """Close the files and release the lock; requests on disk stay for the next process."""
        with self._turn:
            for storage in self._storages():
                storage.close()
            self._closed = True
            if self._lock is not None:
                self._lock.release()

    def _storages(self) -> Iterator[QueueStorage]:
        if not self._closed:
            if self._disk is not None:
                yield self._disk
            yield self._memory

    def _oldest(self, after: int) -> tuple[QueueStorage, int, float] | None:
        """Return the storage, id and time of the oldest request after an id; None if there is none."""
        while True:
            disk = self._disk
            head = [
                (storage, *first)
                for storage in list(self._storages())
                if (first := self._first(storage, after))
            ]
            if self._disk is disk:  # otherwise the storage was replaced during the search
                return min(head, key=lambda candidate: candidate[1], default=None)

    def _first(self, storage: QueueStorage, after: int) -> tuple[int, float] | None:
        while True:
            try:
                return storage.first(after)
            except DamagedRowError as error:
                self._drop(storage, error)
                after = error.number
            except STORAGE_ERRORS as error:
                self._replaced(error)
                return None

    def _trim(self, now: float) -> None:
        """Drop requests above the age limit, then above the size limit, except the request being sent.

        The size limit never drops the newest export.
        """
        self._on_disk(lambda disk: self._trim_storage(disk, self._max_size, now))
        if not self._closed:
            self._trim_storage(self._memory, min(self._max_size, MEMORY_BYTES), now)

    def _trim_storage(self, storage: QueueStorage, most: int, now: float) -> None:
        while first := self._first(storage, self._in_hand):
            number, at = first
            if now - at > self._max_age:
                storage.read(number)  # checks the row, because a damaged time would count as age
                reason: Reason = "age"
                why = self._settings.get("age", _IN_MEMORY)
                limit = f"is older than {format_duration(self._max_age)} ({why})"
            elif storage.size > most and number < self._newest:
                reason = "size"
                why = self._settings.get("size", _IN_MEMORY) if most == self._max_size else _IN_MEMORY
                limit = f"is more than {most / 2**20:g} MiB ({why})"
            else:
                return
            storage.remove(number, number)
            self.dropped[reason] += 1
            if reason not in self._warned:
                self._warned.add(reason)
                message = "%s: the waiting data %s; the oldest is dropped"
                self._form.logger.log(self._loss_level, message, self._form.export, limit)

    def _on_disk(self, action: Callable[[QueueStorage], None]) -> bool:
        """Run `action` on the storage on disk; return whether it succeeded."""
        if self._disk is None or self._closed:
            self._disk = self._opened()
        elif self._is_gone():
            self._begin_again(self._disk)
        if self._disk is None:
            return False
        try:
            action(self._disk)
        except DamagedRowError as error:
            self._drop(self._disk, error)
            return False
        except STORAGE_ERRORS as error:
            if is_damage(error):
                self._set_aside(error)
            else:
                self._warn_no_disk(error)
            return False
        return True

    def _opened(self, *, new: bool = False) -> QueueStorage | None:
        """Open the storage on disk; set a damaged file aside and begin a new one, unless it is `new`."""
        if self.folder is None or self._closed:
            return None
        try:
            self._lock = self._lock or FolderLock(self.folder, LOCK)
            storage = QueueStorage(self.folder / _FILE)
        except (ConfigError, *STORAGE_ERRORS) as error:
            if new or not is_damage(error):
                self._warn_no_disk(error)
                return None
            self._set_aside(error)
            return self._disk
        self._last = max(self._last, storage.last)
        return storage

    def _is_gone(self) -> bool:
        """Return whether the folder or its files were removed while in use."""
        locked = self._lock is None or self._lock.is_there
        return not locked or (self._disk is not None and self._disk.is_gone)

    def _begin_again(self, old: QueueStorage) -> None:
        """Create the folder again and move the requests of the open, removed files to it."""
        logger.warning("the files in %s were removed while in use; they are created again", self.folder)
        if self._lock is not None:
            self._lock.release()
        self._lock = self._disk = None
        if old.has_name:
            old.close()  # the file can then be opened by its name again
        self._disk = self._opened()
        self._move(old.rescue())
        old.close()

    def _replaced(self, error: Exception) -> bool:
        """Set the file aside if the read error shows that it is damaged; return whether that was done."""
        if is_damage(error, reading=True):
            return self._set_aside(error)
        self._warn_no_disk(error)
        return False

    def _set_aside(self, error: Exception) -> bool:
        """Begin a new file with the readable requests of the damaged file; return whether that succeeded."""
        if self.folder is None:
            raise error  # there is no file to move
        old, self._disk = self._disk, None
        names = (name for name in _SET_ASIDE if not (self.folder / name).exists())
        aside = self.folder / next(names, _SET_ASIDE[-1])
        try:
            move(self.folder / _FILE, aside)
        except OSError as why:
            self._disk = old
            self._warn_no_disk(why)
            return False
        self._disk = self._opened(new=True)
        moved, lost = self._move(salvage(aside) if old is None else old.rescue())
        # The number of requests in a file that could not be opened is unknown.
        lost = max(0, old.requests - moved) if old is not None else lost or int(not moved)
        if old is not None:
            old.close()
        self.dropped["damaged"] += lost
        logger.warning(
            "the spool in %s is damaged (%s): moved to %s, and a new one created; %s saved, %s%d lost",
            self.folder,
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
                if self._disk is None:
                    raise OSError
                self._disk.add(batch)
            except STORAGE_ERRORS:
                self._memory.add(batch)
            moved += len(batch)
            self._last = max(self._last, batch[-1].id)
        return moved, lost

    def _from_memory(self) -> None:
        """Move the requests in memory to the disk, which works again."""
        if self._memory.requests:
            waiting = [stored for stored in self._memory.rescue() if stored is not None]
            if self._on_disk(lambda disk: disk.add(waiting)):
                self._memory.remove(0, self._last)

    def _drop(self, storage: QueueStorage, error: DamagedRowError) -> None:
        """Drop one damaged request."""
        try:
            storage.remove(error.number, error.number)
        except STORAGE_ERRORS as why:
            self._warn_no_disk(why)  # the request is skipped now and removed later
            return
        self.dropped["damaged"] += 1
        logger.warning("one request in %s is damaged and lost: %s", self.folder, error)

    def _warn_no_disk(self, error: Exception) -> None:
        self._warn("disk", "requests cannot be stored in %s and stay in memory: %s", self.folder, error)

    def _warn(self, condition: str, message: str, *arguments: object) -> None:
        """Log a warning once until the condition is over."""
        if condition not in self._warned:
            self._warned.add(condition)
            logger.warning(message, *arguments)
