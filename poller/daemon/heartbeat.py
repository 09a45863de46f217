"""Heartbeat file, rewritten every few seconds for probes, which need no port."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from poller.daemon.health import (
    MAX_AGE_SECONDS,
    REMEDY,
    clock,
    describe,
    details_path,
    is_own_folder,
    judge,
    process_namespace,
    read,
)
from poller.model.files import replace_file

logger = logging.getLogger(__name__)


class Heartbeat:
    """A file that always holds one complete heartbeat.

    On a full disk the heartbeat overwrites the existing file, without the details of single queries. If it
    cannot be written at all, the poller continues without it and logs that once. If another poller writes
    the same file, this is logged once, and the heartbeat names the other poller.
    """

    def __init__(self, places: Sequence[Path], instance: str = "") -> None:
        """Write to the first of `places` that can be written (see `poller.daemon.health.places`)."""
        self._places = tuple(places)
        self._written: Path | None = None
        self._problem_logged = ""
        self._identity = {
            "version": 1,
            "pid": os.getpid(),
            "process_namespace": process_namespace(),
            "instance": instance,
        }
        self._state: tuple[int, ...] | None = None
        self._details: tuple[Path, tuple[int, ...] | None] | None = None
        self._other: tuple[str, float] | None = None
        self._warned: set[str] = set()

    @property
    def path(self) -> Path | None:
        """Path of the heartbeat; None while it cannot be written."""
        return self._written

    def write(self, content: Mapping[str, object], more: bytes = b"{}") -> None:
        """Write `content`, the time, the poller's identity, and `more` (a JSON object). Raises nothing."""
        private = len(self._places) > 1
        problems = []
        for path in self._places:
            if is_own_folder(path.parent) or not private:
                self._detect_another(path)
            try:
                _make_folder(path.parent, private=private)
                _write(
                    path,
                    self._encoded(content, more),
                    self._encoded({**content, "disk": "full"}, b"{}"),
                )
            except OSError as error:
                problems.append(f"{path}: {error.strerror or error}")
            else:
                self._state = _state(path)
                self._log_problem("", path)
                return
        self._log_problem("; ".join(problems), None)

    def write_details(self, encode: Callable[[Mapping[str, object]], bytes | None]) -> None:
        """Write the details file next to the heartbeat that was written last. Raises nothing.

        `encode` gets the poller's identity, and returns None if the file is up to date.
        """
        if self._written is None or (content := encode({**self._identity, "boottime": clock()})) is None:
            return
        path = details_path(self._written)
        # The heartbeat reports a full disk, and the next change is written as soon as it fits.
        with contextlib.suppress(OSError):
            replace_file(path, content)
            self._details = path, _state(path)

    def remove(self) -> None:
        """Remove the heartbeat at the end, unless another poller has replaced it."""
        if self._details is not None and _state(self._details[0]) == self._details[1]:
            with contextlib.suppress(OSError):
                self._details[0].unlink()
        if self._written is None or _state(self._written) != self._state:
            return
        with contextlib.suppress(OSError):
            self._written.unlink()
            if len(self._places) > 1:
                self._written.parent.rmdir()  # the poller's own folder; fails if it is not empty

    def _encoded(self, content: Mapping[str, object], more: bytes) -> bytes:
        now = clock()
        beat = {**self._identity, "boottime": now, "at": time.time(), **content}
        if self._other is not None and now - self._other[1] <= MAX_AGE_SECONDS:
            beat["shared_with"] = self._other[0]
        text = json.dumps(beat, default=str).encode()
        return text if more == b"{}" else text[:-1] + b", " + more[1:]

    def _detect_another(self, path: Path) -> None:
        state = _state(path)
        if state is None or state == self._state:
            return
        there = read([path])
        if isinstance(there, str) or self._is_this(there) or not judge(there, ready=False, now=clock()).good:
            return
        if self._state is None and there.get("process_namespace") != self._identity["process_namespace"]:
            return  # it may belong to this poller's previous container; only a later one shows another poller
        other = describe(there)
        self._other = other, clock()
        if other not in self._warned:
            self._warned.add(other)
            logger.warning(
                "another poller, %s, writes its heartbeat to %s as well, so `poller health` reports either "
                "poller; %s",
                other,
                path,
                REMEDY,
            )

    def _is_this(self, heartbeat: dict[str, Any]) -> bool:
        # In two containers that share a folder, both may be process 1.
        return all(heartbeat.get(key) == self._identity[key] for key in ("pid", "process_namespace"))

    def _log_problem(self, problem: str, written: Path | None) -> None:
        if problem and problem != self._problem_logged:
            logger.warning(
                "no heartbeat can be written, so `poller health` does not work (%s); "
                "set POLLER_HEALTH_FILE to a writable path",
                problem,
            )
        elif written is not None and written != self._written:
            logger.debug("heartbeat at %s", written)
        self._problem_logged, self._written = problem, written


def _write(path: Path, whole: bytes, short: bytes) -> None:
    """Replace the file's content by `whole`; on a full disk overwrite it with `short`. Raises OSError."""
    try:
        replace_file(path, whole)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # A full disk must not make a probe restart the poller; the file's own blocks are still writable.
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            usable = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.getuid()
            if not usable or len(short) > max(status.st_size, 512 * status.st_blocks):
                raise
            # Padded with blanks, because a shorter file would release blocks that cannot be allocated again.
            os.pwrite(descriptor, short.ljust(status.st_size), 0)
        finally:
            os.close(descriptor)


def _state(path: Path) -> tuple[int, ...] | None:
    """Return an id that changes whenever the file is replaced; None if the file is missing."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


def _make_folder(folder: Path, *, private: bool) -> None:
    """Create the folder if missing; raises OSError if a `private` folder is a link or another user's."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if private and not is_own_folder(folder):
        raise PermissionError(0, "the folder belongs to another user")
