"""Trial run of one statement for `try`, and the query file for it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from poller.cli.database import DatabaseSession
from poller.cli.options import draft_settings
from poller.config.settings import Settings
from poller.model.errors import PollError
from poller.model.query import MetricDefinition, QueryDefinition
from poller.model.result import Answer
from poller.model.target import Target
from poller.polling.poll import to_result
from poller.postgres.inspect import CatalogFacts, Inspected, Inspection, inspect
from poller.terminal.console import say, warn
from poller.tools.draft.from_statement import Draft, closed, draft
from poller.tools.draft.preview import print_preview, to_json
from poller.tools.draft.save import (
    append_all,
    declare,
    define,
    names_in_use,
    refuse_conflicts,
    warn_of_conflicts,
)
from poller.tools.draft.yaml_writer import to_file

if TYPE_CHECKING:
    from rich.console import Console


class StatementPreview:
    """Trial run of one statement, and a query file for it."""

    def __init__(
        self, settings: Settings, target: Target, session: DatabaseSession, sql: str, console: Console
    ) -> None:
        self._settings = settings
        self._target = target
        self._drafting = draft_settings(settings)
        self._session = session
        self._sql = sql
        self._console = console
        self._superuser = self._standby = False

    def run(self, name: str | None, write: Path | None, form: Literal["yaml", "json"]) -> None:
        """Inspect, draft, run, print and save; raises PollError, NoDraftError and ConfigError."""
        settings = self._drafting
        inspected, facts = self._inspect()
        drafted = self._draft(inspected, facts, name, write)
        drafted = replace(drafted, query=declare(drafted.query, settings))
        (query,) = define([drafted.query], settings)
        if write is not None:
            refuse_conflicts(write, [drafted.query], settings)
        answer = self.answer(query)
        if answer.skipped is not None:
            say(self._console, f"not run: {answer.skipped.detail}", "red")
            raise typer.Exit(1)
        result = to_result(answer)
        if result.error is not None or answer.rows is None:
            raise result.error or PollError("mismatch", "the server returned no rows")
        self._warn_of_power()
        drafted = closed(drafted, answer.rows, facts.types)
        define([drafted.query], settings)
        if form == "json":
            sys.stdout.write(to_json(result, query, answer.rows, inspected, drafted, facts.types) + "\n")
        else:
            print_preview(self._console, result, answer.rows, inspected, drafted, facts.types)
            sys.stdout.write(to_file(drafted.query))
        sys.stdout.flush()
        if answer.rows.values and not result.samples:
            problem = "every row is omitted, so the query feeds no metric" + (
                f" and is not added to {write}" if write else ""
            )
            say(self._console, problem, "red")
            raise typer.Exit(1)
        if write is not None:
            append_all(write, [drafted.query], settings, self._console)
        else:
            warn_of_conflicts([drafted.query], settings, self._console)

    def _warn_of_power(self) -> None:
        if self._superuser:
            warning = (
                "this role is a superuser, which only the read-only transaction restricts; "
                "create a read-only role with deploy/role.sql"
            )
            warn(self._console, warning)

    def _draft(
        self, inspected: Inspected, facts: CatalogFacts, name: str | None, write: Path | None
    ) -> Draft:
        """Draft the query with the name `name`, or with one that no other query or metric has."""
        first = drafted = draft(self._sql, inspected.columns, facts.types, name)
        if name is not None:
            return drafted
        names, number = names_in_use(self._drafting, write), 1
        while names & {drafted.name, *(metric["name"] for metric in drafted.query["metrics"])}:
            number += 1
            drafted = draft(self._sql, inspected.columns, facts.types, f"{first.name[:60]}_{number}")
        if drafted is first:
            return drafted
        renamed = (
            f"{first.name!r} is in use, so the query is called {drafted.name!r}; choose a name with --name"
        )
        metrics = [
            {**metric, "description": plain["description"]}
            for metric, plain in zip(drafted.query["metrics"], first.query["metrics"], strict=True)
        ]
        return Draft({**drafted.query, "metrics": metrics}, (renamed, *drafted.doubts))

    def _inspect(self) -> tuple[Inspected, CatalogFacts]:
        """Inspect the statement if polls may use the server; exits with 1 if not."""
        opener, most = self._session.replica.opener, self._settings.max_series
        probe = QueryDefinition(name="try", sql=self._sql, metrics=(_PROBE,), max_series=most)

        def act(inspection: Inspection) -> tuple[Inspected, CatalogFacts]:
            refused = opener.admission.decide([probe], inspection.facts, inspection.lag, 0.0).get("try")
            if refused is not None:
                say(self._console, f"not run: {refused.detail}", "red")
                raise typer.Exit(1)
            (inspected,) = inspection.statements([self._sql])
            self._standby = inspection.facts.standby
            return inspected, inspection.known([inspected])

        inspected, facts = inspect(opener, act, [probe])
        if inspected.error is not None:
            raise inspected.error
        # The server reports it at every connect; a connection pooler may not pass it on.
        self._superuser = opener.connection.connection().info.parameter_status("is_superuser") == "on"
        return inspected, facts

    def answer(self, query: QueryDefinition) -> Answer:
        """Run the query once as a poll does; raises nothing."""
        (answer,) = self._session.replica.fetch([query])
        if not self._standby and self._target.require_standby == "warn":
            warn(self._console, "this server is a primary; poll a standby")
        return answer


_PROBE = MetricDefinition(name="x", description="x", unit="1", value_column="x")
"""Placeholder for metrics that are not drafted yet."""
