"""Checks of the database for `doctor`, on one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poller.cli.database import place_of, session_of
from poller.config.settings import Settings
from poller.model.diagnostics import Diagnostic
from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import Answer
from poller.model.tick import ticks
from poller.postgres.admission import Admission
from poller.postgres.batch import Batch
from poller.postgres.cancellation import CancelToken
from poller.postgres.replay_lag import Lag
from poller.terminal.progress import Progress
from poller.tools.doctor import queries, server
from poller.tools.doctor import standby as replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poller.postgres.server_tracker import ServerInfo


class Examination:
    """All checks of the database, on one connection."""

    def __init__(
        self,
        settings: Settings,
        queries: Sequence[QueryDefinition],
        cancel_token: CancelToken,
        *,
        strict: bool,
    ) -> None:
        self._settings = settings
        self._queries = queries
        self._cancel_token = cancel_token
        self._strict = strict
        self._session = session_of(settings, cancel_token)

    def findings(self, progress: Progress) -> list[Diagnostic]:
        """Run the checks; an unreachable database or a lost connection is a finding as well."""
        place = place_of(self._settings)
        try:
            catalogue = server.read_catalogue(
                self._session, self._cancel_token, self._settings.lock_timeout, self._queries
            )
            server_findings = server.examine(catalogue, self._session, place=place, strict=self._strict)
            return server_findings + self._through_the_queries(catalogue, progress)
        except PollError as error:
            return [server.unreachable(error, place)]
        finally:
            self._session.close()

    def _through_the_queries(self, catalogue: server.ServerCatalogue, progress: Progress) -> list[Diagnostic]:
        settings = self._settings
        # Without `warn`: the finding about a primary replaces the daemon's log record.
        admission = Admission(
            "true" if settings.require_standby == "true" else "false", settings.max_replay_lag
        )
        server_infos: list[ServerInfo] = []
        attempts = Batch(
            self._session,
            self._cancel_token,
            admission,
            settings.lock_timeout,
            server_infos.append,
            max_result_bytes=settings.max_result_size,
        )
        if self._strict and catalogue.facts.excess:
            # Like the daemon, send no query; the batch still collects the server's information.
            attempts.run([], progress.done, together=True)
            answers = self._refused(catalogue)
        else:
            answers = queries.run(attempts, ticks(self._queries, settings.instance), progress.done)
        costs, functions = queries.planned(
            self._session, self._cancel_token, settings.lock_timeout, list(answers.values())
        )
        findings = queries.volatile(functions) + [
            queries.examine(answers[query.name], costs.get(query.name), settings.max_duty_cycle)
            for query in self._queries
        ]
        if not server_infos:
            return findings
        replay_findings = replay.examine(
            server_infos[-1],
            catalogue.values["settings"],
            self._queries,
            require_standby=settings.require_standby,
            max_lag=settings.max_replay_lag,
        )
        return replay_findings + findings

    def _refused(self, catalogue: server.ServerCatalogue) -> dict[str, Answer]:
        lag = Lag(None, None, catalogue.facts.standby, None, "")
        skips = Admission("false", strict=True).decide(self._queries, catalogue.facts, lag, 0.0)
        return {query.name: Answer(query, 0.0, 0.0, skipped=skips[query.name]) for query in self._queries}
