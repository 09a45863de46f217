"""Checks of the database for `doctor`, on one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poller.cli.database import place_of
from poller.config.settings import Settings
from poller.model.diagnostics import Diagnostic
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.tick import ticks
from poller.postgres.replica import Replica
from poller.terminal.progress import Progress
from poller.tools.doctor import queries, server, standby

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poller.postgres.server_tracker import ServerInfo


def examine_database(
    replica: Replica,
    server_infos: Sequence[ServerInfo],
    definitions: Sequence[QueryDefinition],
    settings: Settings,
    progress: Progress,
) -> list[Diagnostic]:
    """Run the checks; an unreachable database or a lost connection is a finding as well.

    `replica` appends each server that it has reached to `server_infos`.
    """
    place = place_of(settings)
    try:
        catalogue = server.read_catalogue(replica.opener, definitions)
        strict = replica.opener.admission.strict
        server_diagnostics = server.examine(catalogue, replica.connection, place=place, strict=strict)
    except PollError as error:
        return [server.unreachable(error, place)]
    answers = {
        answer.query.name: answer
        for tick in ticks(definitions, settings.instance)
        for answer in replica.fetch(tick.queries, progress.done)
    }
    costs, functions = queries.planned(replica.opener, list(answers.values()))
    standby_diagnostics = standby.examine(
        server_infos[-1],
        catalogue.values["settings"],
        definitions,
        require_standby=settings.require_standby,
        max_lag=settings.max_replay_lag,
    )
    query_diagnostics = [
        queries.examine(answers[query.name], costs.get(query.name), settings.max_duty_cycle)
        for query in definitions
    ]
    return [*server_diagnostics, *standby_diagnostics, *queries.volatile(functions), *query_diagnostics]
