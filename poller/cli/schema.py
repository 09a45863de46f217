"""Command `schema`: the JSON Schema of query files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from poller.model.errors import ConfigError, Problem


def schema(
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it to this file instead of printing it.")
    ] = None,
) -> None:
    """Print the JSON Schema of query files: with it an editor completes keys, explains them, marks mistakes.

    An editor with the YAML language server takes it from the first line of a query file:

        # yaml-language-server: $schema=queries.schema.json

    with the path of the schema, from the file's own folder, behind the equals sign.
    """
    from poller.config.queries.schema.json_schema import as_text

    if write is None:
        typer.echo(as_text(), nl=False)
        return
    try:
        write.write_text(as_text(), encoding="utf-8")
    except OSError as error:
        what = f"{str(write)!r} cannot be written: {error.strerror}; write another file"
        raise ConfigError([Problem("--write", what)]) from None
