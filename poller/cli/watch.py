"""Command `watch`: live view of a running poller in the terminal."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated

import typer

from poller.cli.options import Targets, with_settings
from poller.cli.watch_view.show import show_live, show_once
from poller.cli.watch_view.source import PollerStatus, ReadStatus, running_poller
from poller.config.settings import Settings
from poller.daemon.health import places
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.patterns import matches_any, select_targets

logger = logging.getLogger(__name__)

_LINES = 20


@with_settings()
def watch(
    settings: Settings,
    poll: Annotated[
        bool,
        typer.Option("--poll", help="Poll in this process, without pushing; do not watch a poller."),
    ] = False,
    target: Targets = None,
) -> None:
    """Show every query of the poller on this host: state, values, changes, age, next run, last error.

    With several targets it lists them; Enter opens one and Esc goes back. --target limits the list, or opens
    the target of that name. Reads the heartbeat of `poller run`, so it needs no database, but the same host
    and the same POLLER_STATE_DIR or POLLER_HEALTH_FILE (or the same user). With --poll, it polls by itself.
    Press `q` or Ctrl-C to quit. Without a terminal, it prints the state once (not with --poll). Exit code 0:
    the poller is alive; 1: it is not; 2: the configuration is invalid.
    """
    from poller.terminal.console import open_console

    console = open_console()
    patterns = target or []
    if not poll:
        read_status = running_poller(places(settings.health_file, settings.state_dir))
        show = show_live if console.is_terminal else show_once
        opened = _opened(read_status(), patterns)
        raise typer.Exit(0 if show(console, _selected(read_status, patterns), opened) else 1)
    if not console.is_terminal:
        raise ConfigError([invalid("--poll", "needs a terminal; run `poller poll` to print one poll")])
    with _polling(settings, patterns) as read_status:
        show_live(console, read_status, _opened(read_status(), patterns))


def _opened(poller: PollerStatus, patterns: Sequence[str]) -> str:
    """Return the target that the patterns name; empty if they are none, or several, or no name.

    Raises ConfigError for a pattern that matches no target of a poller whose targets are known.
    """
    if patterns and poller.good and poller.targets is None:
        raise ConfigError([invalid("--target", "needs targets, but this poller has a single database")])
    if not patterns or not poller.targets:
        return ""
    names = select_targets(patterns, [target.name for target in poller.targets])
    return patterns[0] if names == {patterns[0]} else ""


def _selected(read_status: ReadStatus, patterns: Sequence[str]) -> ReadStatus:
    """Return a reader of the targets that match any of `patterns`, also of those that are added later."""

    def read_selected() -> PollerStatus:
        poller = read_status()
        if not patterns or poller.targets is None:
            return poller
        targets = [target for target in poller.targets if matches_any(target.name, patterns)]
        return replace(poller, targets=targets)

    return read_selected


@contextmanager
def _polling(settings: Settings, patterns: Sequence[str]) -> Iterator[ReadStatus]:
    """Poll in this process without pushing."""
    from poller.cli.selection import reader, select_targets
    from poller.cli.targets import require_targets
    from poller.config.load import open_configuration
    from poller.daemon.heartbeat_details import summarize
    from poller.daemon.scheduler import PollScheduler
    from poller.daemon.server_queues import QueueConfig
    from poller.daemon.target_factory import TargetFactory
    from poller.daemon.target_pollers import TargetPollers
    from poller.postgres.cancellation import CancelToken
    from poller.telemetry.logging import configure

    log_lines = _LogLines()
    configure("text", settings.log_level, log_lines)
    for warning in settings.warnings:
        logger.warning(warning)
    require_targets(settings, patterns)
    configuration = open_configuration(settings)
    targets = configuration.targets
    if patterns:
        read = reader(settings, CancelToken())
        selected = select_targets(settings, patterns, targets, read, settings.max_connections).targets
        servers = {target.name for target in selected if target.databases is not None}
        # A selected server lists its databases itself.
        targets = tuple(
            target
            for target in selected
            if target.name in servers or target.name.partition("/")[0] not in servers
        )
    factory = TargetFactory(settings, push=False)
    scheduler = PollScheduler(QueueConfig(settings.max_connections))
    pollers = TargetPollers(factory, scheduler)
    pollers.apply(replace(configuration, targets=targets))

    def read_status() -> PollerStatus:
        state = "polling in this process, pushing nothing"
        if (only := pollers.only) is not None:
            statuses = only.cycle.statuses(scheduler.next_runs())
            return PollerStatus(True, state, only.cycle.server(), statuses, log_lines.lines())
        read = [
            summarize(poller, time.monotonic())._replace(
                statuses=poller.cycle.statuses(scheduler.next_runs(poller.name)), omitted=0
            )
            for poller in pollers
        ]
        return PollerStatus(True, state, "", (), log_lines.lines(), targets=read)

    scheduler.start()
    try:
        yield read_status
    finally:
        at_rest = scheduler.stop(factory.interrupt, settings.grace_period)
        if at_rest:
            for poller in pollers:
                poller.retire()
        else:  # a worker that waits for an unresponsive server would delay the exit
            sys.stdout.flush()
            os._exit(1 if sys.exc_info()[0] else 0)


class _LogLines(io.StringIO):
    """Text stream that keeps only the last lines."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=_LINES)

    def write(self, text: str) -> int:
        self._lines += text.splitlines()
        return len(text)

    def lines(self) -> list[str]:
        return list(self._lines)
