"""A server whose own code and instrumentation put personal data of its clients into every signal."""

from __future__ import annotations

import logging
import os
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from opentelemetry import metrics, trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from starlette.middleware import Middleware

from poller.events import EventMetrics
from poller.events.asgi import TelemetryMiddleware
from poller.events.request import set_user
from poller.events.service import traced
from poller.events.telemetry import configure_telemetry

telemetry = configure_telemetry("planted")
events = EventMetrics()
meter, tracer = metrics.get_meter("planted"), trace.get_tracer("planted")
requests = meter.create_counter("planted_requests")
sizes = meter.create_histogram("planted_sizes")
logger = logging.getLogger("planted")

outermost = os.environ["LAYOUT"] == "outermost"
inner = FastAPI(
    middleware=[]
    if outermost
    else [Middleware(TelemetryMiddleware, metrics=events)]  # so that FastAPI traces by itself as well
)


@traced(capture=["note"])
async def greet_user(note: str) -> None:
    """Take an argument with more data than its name suggests."""


def refuse(reason: str) -> None:
    """Refuse a client."""
    raise PermissionError(reason)


@inner.get("/plant")
async def plant(request: Request) -> str:
    """Put all data of the client into every kind of telemetry."""
    set_user("0190b6a5-0000-7000-8000-000000000001")
    client = request.client.host if request.client else ""
    headers = dict(request.headers)
    agent, cookie, bearer = headers["user-agent"], headers["cookie"], headers["authorization"]
    token = request.query_params["token"]
    telling: dict[str, Any] = {
        "client.address": client,
        "net.peer.ip": client,
        "user_agent.original": agent,
        "http.user_agent": agent,
        "http.request.header.cookie": [cookie],
        "http.request.header.authorization": (bearer,),
        "url.query": f"token={token}",
        "url.full": str(request.url),
        "http.target": f"/plant?token={token}",
        "session_token": token,
        "password": token,
        "note": f"from {client} with {bearer}",
        "notes": ["harmless", f"x-forwarded-for: {client}"],
    }
    await greet_user(f"{client} sent cookie={cookie}")
    current = trace.get_current_span()
    current.set_attributes(telling)
    current.add_event(f"GET /plant?token={token}", telling)
    context = current.get_span_context()
    with tracer.start_as_current_span(
        f"GET /plant?token={token}",
        kind=SpanKind.INTERNAL,
        attributes=telling,
        links=[Link(context, telling)],
    ) as span:
        span.record_exception(ValueError(f"{client} is not allowed: {bearer}"))
        span.set_status(Status(StatusCode.ERROR, f"refused {client}, token={token}"))
    with tracer.start_as_current_span("call", kind=SpanKind.CLIENT) as span:
        span.set_attributes({"server.address": "192.0.2.10", "network.peer.address": "192.0.2.10"})
    requests.add(1, {"kept": "yes", "client.address": client, "user_agent.original": agent})
    requests.add(1, {"kept": "no", "who": client})
    sizes.record(3, {"client.address": client, "http.request.header.cookie": cookie})
    try:
        refuse(f"{client} came with {bearer} and cookie: {cookie}")
    except PermissionError:
        logger.exception("refused %s", client, extra=telling)
    logger.warning("headers %s of %r", headers, request.scope["headers"])
    logger.info("user-agent: %s", agent)
    logger.info("called %s", request.url, stack_info=True, extra={"headers": headers, "peer": (client, 1)})
    logger.info({"client": client, "token": token})  # a message that is not a text
    return "ok"


@inner.get("/break")
async def break_down(request: Request) -> str:
    """Fail with a message that contains the client's data."""
    raise RuntimeError(f"{request.client} asked {request.url} as {request.headers['authorization']}")


@inner.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    """Log what a client sends."""
    await websocket.accept()
    logger.info("%s says %s", websocket.client, await websocket.receive_text())
    await websocket.close()


app: Any = OpenTelemetryMiddleware(inner)
if outermost:
    app = TelemetryMiddleware(app, events)
