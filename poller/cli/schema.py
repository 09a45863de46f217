"""Command `schema`: the JSON Schema of query files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError


def schema(
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to this file instead of stdout.")
    ] = None,
) -> None:
    """Print the JSON Schema of query files, with which an editor completes keys and marks mistakes.

    Editors with the YAML language server read the schema's path from the first line of a query file:

        # yaml-language-server: $schema=queries.schema.json

    The path is relative to the query file.
    """
    from poller.config.queries.schema.json_schema import as_text

    if write is None:
        typer.echo(as_text(), nl=False)
        return
    try:
        write.write_text(as_text(), encoding="utf-8")
    except OSError as error:
        problem = f"{str(write)!r} cannot be written: {error.strerror}; write another file"
        raise ConfigError([invalid("--write", problem)]) from None
