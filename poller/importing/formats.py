"""Know the formats there are, and which module reads each."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from poller.catalog import Defaults
from poller.errors import ConfigError, Problem
from poller.importing.draft import DraftQuery
from poller.importing.fitting import fit
from poller.importing.losses import Losses, Place
from poller.importing.opening import files_of
from poller.importing.provenance import tools_of

Format = Literal[
    "sqlquery", "sql_exporter", "query-exporter", "pg_exporter", "pgwatch", "postgres_exporter", "telegraf"
]

Reader = Callable[[Sequence[Path], Losses], list[DraftQuery]]


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of some files: the queries that the model takes, and what was lost."""

    drafts: Sequence[DraftQuery]
    losses: Losses
    files: Sequence[Path]


def bring(form: Format, given: Sequence[Path], defaults: Defaults) -> Imported:
    """Read `given` (files, or folders of them) as `form`.

    Raises ConfigError with every file that cannot be read, or looks like another tool's.
    """
    suffixes = (".toml", ".conf") if form == "telegraf" else (".yaml", ".yml")
    losses, problems = Losses(), list[Problem]()
    files: list[Path] = []
    for one in given:
        try:
            files += [file for file in files_of(one, suffixes) if file not in files]
        except ConfigError as error:
            problems += error.problems
    mistaken = {file: tools for file in files if (tools := tools_of(file)) and form not in tools}
    for file, tools in mistaken.items():
        instead = " or ".join(f"--from {tool}" for tool in sorted(tools))
        what = f"looks like {' or '.join(sorted(tools))}, not like {form}; write {instead}"
        problems.append(Problem(str(file), what))
    drafts: list[DraftQuery] = []
    reader = cast(Reader, importlib.import_module(f"poller.importing.{form.replace('-', '_')}").read)
    try:
        drafts = reader([file for file in files if file not in mistaken], losses)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    if not drafts and not losses.counts[0]:
        for file in files:
            losses.lost(
                Place(file, 1), f"holds no query of {form}", "give a file that does, or another --from"
            )
    return Imported(fit(drafts, defaults, losses), losses, files)


FORMATS: tuple[Format, ...] = get_args(Format)
