"""Messaging server as a process: prints its URL as one line of JSON, and runs until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import uvicorn
from opentelemetry.context import attach
from opentelemetry.trace import get_tracer, set_span_in_context

from poller.demo.messaging.application import make_application
from poller.demo.messaging.objects import S3, Folder
from poller.demo.messaging.push import HttpProvider, NoProvider
from poller.demo.messaging.settings import add_options, from_options
from poller.events import EventMetrics
from poller.events.libraries import Library
from poller.events.telemetry import configure_telemetry
from poller.receiver.ports import LOOPBACK


class MessagingServer(uvicorn.Server):
    """Uvicorn server that prints its URL."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and print the URL."""
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            print(json.dumps({"url": f"http://{host}:{port}"}), flush=True)  # noqa: T201 - for the parent process


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m poller.demo.messaging", description=__doc__)
    parser.add_argument(
        "dsn",
        help="the database, as a libpq connection string or URI; it has the tables of poller/demo/schema.sql",
    )
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on; 0 (the default) chooses a free port"
    )
    parser.add_argument("--folder", type=Path, help="store objects in this folder")
    parser.add_argument("--bucket", help="store objects in this S3 bucket")
    parser.add_argument("--s3-endpoint", metavar="URL", help="endpoint of the bucket (default: Amazon's)")
    parser.add_argument("--push-url", metavar="URL", help="provider of push notifications (default: none)")
    parser.add_argument("--generation", default="document", help="generation of the metrics' names")
    parser.add_argument(
        "--send-buffer", type=int, metavar="BYTES", help="size of the kernel's send buffer of each connection"
    )
    add_options(parser)
    options = parser.parse_args(arguments)
    if bool(options.folder) == bool(options.bucket):
        parser.error("write either --folder or --bucket")

    configure_telemetry("messaging-server", libraries=_libraries())
    # Log records outside of requests, workers and sessions belong to the trace of the start.
    start = get_tracer(__name__).start_span("start_server")
    attach(set_span_in_context(start))
    application = make_application(
        options.dsn,
        S3(options.bucket, options.s3_endpoint) if options.bucket else Folder(options.folder),
        HttpProvider(options.push_url) if options.push_url else NoProvider(),
        EventMetrics(generation=options.generation),
        from_options(options),
    )
    server = MessagingServer(
        uvicorn.Config(
            application,
            log_config=None,
            lifespan="on",
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_max_size=1_048_576,
            # Longer than clients keep idle connections, so that no request reaches a closed connection.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
    )
    with socket.create_server((LOOPBACK, options.port), backlog=2048) as listening:
        if options.send_buffer:
            # Every connection inherits it; with a small buffer the server notices a slow client early.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, options.send_buffer)
        start.end()
        asyncio.run(server.serve(sockets=[listening]))
    sys.exit(0 if server.started else 1)


def _libraries() -> list[Library]:
    """Return the libraries whose instrumentation package is installed."""
    libraries: tuple[Library, ...] = ("psycopg", "botocore")
    # find_spec of a submodule raises if the parent package is missing.
    if find_spec("opentelemetry.instrumentation") is None:
        return []
    return [library for library in libraries if find_spec(f"opentelemetry.instrumentation.{library}")]


if __name__ == "__main__":
    main()
