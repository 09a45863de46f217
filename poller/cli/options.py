"""Decorator that gives a command one option per setting it uses."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from poller.cli.completion import folders, values
from poller.config.environment import is_secret, variables
from poller.config.load_settings import load
from poller.config.settings import format_value, option
from poller.config.settings_schema import Variables
from poller.model.printable import one_line

FILES = ("queries", "interval", "timeout", "max_series", "namespace")
"""Settings that choose the query files, and the defaults of their queries."""
DATABASE = ("database_url", "password_command", "connect_timeout", "lock_timeout")
"""Settings that a command with one database connection needs."""
QueryFiles = Annotated[
    list[str] | None,
    typer.Argument(
        help="Query files and folders, or shipped and extended (default: POLLER_QUERIES).",
        autocompletion=folders,
    ),
]
"""Argument of commands that may read other query files than the daemon."""


def with_settings(*names: str, warn: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Pass the loaded settings to a command as its parameter `settings`, and add the options for `names`.

    `@with_settings("interval")` adds `--interval`, which overrides POLLER_INTERVAL. Name and help of the
    option come from the setting's field. Without `names`, every setting becomes an option. The command keeps
    its other parameters. With `warn`, likely mistakes in the environment are printed to stderr, for commands
    that do not log. The decorated command raises ConfigError with every problem of the settings.
    """
    selected = names or tuple(Variables.model_fields)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        options = {name: _parameter(name) for name in selected}

        @functools.wraps(command)
        def loaded(**arguments: Any) -> None:
            settings = load(os.environ, {name: arguments.pop(name) for name in options})
            for warning in settings.warnings if warn else ():
                typer.echo(one_line(warning), err=True)
            command(settings=settings, **arguments)

        own_parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in own.items()
            if name != "settings"
        ]
        parameters = [*own_parameters, *options.values()]
        # typer reads both attributes; with `__wrapped__` it would read the undecorated command instead.
        del loaded.__wrapped__
        loaded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # PEP 362 allows it
        loaded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return loaded

    return decorate


def _parameter(name: str) -> inspect.Parameter:
    field = Variables.model_fields[name]
    notes = [f"variable {variables(field)[0]}"]
    default = field.default if field.default_factory is None else None
    if default not in (None, ""):
        notes.append(f"default {format_value(name, default)}")
    text = f"{field.description} [{'; '.join(notes)}]"
    if is_secret(field):
        first = variables(field)[0]
        text += f" The option is visible in `ps`; set {first} or {first}_FILE instead."
    declared = typer.Option(
        option(name),
        help=text,
        metavar=_metavar(name, field.annotation),
        show_default=False,
        autocompletion=values(name, _choices(field.annotation)),
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, declared]
    )


def _metavar(name: str, annotation: Any) -> str:
    if name in ("max_duty_cycle", "spool_max_size", "max_result_size"):
        return "SHARE" if name == "max_duty_cycle" else "SIZE"
    if choices := _choices(annotation):
        return "|".join(choices)
    kinds = {float: "DURATION", int: "NUMBER"}
    return next((kinds[kind] for kind in (annotation, *get_args(annotation)) if kind in kinds), "TEXT")


def _choices(annotation: Any) -> tuple[str, ...]:
    """Return all accepted values, if there is a fixed list of them."""
    parts = (annotation, *get_args(annotation))
    return tuple(choice for part in parts for choice in _choices_of(part))


def _choices_of(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if annotation is bool:
        return ("true", "false")
    return get_args(annotation) if get_origin(annotation) is Literal else ()
