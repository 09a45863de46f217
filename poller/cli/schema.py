"""Command `schema`: the JSON Schema of query files, or of targets files."""

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
    targets: Annotated[
        bool, typer.Option("--targets", help="The schema of targets files, not of query files.")
    ] = False,
) -> None:
    """Print the JSON Schema of query files, with which an editor completes keys and marks mistakes.

    Editors with the YAML language server read the schema's path from the first line of a query file:

        # yaml-language-server: $schema=queries.schema.json

    The path is relative to the query file.
    """
    from poller.config.queries.schema import json_schema as of_queries
    from poller.config.targets import json_schema as of_targets

    text = of_queries.as_text((of_targets if targets else of_queries).schema())
    if write is None:
        typer.echo(text, nl=False)
        return
    try:
        write.write_text(text, encoding="utf-8")
    except OSError as error:
        problem = f"{str(write)!r} cannot be written: {error.strerror}; write another file"
        raise ConfigError([invalid("--write", problem)]) from None
