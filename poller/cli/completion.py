"""Shell completion: names of queries and targets, packaged folders and values of settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import typer

from poller.model.errors import ConfigError
from poller.model.printable import one_line

_PACKAGED = ("shipped", "extended")


def queries(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of queries, valid or not, in the files of `--queries` or POLLER_QUERIES.

    Never raises or prints, because output would disturb the shell's prompt.
    """
    from poller.config.queries.files import resolve

    setting = context.params.get("queries") or os.environ.get("POLLER_QUERIES") or "shipped"
    try:
        return sorted({name for name in _names(resolve(str(setting))) if name.startswith(incomplete)})
    except (ConfigError, OSError):
        return []


def targets(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of targets, valid or not, in the files of `--targets` or POLLER_TARGETS.

    Never raises or prints, because output would disturb the shell's prompt.
    """
    from poller.config.targets.targets_file import TargetsFile

    setting = context.params.get("targets") or os.environ.get("POLLER_TARGETS")
    try:
        files = TargetsFile.open_all([Path(str(setting))]) if setting else []
        names = {item.get("name") for file in files for _, item in file.items()}
    except (ConfigError, OSError, TypeError):  # a name that is a list
        return []
    texts = [name for name in names if isinstance(name, str) and name == one_line(name)]
    return sorted(name for name in texts if name.startswith(incomplete))


def folders(incomplete: str) -> list[str]:
    """Return matching names of packaged folders; if there are none, the shell offers files."""
    return [name for name in _PACKAGED if incomplete and name.startswith(incomplete)]


def values(setting: str, choices: Sequence[str]) -> Callable[[str], list[str]]:
    """Return the completion function for the option of `setting`; `choices` are its fixed values, if any."""
    if setting == "queries":
        return folders
    return lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]


def _names(sources: Sequence[Path]) -> Iterator[str]:
    from poller.config.queries.files import files_of
    from poller.config.queries.query_file import QueryFile
    from poller.config.yaml_file import read

    for source in sources:
        for path in files_of(source):
            for _, query in QueryFile(path, read(path)).queries():
                if isinstance(name := query.get("name"), str) and name == one_line(name):
                    yield name
