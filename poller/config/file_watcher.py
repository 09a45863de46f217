"""Watcher that reloads query files and targets after a change or on request."""

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

CHECK_SECONDS = 10.0
"""Seconds between two checks of the files."""
SETTLE_SECONDS = 2.0
"""Seconds from a check that finds a change to the check that finds it complete."""

Fingerprint = tuple[object, ...]
"""Equal if no file has changed."""


def fingerprint(sources: Sequence[Path]) -> Fingerprint:
    """Return the file status of every query file of `sources`; links are followed."""
    return tuple((str(file), _state(file)) for file in _files(sources))


def contents(sources: Sequence[Path]) -> bytes:
    """Return a digest of the contents, or read errors, of the query files of `sources`."""
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
    """A thread that checks the files every few seconds, and reloads them after a change is complete.

    It polls because notifications (inotify, as in watchfiles and watchdog) miss changes: if a link above the
    file changes (a Kubernetes ConfigMap), if the folder is replaced, if the target of a link is written, and
    on network mounts.
    """

    def __init__(
        self,
        fingerprint: Callable[[], Fingerprint],
        reload: Callable[[bool], bool],
        *,
        watch: bool = True,
        interval: float = CHECK_SECONDS,
        settle: float = SETTLE_SECONDS,
        initial: Fingerprint | None = None,
    ) -> None:
        """Take the first fingerprint with `fingerprint`, unless the caller passes it as `initial`.

        Create the watcher before the files are read, so that it misses no change. `reload` is called with
        whether the reload was requested; it returns false if the files changed while it read them. Without
        `watch`, only `request_reload` starts a reload. The watcher checks the files every `interval` seconds,
        and again `settle` seconds after a check that found a change.
        """
        self._fingerprint = fingerprint
        self._reload = reload
        self._current = fingerprint() if initial is None else initial
        self._watch = watch
        self._interval = interval
        self._settle = settle
        # The only queue whose `put` is reentrant, as a signal handler needs.
        self._requests: SimpleQueue[bool] = SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._go, name="watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def request_reload(self) -> None:
        """Request a reload, whether or not the files changed; safe in a signal handler."""
        self._requests.put(True)

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread; wait at most `timeout` seconds for a running reload."""
        self._stopping = True
        self.request_reload()
        self._thread.join(timeout)

    def _go(self) -> None:
        previous, requested = self._current, False
        while True:
            pending = requested or (self._watch and previous != self._current)
            pause = self._settle if pending else self._interval if self._watch else None
            requested = self._wait(pause) or requested
            if self._stopping:
                return
            try:
                current = self._fingerprint()
                # Two equal fingerprints: the writer has finished or has paused for `settle` seconds.
                if requested or (self._watch and current != self._current and current == previous):
                    requested = not self._reload(requested)
                    self._current = self._current if requested else current
                previous = current
            except Exception:  # a defect must not end the watcher
                logger.exception("the configuration could not be reloaded")
                requested = False

    def _wait(self, seconds: float | None) -> bool:
        """Wait `seconds` (None: forever) for a request; return whether there was one."""
        try:
            self._requests.get(timeout=seconds)
        except Empty:
            return False
        while not self._requests.empty():
            self._requests.get()
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
