"""Checks of a target's database for `doctor`, on one connection."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from poller.cli.targets import place_of
from poller.config.settings import Settings
from poller.model.diagnostics import Diagnostic
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import Answer
from poller.model.target import Target
from poller.model.tick import ticks
from poller.postgres.replica import Replica
from poller.terminal.progress import Progress
from poller.tools.doctor import discovery as discovery_of_server
from poller.tools.doctor import queries, server, standby

if TYPE_CHECKING:
    from poller.cli.selection import Discovery
    from poller.postgres.server_tracker import ServerInfo


class Examined(NamedTuple):
    """The diagnostics of one target."""

    target: Target
    diagnostics: Sequence[Diagnostic]
    busy: float = 0.0
    """Share of the time, 0 to 1 or more, that its polls need a connection."""
    error: PollError | None = None
    """Set if the database cannot be reached."""


def unreached(settings: Settings, target: Target, error: PollError) -> Examined:
    """Return the finding about a database that cannot be reached."""
    place = place_of(settings, target)
    return Examined(target, [server.unreachable(error, place)], error=error)


def with_list(examined: Examined, discovery: Discovery) -> Examined:
    """Add the finding about the list of databases of the target's server."""
    listed, declared = discovery.databases, discovery.target.databases
    if listed is None or declared is None:
        diagnostic = Diagnostic("error", "databases", discovery.reason)
    else:
        diagnostic = discovery_of_server.examine(listed, declared)
    return examined._replace(diagnostics=[*examined.diagnostics, diagnostic])


def examine_database(
    target: Target,
    replica: Replica,
    server_infos: Sequence[ServerInfo],
    definitions: Sequence[QueryDefinition],
    settings: Settings,
    progress: Progress | None,
) -> Examined:
    """Run the checks; an unreachable database or a lost connection is a finding as well.

    `replica` appends each server that it has reached to `server_infos`.
    """
    place = place_of(settings, target)
    since = time.monotonic()
    try:
        catalogue = server.read_catalogue(replica.opener, definitions)
        server_diagnostics = server.examine(
            catalogue,
            replica.connection,
            place=place,
            strict=target.strict,
            connections=target.connections,
            max_active=target.max_active_backends,
        )
    except PollError as error:
        return unreached(settings, target, error)
    connecting = time.monotonic() - since
    answers: dict[str, Answer] = {}
    busy = 0.0
    for tick in ticks(definitions, target.name or settings.instance):
        since = time.monotonic()
        fetched = replica.fetch(tick.queries, progress.done if progress else lambda _: None)
        # A target of a server with several targets connects for every tick.
        busy += (connecting + time.monotonic() - since) / tick.interval
        answers.update((answer.query.name, answer) for answer in fetched)
    planned = queries.planned(replica.opener, list(answers.values()))
    standby_diagnostics = standby.examine(
        server_infos[-1],
        catalogue.values["settings"],
        definitions,
        require_standby=target.require_standby,
        max_lag=target.max_replay_lag,
    )
    query_diagnostics = [
        queries.examine(answers[query.name], planned, settings.max_duty_cycle) for query in definitions
    ]
    diagnostics = [
        *server_diagnostics, *standby_diagnostics, *queries.volatile(planned.functions), *query_diagnostics
    ]  # fmt: skip
    return Examined(target, diagnostics, busy)
