"""Database session of the commands that connect once; signals close it and end the process."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import typer

from poller.config.settings import Settings
from poller.daemon.signals import StopSignal
from poller.model.errors import PollError
from poller.postgres.cancellation import CancelToken
from poller.postgres.connection import Connection
from poller.postgres.password import password_from

_STOPS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class DatabaseVisit:
    """Database session of one command; it connects when it is first used."""

    session: Connection
    cancel_token: CancelToken
    lock_timeout: float
    place: str
    """The database, without secrets."""

    def refused(self, error: PollError) -> str:
        """Return why there is no connection, and how to fix it."""
        from poller.tools.doctor.server import unreachable  # imported here because it loads the SQL parser

        finding = unreachable(error, self.place)
        return f"{finding.message}; {finding.advice}"


@contextmanager
def visiting(settings: Settings, *, asks: bool = False) -> Iterator[DatabaseVisit]:
    """Provide a database session and close it at the end; raises ConfigError if no database is configured.

    Log records are suppressed, because the caller reports failures. SIGINT and SIGTERM cancel the running
    statement and end the process with 128 and the signal's number. With `asks`, Python's own handlers remain,
    so that a signal interrupts a question at the terminal.
    """
    settings.conninfo()
    logger = logging.getLogger("poller")
    level, handlers = logger.level, {number: signal.getsignal(number) for number in _STOPS}
    if settings.log_level != "debug":
        logger.setLevel(logging.CRITICAL)
    cancel_token = CancelToken()
    stop = None if asks else StopSignal(cancel_token.cancel)
    session = session_of(settings, cancel_token)
    try:
        yield DatabaseVisit(session, cancel_token, settings.lock_timeout, place_of(settings))
    finally:
        session.close()
        cancel_token.close()
        logger.setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if stop is not None and stop.number is not None:
            raise typer.Exit(128 + stop.number)


def session_of(settings: Settings, cancel_token: CancelToken) -> Connection:
    """Return a connection for the settings; it is not opened yet."""
    command = settings.password_command
    return Connection(
        settings.conninfo,
        cancel_token,
        connect_timeout=settings.connect_timeout,
        password=password_from(command.reveal()) if command else None,
    )


def place_of(settings: Settings) -> str:
    """Return the database's address without secrets."""
    return settings.text_of("database_url") or "libpq environment"
