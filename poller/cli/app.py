"""Typer application with all commands; each command's module is loaded when it is invoked."""

from __future__ import annotations

import gc
import importlib
import re
from typing import Annotated, Any

import typer
import typer.core
import typer.main
from typer.exceptions import TyperException

from poller.cli.help import epilog, reworded
from poller.terminal.exit import run_to_end

COMMANDS = {
    "run": "Poll on schedule and push until SIGTERM or SIGINT.",
    "poll": "Poll every query once and print the values.",
    "try": "Run a statement once and print a query file for it.",
    "new": "Write queries for the usual aggregates of a table.",
    "check": "Report every mistake in the query files and targets.",
    "schema": "Print the JSON Schema of the files, for editors.",
    "test": "Test the queries on your own rows, without your database.",
    "import": "Convert the queries of another tool into query files.",
    "grants": "Print the privileges that the query files need, as SQL.",
    "doctor": "Check database, role, queries and collector; suggest fixes.",
    "catalog": "Print the catalogue of all metrics, of queries and events.",
    "conform": "Compare a server's OTLP output with the catalogue.",
    "receive": "Receive OTLP and print it, in place of a collector.",
    "health": "Report whether the poller on this host is alive or ready.",
    "dashboard": "Write a Grafana dashboard from the query files.",
    "alerts": "Write Prometheus alerting rules from the query files.",
    "watch": "Show a running poller live in the terminal.",
    "demo": "Run a complete setup: server, standby, daemon, receiver.",
    "settings": "Print every effective setting, its source and its meaning.",
}
"""Commands in the order of the root's help, as a table, so that the help imports no command."""

_MODULES = {"health": "health_help", "import": "import_", "try": "try_"}
"""Commands whose module has another name: `health` runs without typer, `import` and `try` are keywords."""
_LEFT_OVER = re.compile(r"(unexpected extra argument|No such option)\S* .*", re.DOTALL)
_NOT_REPEATED = r"\1, omitted here because it may be part of a secret; quote a value that contains blanks"

app = typer.Typer(
    name="poller",
    help="Poll SQL aggregates on a PostgreSQL read replica and push them as OpenTelemetry gauges.",
    epilog=epilog(""),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Later(typer.core.TyperCommand):
    """A command in listings, which loads and runs `poller.cli.<module>.<module>` when it is invoked."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        name = _MODULES.get(str(self.name), str(self.name))
        module = importlib.import_module(f"poller.cli.{name}")
        gc.freeze()
        gc.enable()
        alone = typer.Typer(
            rich_markup_mode=None,
            add_completion=False,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        from poller.cli.options import SettingsCommand

        alone.command(self.name, cls=SettingsCommand, epilog=epilog(str(self.name)))(getattr(module, name))
        command = typer.main.get_command(alone)
        arguments = list(args)  # the parser removes its arguments from the list
        try:
            return command.make_context(info_name, args, parent, **extra)
        except TyperException as error:
            if _secret_options().intersection(argument.partition("=")[0] for argument in arguments):
                # `--database-url host=x password=y`, unquoted: the extra argument may be the secret.
                error.message = _LEFT_OVER.sub(_NOT_REPEATED, error.message)
            error.message = reworded(
                error.message, arguments, getattr(getattr(error, "param", None), "opts", ())
            )
            names = {name for parameter in command.params for name in parameter.opts}
            by_option = "--queries" in names and all(name.startswith("-") for name in names)
            if by_option and "unexpected extra argument" in error.message:
                error.message += "; write query files as --queries FILES"
            raise


def _secret_options() -> set[str]:
    """Return the options whose value may contain a secret: those of settings, and `--database` of `test`."""
    from poller.config.settings import SETTINGS

    return {"--database", *(setting.option for setting in SETTINGS.values() if setting.sensitive)}


def _never_called() -> None:
    """Function of every listed command; `_Later` runs the real one."""


for _name, _help in COMMANDS.items():
    app.command(_name, help=_help, cls=_Later)(_never_called)


def _version(requested: bool) -> None:
    if requested:
        from importlib import metadata

        try:
            number = metadata.version("obscura-poller")
        except metadata.PackageNotFoundError:
            number = "(not installed)"
        typer.echo(f"poller {number}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the command line and end the process with its exit code."""
    run_to_end(app)
