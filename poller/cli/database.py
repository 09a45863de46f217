"""Database session of the commands that connect once; signals close it and end the process."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import typer

from poller.cli.targets import place_of
from poller.config.settings import Settings
from poller.daemon.build import open_replica
from poller.daemon.signals import StopSignal
from poller.model.errors import PollError
from poller.model.target import Target
from poller.postgres.admission import Admission
from poller.postgres.replica import Replica
from poller.tools.doctor.server import unreachable

_STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class DatabaseSession:
    """Database of one command; its replica connects when it is first used."""

    replica: Replica
    target: Target
    place: str
    """The database, without secrets."""

    def explain(self, error: PollError) -> str:
        """Return why there is no connection, and how to fix it."""
        diagnostic = self.target.of_diagnostic(unreachable(error, self.place))
        return f"{diagnostic.message}; {diagnostic.advice}"


@contextmanager
def database_session(
    settings: Settings, target: Target, admission: Admission | None = None, *, interactive: bool = False
) -> Iterator[DatabaseSession]:
    """Provide the replica of `target` and close it at the end.

    Without `admission`, no property of the server stops the command. Log records are suppressed, because the
    caller reports failures. SIGINT and SIGTERM cancel the running statement and end the process with 128 and
    the signal's number. If `interactive`, Python's own handlers remain, so that a signal interrupts a
    question at the terminal.
    """
    logger = logging.getLogger("poller")
    level, handlers = logger.level, {number: signal.getsignal(number) for number in _STOPS}
    if settings.log_level != "debug":
        logger.setLevel(logging.CRITICAL)
    replica = open_replica(settings, target, admission or Admission.unconditional(target))
    stop = None if interactive else StopSignal(replica.interrupt)
    try:
        yield DatabaseSession(replica, target, place_of(settings, target))
    finally:
        replica.close()
        logger.setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if stop is not None and stop.number is not None:
            raise typer.Exit(128 + stop.number)


def admission_of(target: Target) -> Admission:
    """Return the daemon's conditions without `warn`, because the command prints its own warning."""
    if target.require_standby == "warn":
        target = replace(target, require_standby="false")
    return Admission.of(target)
