"""Command `import`: conversion of another tool's queries into query files."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from poller.cli.options import with_settings
from poller.config.queries.files import MAX_BYTES, unreadable
from poller.config.settings import Settings
from poller.model.catalog import Defaults
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.text import counted
from poller.tools.importers.draft import DraftQuery
from poller.tools.importers.formats import WITH_TARGETS, Imported, ImportFormat, import_files
from poller.tools.importers.validate import to_yaml

_SUFFIXES = (".yaml", ".yml")


@with_settings("interval", "timeout", "max_series")
def import_(
    settings: Settings,
    files: Annotated[list[Path], typer.Argument(help="Files of the other tool, or folders with them.")],
    form: Annotated[ImportFormat, typer.Option("--from", help="The tool that the files belong to.")],
    write: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Write a new file, or one per input file into an existing folder (default: stdout).",
        ),
    ] = None,
    targets_file: Annotated[
        Path | None,
        typer.Option(
            "--targets",
            metavar="FILE",
            help="Also write the databases as a new targets file.",
        ),
    ] = None,
) -> None:
    """Convert the queries of another tool into query files, without a database.

    stderr lists everything that is not converted or works differently, each as `file:line: path.to.key:
    problem; fix`. Equal changes are listed once. The output passes `poller check`. Secrets are never copied:
    with --targets, stderr lists the files to write them to.

    Exit code 0: everything was converted; 1: something was not; 2: a file cannot be read or written, or
    belongs to another tool.
    """
    # Imported here because shell completion waits for the imports of the module.
    from poller.terminal.console import open_console, say
    from poller.terminal.diagnostics import print_problems

    defaults = Defaults(settings.interval, settings.timeout, settings.max_series)
    if targets_file is not None:
        _check_targets_option(targets_file, form, write)
    imported = import_files(form, files, defaults, with_targets=targets_file is not None)
    _write(imported, form, write, targets_file)
    lost, changed, warned = imported.losses.counts
    console = open_console(stderr=True)
    print_problems(console, imported.losses.diagnostics(imported.files))
    metrics = sum(len(draft.metrics) for draft in imported.drafts)
    summary = f"{counted(len(imported.drafts), 'query')}, {counted(metrics, 'metric')}"
    targets = imported.targets.targets if imported.targets is not None else []
    if targets:
        summary += f", {counted(len(targets), 'target')}"
    summary += f" imported from {form}; {lost} not converted, {changed} changed"
    if warned:
        summary += f", {counted(warned, 'warning')}"
    if imported.drafts:
        written = shlex.quote(str(write)) if write else "FILE"
        if targets:
            summary += (
                f"; poller check --targets {shlex.quote(str(targets_file))} {written} checks them together"
            )
        else:
            summary += f"; poller check --database {written} checks them on your server"
    say(console, summary)
    raise typer.Exit(1 if lost else 0)


def _check_targets_option(file: Path, form: ImportFormat, write: Path | None) -> None:
    """Raise ConfigError if the connections of this tool cannot be written to `file`."""
    option = f"--targets {file}"
    if form not in WITH_TARGETS:
        message = f"is not possible, because files of {form} contain no connections; remove it"
        raise ConfigError([invalid(option, message)])
    if file.suffix not in _SUFFIXES or file.is_dir():
        raise ConfigError([invalid(option, "is not a file that ends in .yaml; write one")])
    if write is not None and (write == file or (write.is_dir() and file.parent.resolve() == write.resolve())):
        message = "is in the folder of the query files, which would be read as one; write another folder"
        raise ConfigError([invalid(option, message)])


def _write(imported: Imported, form: ImportFormat, target: Path | None, targets_file: Path | None) -> None:
    """Write the query files and the targets file, all or none; without `target`, the queries to stdout."""
    head = f"Imported from {form}."
    texts: dict[Path, str] = {}
    if target is not None and imported.drafts:
        texts |= {
            path: to_yaml(drafts, f"Imported from {form}, {drafts[0].place.file.name}.")
            for path, drafts in _by_file(imported.drafts, target).items()
        }
    if targets_file is not None and imported.targets is not None and imported.targets.targets:
        texts[targets_file] = imported.targets.to_yaml(head)
        if len(texts[targets_file].encode()) > MAX_BYTES:
            message = "would have more than 1 MiB; import fewer files at once"
            raise ConfigError([invalid(f"--targets {targets_file}", message)])
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
    if target is None and imported.drafts:
        sys.stdout.write(to_yaml(imported.drafts, head))


def _by_file(drafts: Sequence[DraftQuery], target: Path) -> dict[Path, Sequence[DraftQuery]]:
    """Return the queries of each output file; raises ConfigError if `target` cannot be one."""
    if not target.is_dir():
        if target.suffix not in _SUFFIXES:
            problem = "is not a folder; write an existing folder, or a file that ends in .yaml"
            raise ConfigError([invalid(f"--write {target}", problem)])
        return {target: drafts}
    files = {target / f"{draft.place.file.stem}.yaml": None for draft in drafts}
    return {file: [draft for draft in drafts if draft.place.file.stem == file.stem] for file in files}
