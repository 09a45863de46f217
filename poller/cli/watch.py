"""Command `watch`: live view of a running poller in the terminal."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from poller.cli.options import with_settings
from poller.cli.watch_view.show import show_live, show_once
from poller.cli.watch_view.source import PollerStatus, ReadStatus, running_poller
from poller.config.settings import Settings
from poller.daemon.health import places
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError

logger = logging.getLogger(__name__)

_LINES = 20


@with_settings()
def watch(
    settings: Settings,
    poll: Annotated[
        bool,
        typer.Option("--poll", help="Poll in this process, without pushing; do not watch a poller."),
    ] = False,
) -> None:
    """Show every query of the poller on this host: state, values, changes, age, next run, last error.

    Reads the heartbeat of `poller run`, so it needs no database, but the same host and the same
    POLLER_STATE_DIR or POLLER_HEALTH_FILE (or the same user). With --poll, it polls by itself. Press `q` or
    Ctrl-C to quit. Without a terminal, it prints the state once (not with --poll). Exit code 0: the poller is
    alive; 1: it is not; 2: the configuration is invalid.
    """
    from poller.terminal.console import open_console

    console = open_console()
    if not poll:
        show = show_live if console.is_terminal else show_once
        raise typer.Exit(
            0 if show(console, running_poller(places(settings.health_file, settings.state_dir))) else 1
        )
    if not console.is_terminal:
        raise ConfigError([invalid("--poll", "needs a terminal; run `poller poll` to print one poll")])
    with _polling(settings) as read_status:
        show_live(console, read_status)


@contextmanager
def _polling(settings: Settings) -> Iterator[ReadStatus]:
    """Poll in this process without pushing."""
    from poller.config.queries.load import open_catalog
    from poller.daemon.build import open_cycle
    from poller.daemon.scheduler import PollScheduler
    from poller.model.tick import ticks
    from poller.polling.store import ResultStore
    from poller.telemetry.logging import configure

    news = _News()
    configure("text", settings.log_level, news)
    for warning in settings.warnings:
        logger.warning(warning)
    catalog = open_catalog(settings)
    cycle = open_cycle(settings, catalog.queries, ResultStore(catalog.queries))
    scheduler = PollScheduler(ticks(catalog.queries, settings.instance), cycle.run, rest=cycle.source.rest)

    def read_status() -> PollerStatus:
        statuses = cycle.statuses(scheduler.next_runs())
        return PollerStatus(
            True, "polling in this process, pushing nothing", cycle.server(), statuses, news.lines()
        )

    scheduler.start()
    try:
        yield read_status
    finally:
        at_rest = scheduler.stop(cycle.source.interrupt, settings.grace_period)
        if at_rest:
            cycle.source.close()
        else:  # a worker that waits for an unresponsive server would delay the exit
            sys.stdout.flush()
            os._exit(1 if sys.exc_info()[0] else 0)


class _News(io.StringIO):
    """Text stream that keeps only the last lines."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=_LINES)

    def write(self, text: str) -> int:
        self._lines += text.splitlines()
        return len(text)

    def lines(self) -> list[str]:
        return list(self._lines)
