"""Command `check`: validation of query files, on request also against a database."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import typer

from poller.cli.options import DATABASE, FILES, QueryFiles, with_settings
from poller.config.queries.files import named, resolve, unsearched
from poller.config.queries.load import build_catalog, open_files
from poller.config.queries.query_file import QueryFile
from poller.config.settings import Settings
from poller.model.catalog import Catalog
from poller.model.diagnostics import Diagnostic, failed, invalid
from poller.model.errors import ConfigError, PollError
from poller.model.text import counted
from poller.tools.check.result import RULES, CheckedQuery
from poller.tools.check.warnings import query_warnings
from poller.tools.test.discovery import check_cases

Format = Literal["text", "json", "github", "sarif"]


@with_settings(*FILES, *DATABASE, warn=True)
def check(
    settings: Settings,
    files: QueryFiles = None,
    database: Annotated[
        bool, typer.Option("--database", help="Also prepare each query on the server, without running it.")
    ] = False,
    max_cost: Annotated[
        float | None,
        typer.Option(metavar="COST", help="With --database: planner cost above which a query fails."),
    ] = None,
    large_table: Annotated[
        int,
        typer.Option(
            metavar="ROWS", min=0, help="With --database: row count from which a table counts as large."
        ),
    ] = 100_000,
    format: Annotated[  # noqa: A002 - the option is called --format everywhere
        Format, typer.Option(help="Output: text for people, json for programs, github and sarif for CI.")
    ] = "text",
) -> None:
    """Validate every query file and the test cases next to it, and report all problems at once.

    Each line is `file:line: path.to.key: problem; fix`. Warnings do not change the exit code. With
    --database, the server also reports whether each query would run and feed its metrics, and its cost. Exit
    code 0: no errors; 1: a query would fail on that database or costs more than --max-cost, or the database
    cannot be reached; 2: the files or the configuration are invalid.
    """
    if max_cost is not None and not database:
        raise ConfigError([invalid("--max-cost", "requires the server's planner; add --database")])
    if max_cost is not None and not max_cost > 0:  # rejects nan as well
        raise ConfigError([invalid("--max-cost", "is not above 0; write for example 100000")])
    if database:
        settings.conninfo()
    try:
        sources = [named(file) for file in files] if files else resolve(settings.queries)
        defaults = settings.defaults
        opened_files = open_files(sources)
        catalog = build_catalog(opened_files, defaults)
        check_cases(catalog.files, replace(defaults, namespace=""))
    except ConfigError as error:
        if format == "text":
            raise
        _write(format, error.problems)
        raise typer.Exit(2) from None
    warnings = query_warnings(opened_files)
    for folder in [folder for source in sources for folder in unsearched(source) if folder not in sources]:
        typer.echo(f"{folder}: not read, because folders are not searched recursively; name it", err=True)
    if not database:
        _write_valid(format, catalog, warnings)
        return
    others, checked = _check_on_server(
        settings, catalog, opened_files, max_cost=max_cost, large_table=large_table
    )
    others = [*warnings, *others]
    diagnostics = [*others, *(diagnostic for query in checked for diagnostic in query.diagnostics)]
    if format == "text":
        from poller.terminal.console import open_console
        from poller.terminal.diagnostics import count_problems, print_lines

        print_lines(open_console(), [*others, *(line for query in checked for line in query.lines())])
        typer.echo(f"{counted(len(checked), 'query')}: {count_problems(diagnostics)}")
    else:
        _write(format, diagnostics, checked)
    raise typer.Exit(1 if failed(diagnostics) else 0)


def _check_on_server(
    settings: Settings,
    catalog: Catalog,
    files: Sequence[QueryFile],
    *,
    max_cost: float | None,
    large_table: int,
) -> tuple[list[Diagnostic], list[CheckedQuery]]:
    """Check the queries on the server; return general diagnostics, and the result of each query."""
    from poller.cli.database import database_session
    from poller.config.queries.query_file import Origin
    from poller.postgres.inspect import inspect
    from poller.tools.check.rules import CostLimits, check_queries

    origins = {str(data["name"]): Origin(file, at) for file in files for at, data in file.queries()}
    limits = CostLimits(math.inf if max_cost is None else max_cost, large_table)
    with database_session(settings) as session:
        try:
            return [], inspect(
                session.replica.opener,
                lambda inspection: check_queries(catalog.queries, origins, inspection, limits),
                catalog.queries,
            )
        except PollError as error:
            where = settings.source("database_url").name
            return [Diagnostic("error", "database", session.explain(error), subject=where)], []


def _write(form: Format, diagnostics: Sequence[Diagnostic], checked: Sequence[CheckedQuery] = ()) -> None:
    from poller.terminal.diagnostics import to_github, to_json, to_sarif

    if form == "json":
        sys.stdout.write(to_json(diagnostics, [query.data() for query in checked]) + "\n")
    elif form == "sarif":
        from poller.daemon.build import version

        sys.stdout.write(to_sarif(diagnostics, RULES, version()) + "\n")
    else:
        sys.stdout.write(to_github(diagnostics))


def _write_valid(form: Format, catalog: Catalog, warnings: Sequence[Diagnostic]) -> None:
    """Write the result for valid files, with their warnings, if the database was not checked."""
    if form not in ("text", "github") or (form == "github" and warnings):
        _write(form, warnings)
        return
    if warnings:
        from poller.terminal.console import open_console
        from poller.terminal.diagnostics import print_lines

        print_lines(open_console(), warnings)
    read = ((catalog.files, "file"), (catalog.queries, "query"), (catalog.metrics, "metric"))
    result = counted(len(warnings), "warning") if warnings else "no problems"
    typer.echo(f"{', '.join(counted(len(items), thing) for items, thing in read)}: {result}")
