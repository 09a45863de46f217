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


class Server(uvicorn.Server):
    """Uvicorn, which says where it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        for one in sockets or ():
            host, port = one.getsockname()[:2]
            print(json.dumps({"url": f"http://{host}:{port}"}), flush=True)  # noqa: T201 - for whoever started us


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m poller.demo.messaging", description=__doc__)
    parser.add_argument("dsn", help="the database, which has poller/demo/schema.sql, as libpq takes it")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--folder", type=Path, help="keep objects in this folder")
    parser.add_argument("--bucket", help="keep objects in this bucket")
    parser.add_argument("--s3-endpoint", metavar="URL", help="where the bucket is, unless it is Amazon's")
    parser.add_argument("--push-url", metavar="URL", help="provider of push notifications; else none")
    parser.add_argument("--generation", default="document", help="of the metrics' names")
    parser.add_argument("--send-buffer", type=int, metavar="BYTES", help="of the kernel, for each connection")
    add_options(parser)
    options = parser.parse_args(arguments)
    if bool(options.folder) == bool(options.bucket):
        parser.error("say either --folder or --bucket")

    configure_telemetry("messaging-server", libraries=_libraries())
    # What is logged outside of any request, worker or session belongs to the trace of the start.
    start = get_tracer(__name__).start_span("start_server")
    attach(set_span_in_context(start))
    application = make_application(
        options.dsn,
        S3(options.bucket, options.s3_endpoint) if options.bucket else Folder(options.folder),
        HttpProvider(options.push_url) if options.push_url else NoProvider(),
        EventMetrics(generation=options.generation),
        from_options(options),
    )
    server = Server(
        uvicorn.Config(
            application,
            log_config=None,
            lifespan="on",
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_max_size=1_048_576,
            # Longer than clients keep one, or a request would now and then meet a connection's end.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
    )
    with socket.create_server((LOOPBACK, options.port), backlog=2048) as listening:
        if options.send_buffer:
            # Inherited by every connection; a small one lets a slow client be noticed early.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, options.send_buffer)
        start.end()
        asyncio.run(server.serve(sockets=[listening]))
    sys.exit(0 if server.started else 1)


def _libraries() -> list[Library]:
    """Those that there is a package for, to make their spans with."""
    known: tuple[Library, ...] = ("psycopg", "botocore")
    # Not by the first name alone, which without any of the packages cannot be looked into.
    if find_spec("opentelemetry.instrumentation") is None:
        return []
    return [library for library in known if find_spec(f"opentelemetry.instrumentation.{library}")]


if __name__ == "__main__":
    main()
