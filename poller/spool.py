"""Keep what could not be delivered, and hand it out again in order."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from poller.definition import format_duration
from poller.encoding import Request
from poller.folderlock import FolderLock
from poller.shelf import SHELF_ERRORS, Kept, Shelf, is_damage

logger = logging.getLogger(__name__)

MEMORY_BYTES = 8 * 2**20
"""Most bytes of requests that are kept where there is no disk to keep them on."""
Reason = Literal["age", "size", "damaged"]

_FILE = "spool.db"
_SET_ASIDE = "spool.damaged.db"
_PARTS = ("", "-wal")


class Spool:
    """The requests that wait, oldest first, bounded by size and age; safe to use from any thread.

    A request is on the disk when `append` returns. Where the disk takes nothing (it is full, say) it is kept
    in memory, and goes out in its turn all the same. A file that is damaged is set aside and a new one begun.
    The newest export is kept however large it is.
    """

    def __init__(
        self, folder: Path | None, *, max_size: int, max_age: float, clock: Callable[[], float] = time.time
    ) -> None:
        """Open the spool in `folder`, which is made where it is missing; None keeps everything in memory.

        `max_size` is in bytes of requests, `max_age` in seconds. Raises StateInUseError where another process
        has this spool, ConfigError where the folder cannot be used.
        """
        self.folder = folder
        self.dropped: Counter[Reason] = Counter()
        """Requests that will never be delivered; a damaged file counts as one."""
        self._max_size = max_size
        self._max_age = max_age
        self._clock = clock
        self._turn = threading.RLock()
        self._told: set[str] = set()
        self._closed = False
        self._settled = self._in_hand = 0
        self._lock = FolderLock(folder, "spool.lock") if folder is not None else None
        self._memory = Shelf(None)
        self._disk: Shelf | None = None
        self._disk = self._opened()
        # Without the disk, above every id that may turn up on it: what is there is older.
        self._last = self._disk.last if self._disk is not None else int(clock() * 1000)
        self._newest = self._last

    def append(self, requests: Sequence[Request]) -> list[int]:
        """Keep requests, all or none, behind what waits already; returns their ids."""
        with self._turn:
            now = self._clock()
            kept = [Kept(self._last + number, now, request) for number, request in enumerate(requests, 1)]
            if kept:
                self._newest, self._last = kept[0].id, kept[-1].id
                if self._on_disk(lambda disk: disk.add(kept)):
                    self._told.discard("disk")
                else:
                    self._memory.add(kept)
                self._trim(now)
            return [one.id for one in kept]

    def take(self) -> Kept | None:
        """The oldest request, which is not dropped until `settle` or `give_back`; None where none waits."""
        with self._turn:
            self._trim(self._clock())
            found = self.behind(self._settled)
            self._in_hand = found.id if found else 0
            return found

    def behind(self, number: int) -> Kept | None:
        """The oldest request behind the one with this id; None where none waits."""
        with self._turn:
            while oldest := self._oldest(number):
                shelf, found, _ = oldest
                try:
                    return shelf.read(found)
                except SHELF_ERRORS as error:
                    # What else such a file holds cannot be trusted either.
                    self._set_aside(error)
            return None

    def give_back(self) -> None:
        """The request that was taken goes on waiting."""
        with self._turn:
            self._in_hand = 0

    def settle(self, number: int) -> None:
        """The request with this id, and all before it, are done with."""
        with self._turn:
            self._in_hand = 0
            self._settled = number
            # What cannot be removed now is never handed out again, and is removed with the next.
            self._on_disk(lambda disk: disk.remove(0, number))
            self._memory.remove(0, number)
            if self.empty:
                self._told -= {"age", "size"}

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        with self._turn:
            return self._oldest(self._settled) is None

    @property
    def requests(self) -> int:
        """Requests that wait."""
        with self._turn:
            return sum(shelf.requests for shelf in self._shelves())

    @property
    def size(self) -> int:
        """Bytes of what waits."""
        with self._turn:
            return sum(shelf.size for shelf in self._shelves())

    @property
    def age(self) -> float:
        """Seconds since the oldest request was made; 0 where none waits."""
        with self._turn:
            oldest = self._oldest(self._settled)
            return max(0.0, self._clock() - oldest[2]) if oldest else 0.0

    @property
    def outlives(self) -> bool:
        """Whether all that waits will be there after the end of the process."""
        with self._turn:
            return self._disk is not None and not self._memory.requests

    def close(self) -> None:
        """Let go of the files; what waits on the disk is there for the next one."""
        with self._turn:
            for shelf in self._shelves():
                shelf.close()
            self._closed = True
            if self._lock is not None:
                self._lock.release()

    def _shelves(self) -> Iterator[Shelf]:
        if not self._closed:
            if self._disk is not None:
                yield self._disk
            yield self._memory

    def _oldest(self, after: int) -> tuple[Shelf, int, float] | None:
        """Where the oldest request behind an id is, its id, and when it was made."""
        found = []
        for shelf in list(self._shelves()):
            try:
                if first := shelf.first(after):
                    found.append((shelf, *first))
            except SHELF_ERRORS as error:
                self._set_aside(error)
        return min(found, key=lambda one: one[1], default=None)

    def _trim(self, now: float) -> None:
        """Drop what is too old, then what is too much; never what is in hand, nor of the newest export."""
        self._on_disk(lambda disk: self._trim_shelf(disk, self._max_size, now))
        if not self._closed:
            self._trim_shelf(self._memory, min(self._max_size, MEMORY_BYTES), now)

    def _trim_shelf(self, shelf: Shelf, most: int, now: float) -> None:
        while first := shelf.first(max(self._settled, self._in_hand)):
            number, at = first
            if now - at > self._max_age:
                reason: Reason = "age"
                limit = f"is older than {format_duration(self._max_age)} (POLLER_SPOOL_MAX_AGE)"
            elif shelf.size > most and number < self._newest:
                reason = "size"
                why = "POLLER_SPOOL_MAX_SIZE" if most == self._max_size else "kept in memory, not on disk"
                limit = f"is more than {most / 2**20:g} MiB ({why})"
            else:
                return
            shelf.remove(number, number)
            self.dropped[reason] += 1
            self._tell(reason, "what waits for the collector %s: the oldest is dropped", limit)

    def _on_disk(self, action: Callable[[Shelf], None]) -> bool:
        """Do something with the disk's shelf; whether it could be done."""
        if self._disk is None or self._closed:
            self._disk = self._opened()
        if self._disk is None:
            return False
        try:
            action(self._disk)
        except SHELF_ERRORS as error:
            if is_damage(error):
                self._set_aside(error)
            else:
                self._tell_no_disk(error)
            return False
        return True

    def _opened(self) -> Shelf | None:
        for _ in range(2):
            if self.folder is None or self._closed:
                break
            try:
                return Shelf(self.folder / _FILE)
            except SHELF_ERRORS as error:
                if not is_damage(error):
                    self._tell_no_disk(error)
                    break
                self._set_aside(error)
        return None

    def _set_aside(self, error: Exception) -> None:
        if self.folder is None:
            raise error  # what is in memory does not spoil
        if self._disk is not None:
            self._disk.close()
            self._disk = None
        try:
            for part in _PARTS:
                (self.folder / f"{_SET_ASIDE}{part}").unlink(missing_ok=True)
                if (self.folder / f"{_FILE}{part}").exists():
                    (self.folder / f"{_FILE}{part}").rename(self.folder / f"{_SET_ASIDE}{part}")
        except OSError as why:
            self._tell_no_disk(why)
            return
        self.dropped["damaged"] += 1
        logger.warning(
            "the spool in %s is damaged (%s): it is set aside as %s, a new one begun",
            self.folder,
            error,
            _SET_ASIDE,
        )

    def _tell_no_disk(self, error: Exception) -> None:
        self._tell("disk", "nothing can be kept in %s, so it is in memory for now: %s", self.folder, error)

    def _tell(self, what: str, message: str, *arguments: object) -> None:
        """Warn once of something that may go on for long."""
        if what not in self._told:
            self._told.add(what)
            logger.warning(message, *arguments)
