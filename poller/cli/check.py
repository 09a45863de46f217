"""Command `check`: validation of query files and targets, on request also against a database."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple

import typer

from poller.cli.options import DATABASE, FILES, QueryFiles, Targets, with_settings
from poller.config.load import load_together
from poller.config.queries.files import named, resolve, unsearched
from poller.config.queries.load import open_files
from poller.config.queries.query_file import QueryFile
from poller.config.settings import Settings
from poller.config.targets.conflicts import unused_targets
from poller.config.targets.load import LocatedTarget
from poller.model.catalog import Catalog
from poller.model.diagnostics import Diagnostic, Severity, failed, invalid
from poller.model.errors import ConfigError, PollError
from poller.model.target import Target
from poller.model.text import counted, list_names
from poller.tools.check.result import RULES, CheckedQuery
from poller.tools.check.warnings import query_warnings
from poller.tools.test.discovery import check_cases

CheckFormat = Literal["text", "json", "github", "sarif"]

_MOST_SCHEDULES = 20
"""Maximum number of queries whose next runs are listed."""


@with_settings(*FILES, *DATABASE, warn=True)
def check(
    settings: Settings,
    files: QueryFiles = None,
    database: Annotated[
        bool, typer.Option("--database", help="Also prepare each query on the server, without running it.")
    ] = False,
    target: Targets = None,
    large_table: Annotated[
        int,
        typer.Option(
            metavar="ROWS", min=0, help="With --database: row count from which a table counts as large."
        ),
    ] = 100_000,
    format: Annotated[  # noqa: A002 - the option is called --format everywhere
        CheckFormat, typer.Option(help="Output: text for people, json for programs, github and sarif for CI.")
    ] = "text",
) -> None:
    """Validate every query file, the test cases next to it, and the targets; report all problems at once.

    Each line is `file:line: path.to.key: problem; fix`. Warnings do not change the exit code. With
    --database, the server of each target also reports whether each query would run and feed its metrics, and
    its cost. Exit code 0: no errors; 1: a query would fail on a database or costs more than its max_cost
    (--max-cost), or a database cannot be reached; 2: the files or the configuration are invalid.
    """
    if target and not database:
        raise ConfigError([invalid("--target", "selects the databases of --database; add --database")])
    if database:
        from poller.cli.targets import require_targets

        require_targets(settings, target)
        if settings.targets is None:
            settings.conninfo()
    if settings.leader_election is not None and settings.lease_name is None:
        from poller.daemon.build import open_lock

        open_lock(settings)  # it raises what the daemon would refuse at its start; nothing connects
    try:
        sources = [named(file) for file in files] if files else resolve(settings.queries)
        opened_files = open_files(sources)
        catalog, located = load_together(opened_files, settings)
        check_cases(catalog.files, replace(settings.defaults, namespace=""))
    except ConfigError as error:
        if format == "text":
            raise
        _write(format, error.problems)
        raise typer.Exit(2) from None
    warnings = query_warnings(opened_files, settings.defaults.interval)
    if not files:  # other files than the daemon's may be for other targets
        warnings += unused_targets(catalog, located)
    for folder in [folder for source in sources for folder in unsearched(source) if folder not in sources]:
        typer.echo(f"{folder}: not read, because folders are not searched recursively; name it", err=True)
    if not database:
        _write_valid(format, catalog, len(located), warnings)
        return
    results = _check_on_servers(settings, target, located, catalog, opened_files, large_table)
    checked = [query for result in results for query in result.queries]
    others = [*warnings, *(diagnostic for result in results for diagnostic in result.others)]
    diagnostics = [*others, *(diagnostic for query in checked for diagnostic in query.diagnostics)]
    if format == "text":
        from poller.terminal.console import open_console
        from poller.terminal.diagnostics import count_problems, print_lines

        print_lines(open_console(), [*warnings, *_lines(results)])
        _print_schedules(catalog)
        number = counted(len(checked), "query")
        if settings.targets is not None:
            number = f"{number} on {counted(len(results), 'target')}"
        typer.echo(f"{number}: {count_problems(diagnostics)}")
    else:
        _write(format, diagnostics, checked)
    raise typer.Exit(1 if failed(diagnostics) else 0)


class _OnServer(NamedTuple):
    """The queries as checked on one target, and the diagnostics of the target itself."""

    target: Target
    others: Sequence[Diagnostic] = ()
    queries: Sequence[CheckedQuery] = ()
    error: PollError | None = None
    """Set if the database cannot be reached."""

    def lines(self) -> list[Diagnostic]:
        """The diagnostics; a line for each accepted query, or for all queries of a target."""
        lines = [*self.others, *(line for query in self.queries for line in query.lines())]
        if not self.target.name:
            return lines
        problems = [line for line in lines if line.severity != "ok"]
        accepted = sum(query.state == "ok" and not failed(query.diagnostics) for query in self.queries)
        summary = Diagnostic(
            "ok", "accepted", f"{counted(accepted, 'query')} accepted", subject=self.target.name
        )
        return problems if problems and not accepted else [summary, *problems]


def _lines(results: Sequence[_OnServer]) -> Iterator[Diagnostic]:
    """Return the lines of all targets; databases of a server with equal lines have them once."""
    groups: dict[tuple[object, ...], list[_OnServer]] = {}
    for result in results:
        name = result.target.name
        server, slash, _ = name.partition("/")
        lines = (
            (line.severity, line.message, str(line.place), line.subject if line.subject != name else "")
            for line in result.lines()
        )
        groups.setdefault((f"{server}{slash}", *lines), []).append(result)
    for first, *others in groups.values():
        yield from first.lines()
        if others:
            names = list_names([result.target.name for result in others])
            severity: Severity = "error" if failed(first.lines()) else "ok"
            yield Diagnostic(severity, "equal", f"the same on {names}", subject=first.target.name)


def _check_on_servers(
    settings: Settings,
    patterns: Sequence[str] | None,
    located: Sequence[LocatedTarget],
    catalog: Catalog,
    files: Sequence[QueryFile],
    large_table: int,
) -> list[_OnServer]:
    """Check on each selected target the queries that run on it, on one connection after the other."""
    from poller.cli.database import database_session
    from poller.cli.selection import Discovery, discover, select_targets
    from poller.cli.targets import for_each
    from poller.config.queries.query_file import Origin
    from poller.postgres.inspect import inspect
    from poller.tools.check.rules import check_queries

    origins = {str(data["name"]): Origin(file, at) for file in files for at, data in file.queries()}

    def read(target: Target) -> Discovery:
        with database_session(settings, target) as session:
            return discover(target, session.replica)

    def check_on(target: Target) -> _OnServer:
        queries = [query for query in catalog.queries if target.runs(query)]
        failed = selection.failed(target.name)
        with database_session(settings, target) as session:
            try:
                if failed is not None:
                    if failed.unreachable is not None:
                        raise failed.unreachable
                    problem = Diagnostic("error", "database", failed.reason, subject=target.name)
                    return _OnServer(target, [problem])
                checked = inspect(
                    session.replica.opener,
                    lambda inspection: check_queries(queries, origins, inspection, large_table),
                    queries,
                )
            except PollError as error:
                where = target.name or settings.source("database_url").name
                problem = Diagnostic("error", "database", session.explain(error), subject=where)
                return _OnServer(target, [problem], error=error)
        return _OnServer(target, (), [_on(query, target) for query in checked])

    def skip(target: Target, error: PollError) -> _OnServer:
        message = f"not tried, because its server is unavailable: {error.message}"
        return _OnServer(target, [Diagnostic("error", "database", message, subject=target.name)])

    def unavailable(result: _OnServer) -> PollError | None:
        return result.error if result.error is not None and result.error.server_wide else None

    targets = [item.target for item in located] if settings.targets is not None else [settings.only_target()]
    selection = select_targets(settings, patterns, targets, read, 1)
    due = [
        target
        for target in selection.targets
        # A server whose list was read has been reached.
        if target.name not in selection.discoveries
        or selection.failed(target.name)
        or any(map(target.runs, catalog.queries))
    ]
    return for_each(due, 1, check_on, skip, unavailable) if due else []


def _on(query: CheckedQuery, target: Target) -> CheckedQuery:
    """Return `query` with the name of the target."""
    diagnostics = tuple(map(target.of_diagnostic, query.diagnostics))
    return replace(query, target=target.name, diagnostics=diagnostics)


def _write(
    form: CheckFormat, diagnostics: Sequence[Diagnostic], checked: Sequence[CheckedQuery] = ()
) -> None:
    from poller.terminal.diagnostics import to_github, to_json, to_sarif

    if form == "json":
        sys.stdout.write(to_json(diagnostics, [query.data() for query in checked]) + "\n")
    elif form == "sarif":
        from poller.daemon.build import version

        sys.stdout.write(to_sarif(diagnostics, RULES, version()) + "\n")
    else:
        sys.stdout.write(to_github(diagnostics))


def _write_valid(form: CheckFormat, catalog: Catalog, targets: int, warnings: Sequence[Diagnostic]) -> None:
    """Write the result for valid files, with their warnings, if the database was not checked."""
    if form not in ("text", "github") or (form == "github" and warnings):
        _write(form, warnings)
        return
    if warnings:
        from poller.terminal.console import open_console
        from poller.terminal.diagnostics import print_lines

        print_lines(open_console(), warnings)
    if form == "text":
        _print_schedules(catalog)
    read = [(len(catalog.files), "file"), (len(catalog.queries), "query"), (len(catalog.metrics), "metric")]
    if targets:
        read.append((targets, "target"))
    result = counted(len(warnings), "warning") if warnings else "no problems"
    typer.echo(f"{', '.join(counted(number, thing) for number, thing in read)}: {result}")


def _print_schedules(catalog: Catalog) -> None:
    """Print the next runs of the first queries with a schedule."""
    scheduled = [query for query in catalog.queries if query.schedule is not None]
    if not scheduled:
        return
    from poller.daemon.cron_trigger import next_runs

    now = time.time()
    for query in scheduled[:_MOST_SCHEDULES]:
        assert query.schedule is not None  # noqa: S101 # selected above
        runs = ", ".join(f"{run:%Y-%m-%d %H:%M %Z}" for run in next_runs(query.schedule, now, 3))
        typer.echo(f"{query.name}: next runs {runs}")
    if (more := len(scheduled) - _MOST_SCHEDULES) > 0:
        typer.echo(f"and {counted(more, 'more query')} with a schedule")
