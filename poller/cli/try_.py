"""Command `try`: one run of a statement as in a poll, and a query file for it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from poller.cli.options import DATABASE, FILES, TargetName, with_settings
from poller.config.settings import Settings
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError, PollError
from poller.model.printable import one_line


@with_settings(*FILES, *DATABASE, "require_standby", "max_replay_lag", "strict", "sql_comments", warn=True)
def try_(
    settings: Settings,
    sql: Annotated[
        str | None, typer.Argument(metavar="SQL", help="SQL statement (default, or -: read it from stdin).")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the query, and of its metric if it has only one."),
    ] = None,
    target: TargetName = None,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append the query to this file, or create it.")
    ] = None,
    format: Annotated[  # noqa: A002 - the option is called --format everywhere
        Literal["yaml", "json"],
        typer.Option(help="Output: yaml (query file) or json (with rows, types, cost and time)."),
    ] = "yaml",
) -> None:
    """Run a statement once, as a poll would, and print a query file for it.

    The safeguards of a poll apply: a read-only transaction, timeouts, the limits on role and lag. The query
    file goes to stdout; rows, metrics, cost and time go to stderr. Exit code 0: it ran; 1: it did not run, or
    feeds no metric; 2: the statement is not read-only, a name is in use, or the configuration is invalid.
    """
    # Imported here because shell completion waits for the imports of the module.
    from poller.cli.database import admission_of, database_session
    from poller.cli.targets import the_target
    from poller.cli.try_statement import StatementPreview
    from poller.terminal.console import open_console, say
    from poller.tools.check.rules import refusal
    from poller.tools.draft.from_statement import NoDraftError

    text = _statement(sql)
    console = open_console(stderr=True)
    chosen = the_target(settings, target)
    with database_session(settings, chosen, admission_of(chosen)) as session:
        try:
            StatementPreview(settings, chosen, session, text, console).run(name, write, format)
        except PollError as error:
            if error.kind == "unavailable":
                say(console, session.explain(error), "red")
            else:
                say(console, refusal(error, text, in_file=False), "red")
                console.print(_marked(text, error.position), markup=False, end="", soft_wrap=True)
            raise typer.Exit(1) from None
        except NoDraftError as error:
            say(console, str(error), "red")
            raise typer.Exit(1) from None


def _statement(sql: str | None) -> str:
    """Return the SQL from the argument or stdin; raises ConfigError unless it is one read-only statement."""
    from poller.config.queries.sql_check import statement_problem

    if sql is None and sys.stdin.isatty():
        example = 'poller try "SELECT count(*) AS users FROM users"'
        raise ConfigError(
            [invalid("SQL", f"is missing; write it as an argument or to stdin, for example {example}")]
        )
    text = sys.stdin.read() if sql in (None, "-") else str(sql)
    text = text.strip()
    if "--" not in text.rpartition("\n")[2]:
        text = text.rstrip("; \t\r\n")
    if problem := statement_problem(text):
        raise ConfigError([invalid("SQL", problem)])
    return text if "\n" not in text else f"{text}\n"


def _marked(sql: str, position: int | None) -> str:
    """The line of `sql` with the error, and a mark below the position; empty without a position."""
    if position is None:
        return ""
    from poller.config.queries.query_file import spot_in

    line, column = spot_in(sql, position)
    text = sql.split("\n")[line - 1].replace("\t", " ")
    before = one_line(text[: column - 1])
    return f"  {before}{one_line(text[column - 1 :])}\n  {' ' * len(before)}^\n"
