"""Queue of undelivered OTLP requests, oldest first, bounded by size and age."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from poller.model.duration import format_duration
from poller.otlp.queue_database import STORAGE_ERRORS, DamagedRowError, StoredRequest
from poller.otlp.queue_folder import QueueFolder, Reason
from poller.otlp.queue_storage import QueueStorage
from poller.otlp.request import Request
from poller.otlp.signals import SignalFormat, format_of

MEMORY_BYTES = 8 * 2**20
"""Maximum size in bytes of the requests that are kept in memory because the disk cannot be used."""
SETTINGS: Mapping[Reason, str] = {"age": "POLLER_SPOOL_MAX_AGE", "size": "POLLER_SPOOL_MAX_SIZE"}
"""Settings that limit the queue."""

_IN_MEMORY = "stored in memory, not on disk"


class SendingQueue:
    """The queued requests, oldest first, bounded by size and age; thread-safe.

    A request is on disk when `append` returns. If the disk cannot store it (because it is full, for
    example), the request is kept in memory and delivered in the same order. The newest export is kept at any
    size. `QueueFolder` handles damaged and removed files.
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
        """Open the queue in `folder`, creating it if it is missing; None keeps everything in memory.

        `max_size` is in bytes of requests, `max_age` in seconds; log records name the `settings` that define
        them. `form` is the form of the signal, by default of metrics; `loss_level` is the log level of the
        first dropped request. Raises StateInUseError if another process uses this queue, ConfigError if the
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
        self._warned: set[Reason] = set()
        self._closed = False
        self._in_hand = 0
        self._memory = QueueStorage(None)
        self._disk = QueueFolder(folder, self._memory, self.dropped)
        # If the disk could not be read, above every id that it may contain, because those are older.
        self._newest = self._last = self._disk.last if self._disk.last >= 0 else int(clock() * 1000)

    def append(self, requests: Sequence[Request]) -> list[int]:
        """Append all of the requests or none; return their ids."""
        with self._turn:
            now = self._clock()
            last = max(self._last, self._disk.last)
            stored = [
                StoredRequest(last + number, now, request) for number, request in enumerate(requests, 1)
            ]
            if stored:
                self._newest, self._last = stored[0].id, stored[-1].id
                if self._disk.add(stored):
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
                except STORAGE_ERRORS as error:
                    if not self._disk.recover(error, reading=True):
                        break
                    number = head if isinstance(error, DamagedRowError) else number
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
                self._disk.settle(number)
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
            return self._memory.requests + self._disk.in_removed_files

    def close(self) -> None:
        """Close the files and release the lock; requests on disk stay for the next process."""
        with self._turn:
            self._closed = True
            self._disk.close()
            self._memory.close()

    def _storages(self) -> Sequence[QueueFolder | QueueStorage]:
        """Return the disk first, because it moves requests to memory if it turns out to be damaged."""
        return () if self._closed else (self._disk, self._memory)

    def _oldest(self, after: int) -> tuple[QueueFolder | QueueStorage, int, float] | None:
        """Return the storage, id and time of the oldest request after an id; None if there is none."""
        heads = [(storage, *first) for storage in self._storages() if (first := storage.first(after))]
        return min(heads, key=lambda head: head[1], default=None)

    def _trim(self, now: float) -> None:
        """Drop requests above the age limit, then above the size limit, except the request being sent.

        The size limit never drops the newest export.
        """
        self._disk.change(lambda: self._trim_storage(self._disk, self._max_size, now))
        if not self._closed:
            self._trim_storage(self._memory, min(self._max_size, MEMORY_BYTES), now)

    def _trim_storage(self, storage: QueueFolder | QueueStorage, most: int, now: float) -> None:
        while first := storage.first(self._in_hand):
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

    def _from_memory(self) -> None:
        """Move the requests in memory to the disk, which works again."""
        if self._memory.requests:
            waiting = [stored for stored in self._memory.rescue() if stored is not None]
            if self._disk.add(waiting):
                for stored in waiting:  # not all, because `add` may have moved others to memory
                    self._memory.remove(stored.id, stored.id)
