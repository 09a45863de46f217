"""Write down every few seconds that the poller lives, for probes that have no port to ask."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from poller.health import clock, is_ours, judge, process_namespace, read

logger = logging.getLogger(__name__)


class Heartbeat:
    """A file that always holds one whole heartbeat.

    Where it cannot be written the poller goes on without, and says so once.
    """

    def __init__(self, places: Sequence[Path]) -> None:
        """Write to the first of `places` that lets us (see `poller.health.places`)."""
        self._places = tuple(places)
        self._written: Path | None = None
        self._told = ""
        self._identity = {"version": 1, "pid": os.getpid(), "process_namespace": process_namespace()}

    @property
    def path(self) -> Path | None:
        """Where it stands; None while it could not be written."""
        return self._written

    def write(self, told: Mapping[str, object], more: bytes = b"{}") -> None:
        """Put down `told`, with the time and who we are, and `more`: a JSON object. Raises nothing."""
        beat = {**self._identity, "boottime": clock(), "at": time.time(), **told}
        text = json.dumps(beat, default=str).encode()
        if more != b"{}":
            text = text[:-1] + b", " + more[1:]
        private = len(self._places) > 1
        troubles = []
        for path in self._places:
            if path != self._written and (is_ours(path.parent) or not private):
                _look_for_another(path)
            try:
                _write(path, text, private=private)
            except OSError as error:
                troubles.append(f"{path}: {error.strerror or error}")
            else:
                self._say("", path)
                return
        self._say("; ".join(troubles), None)

    def remove(self) -> None:
        """Leave no heartbeat of a poller that has ended."""
        if self._written is None:
            return
        with contextlib.suppress(OSError):
            self._written.unlink()
            if len(self._places) > 1:
                self._written.parent.rmdir()  # which we made, unless somebody put more into it

    def _say(self, trouble: str, written: Path | None) -> None:
        if trouble and trouble != self._told:
            logger.info(
                "`poller health` will not work, as no heartbeat can be written (%s); "
                "set POLLER_HEALTH_FILE to a place that can be",
                trouble,
            )
        elif written is not None and written != self._written:
            logger.debug("heartbeat at %s", written)
        self._told, self._written = trouble, written


def _look_for_another(path: Path) -> None:
    there = read([path])
    if (
        not isinstance(there, str)
        and there["pid"] != os.getpid()
        and judge(there, ready=False, now=clock()).good
    ):
        logger.warning(
            "another poller (process %d) leaves its heartbeat at %s as well, so that neither can be told; "
            "give each a POLLER_HEALTH_FILE of its own",
            there["pid"],
            path,
        )


def _write(path: Path, text: bytes, *, private: bool) -> None:
    """Replace `path` whole; `private`: in a folder that is ours, which is made where it is missing."""
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(mode=0o700 if private else 0o777)
    if private and not is_ours(path.parent):
        raise PermissionError(0, "the folder is somebody else's")
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(text)
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
