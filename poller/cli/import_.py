"""Command `import`: conversion of another tool's queries into query files."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from poller.cli.options import with_settings
from poller.config.queries.files import unreadable
from poller.config.settings import Settings
from poller.model.catalog import Defaults
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.text import counted
from poller.tools.importers.draft import DraftQuery
from poller.tools.importers.formats import Format, Imported, import_files
from poller.tools.importers.validate import to_yaml

_SUFFIXES = (".yaml", ".yml")


@with_settings("interval", "timeout", "max_series")
def import_(
    settings: Settings,
    files: Annotated[list[Path], typer.Argument(help="Files of the other tool, or folders with them.")],
    form: Annotated[Format, typer.Option("--from", help="The tool that the files belong to.")],
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Write a new file, or one per input file into an existing folder (default: stdout).",
        ),
    ] = None,
) -> None:
    """Convert the queries of another tool into query files, without a database.

    stderr lists everything that is not converted or works differently, each as `file:line: path.to.key:
    problem; fix`. Equal changes are listed once. The output passes `poller check`. Connections and secrets
    are not imported.

    Exit code 0: everything was converted; 1: something was not; 2: a file cannot be read or written, or
    belongs to another tool.
    """
    # Imported here because shell completion waits for the imports of the module.
    from poller.terminal.console import open_console, say
    from poller.terminal.diagnostics import print_problems

    defaults = Defaults(settings.interval, settings.timeout, settings.max_series)
    imported = import_files(form, files, defaults)
    _write(imported, form, write)
    lost, changed, warned = imported.losses.counts
    console = open_console(stderr=True)
    print_problems(console, imported.losses.diagnostics(imported.files))
    metrics = sum(len(draft.metrics) for draft in imported.drafts)
    summary = f"{counted(len(imported.drafts), 'query')}, {counted(metrics, 'metric')} imported from {form}"
    summary = f"{summary}; {lost} not converted, {changed} changed"
    if warned:
        summary += f", {counted(warned, 'warning')}"
    if imported.drafts:
        target = shlex.quote(str(write)) if write else "FILE"
        summary += f"; poller check --database {target} checks them on your server"
    say(console, summary)
    raise typer.Exit(1 if lost else 0)


def _write(imported: Imported, form: Format, target: Path | None) -> None:
    if not imported.drafts:
        return
    head = f"Imported from {form}."
    if target is None:
        sys.stdout.write(to_yaml(imported.drafts, head))
        return
    texts = {
        path: to_yaml(drafts, f"Imported from {form}, {drafts[0].place.file.name}.")
        for path, drafts in _by_file(imported.drafts, target).items()
    }
    problems = [
        invalid(str(path), "already exists; remove it, or write another file")
        for path in texts
        if path.exists()
    ]
    if problems:
        raise ConfigError(problems)
    for path, text in texts.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError([invalid(str(path), unreadable(error).replace("read", "written"))]) from None


def _by_file(drafts: Sequence[DraftQuery], target: Path) -> dict[Path, Sequence[DraftQuery]]:
    """Return the queries of each output file; raises ConfigError if `target` cannot be one."""
    if not target.is_dir():
        if target.suffix not in _SUFFIXES:
            problem = "is not a folder; write an existing folder, or a file that ends in .yaml"
            raise ConfigError([invalid(f"--write {target}", problem)])
        return {target: drafts}
    files = {target / f"{draft.place.file.stem}.yaml": None for draft in drafts}
    return {file: [draft for draft in drafts if draft.place.file.stem == file.stem] for file in files}
