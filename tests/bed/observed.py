"""A small server that configures its telemetry from the environment: `uvicorn tests.bed.observed:app`."""

from __future__ import annotations

import logging

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from poller.events import EventMetrics
from poller.events.asgi import TelemetryMiddleware
from poller.events.service import traced
from poller.events.telemetry import configure_telemetry

telemetry = configure_telemetry("observed", service_version="1.2.3")

logger = logging.getLogger("observed")
metrics = EventMetrics()


@traced
async def greet_user(name: str) -> str:
    logger.info("greeting", extra={"length": len(name)})
    metrics.user_registered()
    return f"hello {name}"


async def hello(request: Request) -> Response:
    return PlainTextResponse(await greet_user(request.path_params["name"]))


async def broken(_: Request) -> Response:
    raise RuntimeError("broken on purpose")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


app = TelemetryMiddleware(
    Starlette(
        routes=[Route("/hello/{name}", hello), Route("/broken", broken), WebSocketRoute("/echo", echo)]
    ),
    metrics,
)
