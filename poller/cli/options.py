"""Decorator that gives a command one option per setting it uses."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
import typer.core

from poller.cli.completion import folders, targets, values
from poller.config.load_settings import load
from poller.config.setting import Setting
from poller.config.settings import SETTINGS, Settings
from poller.model.diagnostics import invalid
from poller.model.duration import parse_duration
from poller.model.errors import ConfigError
from poller.model.printable import one_line

if TYPE_CHECKING:
    from poller.tools.draft.save import DraftSettings

FILES = ("queries", "interval", "timeout", "max_series", "max_cost", "namespace")
"""Settings that choose the query files, and the defaults of their queries."""
DATABASE = ("database_url", "targets", "password_command", "connect_timeout", "lock_timeout")
"""Settings that a command with a database connection needs."""
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="PATTERN",
        help="Use only this target of POLLER_TARGETS; * and ? match; repeatable.",
        autocompletion=targets,
    ),
]
"""Option of commands that work on any number of targets."""
TargetName = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="Target of POLLER_TARGETS whose database is used.",
        autocompletion=targets,
    ),
]
"""Option of commands that work on one database."""
QueryFiles = Annotated[
    list[str] | None,
    typer.Argument(
        help="Query files and folders, or shipped and extended (default: POLLER_QUERIES).",
        autocompletion=folders,
    ),
]
"""Argument of commands that may read other query files than the daemon."""
ReportFormat = Annotated[
    Literal["text", "json"], typer.Option(help="Output: text for people, json for programs.")
]
"""Option of commands that print checks."""
Listening = Annotated[
    str | None,
    typer.Option("--for", metavar="DURATION", help="How long to listen (default: until Ctrl-C)."),
]
ListenAddress = Annotated[str, typer.Option(help="Address to listen on.")]
GrpcPort = Annotated[int, typer.Option(min=0, max=65535, help="Port for OTLP/gRPC; 0: a free port.")]
HttpPort = Annotated[int, typer.Option(min=0, max=65535, help="Port for OTLP/HTTP; 0: a free port.")]
"""Options of commands that receive OTLP."""


def seconds_to_listen(duration: str | None) -> float | None:
    """Return the seconds of the option `--for`; raises ConfigError."""
    if duration is None:
        return None
    try:
        return float(parse_duration(duration))  # type: ignore[arg-type] # it is a number for a text
    except ValueError as error:
        raise ConfigError([invalid("--for", str(error))]) from None


def draft_settings(settings: Settings) -> DraftSettings:
    """Return the settings on which a query of `new` or `try` depends."""
    from poller.tools.draft.save import DraftSettings

    values = {
        "interval": settings.text_of("interval"),
        "timeout": settings.text_of("timeout"),
        "max_series": settings.max_series,
    }
    options = {key: value for key, value in values.items() if settings.source(key).kind == "option"}
    return DraftSettings(settings.queries, settings.defaults, options)


def port_in_use(command: str, error: OSError) -> ConfigError:
    """Return the error of a receiver that cannot listen."""
    return ConfigError([invalid(command, f"{error}; set --grpc-port and --http-port; 0 chooses a free port")])


class SettingsCommand(typer.core.TyperCommand):
    """A command whose `--help` lists its own options, and whose `--help-settings` lists those of settings."""

    settings_only = False

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the help of the options; the parser and completion know all of them."""
        params = self.params
        self.params = [param for param in params if (param.name in SETTINGS) == self.settings_only]
        try:
            super().format_options(ctx, formatter)
        finally:
            self.params = params


def _print_help_of_settings(context: typer.Context, requested: bool) -> None:
    if requested:
        context.command.settings_only = True  # type: ignore[attr-defined] # it is a SettingsCommand
        typer.echo(context.get_help())
        raise typer.Exit


_HelpSettings = Annotated[
    bool,
    typer.Option(
        "--help-settings",
        is_eager=True,
        callback=_print_help_of_settings,
        help="Print the options of settings and exit.",
    ),
]


def with_settings(*names: str, warn: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Pass the loaded settings to a command as its parameter `settings`, and add the options for `names`.

    `@with_settings("interval")` adds `--interval`, which overrides POLLER_INTERVAL. The setting's declaration
    gives the option's help. Without `names`, every setting becomes an option. The command keeps its other
    parameters. With `warn`, likely mistakes in the environment are printed to stderr, for commands
    that do not log. The decorated command raises ConfigError with every problem of the settings.
    """
    selected = names or tuple(SETTINGS)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        options = {name: _parameter(SETTINGS[name]) for name in selected}

        @functools.wraps(command)
        def loaded(**arguments: Any) -> None:
            del arguments["help_settings"]
            settings = load(os.environ, {name: arguments.pop(name) for name in options})
            for warning in settings.warnings if warn else ():
                typer.echo(one_line(warning), err=True)
            command(settings=settings, **arguments)

        own_parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in own.items()
            if name != "settings"
        ]
        listing = inspect.Parameter(
            "help_settings", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_HelpSettings
        )
        parameters = [*own_parameters, *options.values(), listing]
        # typer reads both attributes; with `__wrapped__` it would read the undecorated command instead.
        del loaded.__wrapped__
        loaded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # PEP 362 allows it
        loaded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return loaded

    return decorate


def _parameter(setting: Setting) -> inspect.Parameter:
    notes = [f"variable {setting.variables[0]}"]
    if default := setting.format(setting.default):
        notes.append(f"default {default}")
    text = f"{setting.meaning} [{'; '.join(notes)}]"
    if setting.secret:
        first = setting.variables[0]
        text += f" The option is visible in `ps`; set {first} or {first}_FILE instead."
    declared = typer.Option(
        setting.option,
        help=text,
        metavar=_metavar(setting),
        show_default=False,
        autocompletion=values(setting.name, setting.choices),
    )
    return inspect.Parameter(
        setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, declared]
    )


def _metavar(setting: Setting) -> str:
    if get_origin(setting.type) is Annotated:
        return str(get_args(setting.type)[1])
    return "|".join(setting.choices) or ("NUMBER" if setting.type is int else "TEXT")
