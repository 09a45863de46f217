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
"""The settings that say which queries there are, and what they are where they do not say so themselves."""
DATABASE = ("database_url", "password_command", "connect_timeout", "lock_timeout")
"""Those that a visit to the database takes."""
QueryFiles = Annotated[
    list[str] | None,
    typer.Argument(
        help="Query files and folders, shipped and extended too; by default those of POLLER_QUERIES.",
        autocompletion=folders,
    ),
]
"""Argument of commands that read other query files than the daemon's."""


def with_settings(*names: str, warn: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Hand a command the loaded settings as its parameter `settings`, and give it the options for `names`.

    `@with_settings("interval")` adds `--interval`, which beats POLLER_INTERVAL; so that they cannot drift,
    name and help are made from the field. Without names every setting is an option. The command's other
    parameters stay its own. With `warn`, what looks like a mistake in the environment is told on stderr: for
    commands that log nothing. The command made so raises ConfigError with every problem of the settings.
    """
    wanted = names or tuple(Variables.model_fields)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True).parameters
        options = {name: _parameter(name) for name in wanted}

        @functools.wraps(command)
        def loaded(**given: Any) -> None:
            settings = load(os.environ, {name: given.pop(name) for name in options})
            for warning in settings.warnings if warn else ():
                typer.echo(one_line(warning), err=True)
            command(settings=settings, **given)

        kept = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, each in own.items()
            if name != "settings"
        ]
        parameters = [*kept, *options.values()]
        # typer reads both; `__wrapped__` would lead it past them to the bare command.
        del loaded.__wrapped__
        loaded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # PEP 362 allows it
        loaded.__annotations__ = {each.name: each.annotation for each in parameters}
        return loaded

    return decorate


def _parameter(name: str) -> inspect.Parameter:
    field = Variables.model_fields[name]
    told = [f"variable {variables(field)[0]}"]
    default = field.default if field.default_factory is None else None
    if default not in (None, ""):
        told.append(f"default {format_value(name, default)}")
    text = f"{field.description} [{'; '.join(told)}]"
    if is_secret(field):
        first = variables(field)[0]
        text += f" As an option it shows in `ps`: better set {first}, or {first}_FILE to a file with it."
    declared = typer.Option(
        option(name),
        help=text,
        metavar=_metavar(name, field.annotation),
        show_default=False,
        autocompletion=values(name, _words(field.annotation)),
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, declared]
    )


def _metavar(name: str, annotation: Any) -> str:
    if name in ("max_duty_cycle", "spool_max_size", "max_result_size"):
        return "SHARE" if name == "max_duty_cycle" else "SIZE"
    if choices := _words(annotation):
        return "|".join(choices)
    kinds = {float: "DURATION", int: "NUMBER"}
    return next((kinds[one] for one in (annotation, *get_args(annotation)) if one in kinds), "TEXT")


def _words(annotation: Any) -> tuple[str, ...]:
    """All that may be written, where that is a list."""
    parts = (annotation, *get_args(annotation))
    return tuple(one for part in parts for one in _choices(part))


def _choices(annotation: Any) -> tuple[str, ...]:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if annotation is bool:
        return ("true", "false")
    return get_args(annotation) if get_origin(annotation) is Literal else ()
