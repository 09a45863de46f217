"""Watcher that reloads the query files after a change or on request."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

from poller.config.queries.files import MAX_BYTES, files_of
from poller.model.files import open_regular

logger = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
"""A change of a file waits for the next look; SIGHUP does not."""
SETTLE_SECONDS = 2.0
"""Between the look that finds a change and the one that finds it complete."""

Fingerprint = tuple[object, ...]
"""Equal where nothing was written in between."""


def fingerprint(sources: Sequence[Path]) -> Fingerprint:
    """What the system says of every query file of `sources`, through every link."""
    return tuple((str(file), _state(file)) for file in _files(sources))


def contents(sources: Sequence[Path]) -> bytes:
    """A digest of what is in the query files of `sources`, or why it cannot be read."""
    digest = hashlib.blake2b()
    for file in _files(sources):
        try:
            text = _start_of(file)
        except OSError as error:
            text = f"error {error.errno}".encode()
        digest.update(b"%s\0%d\0%s" % (os.fsencode(file), len(text), text))
    return digest.digest()


def _files(sources: Sequence[Path]) -> Iterator[Path]:
    for source in sources:
        try:
            yield from files_of(source)
        except OSError:
            yield source


class Watcher:
    """A thread that looks every few seconds, and acts once what it sees is new and does not move any more.

    It looks instead of being notified because that sees every change there is. A notification (inotify, as
    watchfiles and watchdog use it) comes for the file or folder that was there when the watch began: not when
    the link above it leads elsewhere (a file of a Kubernetes ConfigMap), when the folder is made anew, when a
    link's target is written, or on a network mount; so it would need the looks behind it all the same.
    """

    def __init__(
        self,
        look: Callable[[], Fingerprint],
        reload: Callable[[bool], bool],
        *,
        watch: bool = True,
        every: float = LOOK_SECONDS,
        settle: float = SETTLE_SECONDS,
        seen: Fingerprint | None = None,
    ) -> None:
        """Take the first look: make it before the files are read, so that no change is missed.

        Whoever has done so already hands in what was `seen`.
        `reload` is told whether somebody asked, and answers whether it is done: not if the files changed
        while they were read. Without `watch` only `ask` makes it act. It looks `every` so many seconds, and
        again `settle` seconds after a look that found something new.
        """
        self._look = look
        self._reload = reload
        self._seen = look() if seen is None else seen
        self._watch = watch
        self._every = every
        self._settle = settle
        # The one queue that a signal handler may put into while it interrupts itself.
        self._asked: SimpleQueue[bool] = SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._go, name="watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask(self) -> None:
        """Have the files read now, changed or not; safe in a signal handler."""
        self._asked.put(True)

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread; wait at most `timeout` seconds for what it does."""
        self._stopping = True
        self.ask()
        self._thread.join(timeout)

    def _go(self) -> None:
        last, asked = self._seen, False
        while True:
            moves = asked or (self._watch and last != self._seen)
            pause = self._settle if moves else self._every if self._watch else None
            asked = self._wait(pause) or asked
            if self._stopping:
                return
            try:
                now = self._look()
                # Two equal looks: the writer has finished, or has paused for `settle` seconds.
                if asked or (self._watch and now != self._seen and now == last):
                    asked = not self._reload(asked)
                    self._seen = self._seen if asked else now
                last = now
            except Exception:  # a defect of ours must not end the watching
                logger.exception("the query files could not be read again")
                asked = False

    def _wait(self, seconds: float | None) -> bool:
        """Wait until the next look, with None until it is asked for; whether it was."""
        try:
            self._asked.get(timeout=seconds)
        except Empty:
            return False
        while not self._asked.empty():
            self._asked.get()
        return True


def _state(file: Path) -> tuple[int, ...]:
    try:
        state = file.stat()
    except OSError as error:
        return (error.errno or 0,)
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _start_of(file: Path) -> bytes:
    with open_regular(file) as opened:
        return opened.read(MAX_BYTES + 1)
