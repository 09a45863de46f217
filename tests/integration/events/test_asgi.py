"""Requests and WebSocket sessions of real frameworks on a real server are counted and traced exactly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from litestar import Litestar, asgi, get, post
from litestar.params import FromPath
from litestar.types import Receive as LitestarReceive
from litestar.types import Scope as LitestarScope
from litestar.types import Send as LitestarSend
from opentelemetry.trace import StatusCode
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from poller.events.asgi import TelemetryMiddleware
from poller.events.attributes import HTTP_METHODS
from poller.events.request import request_id, set_route, set_user
from poller.events.websocket import offer
from poller.receiver.ports import LOOPBACK
from tests.bed.process import ROOT, eventually
from tests.bed.served import Served

Serve = Callable[..., Served]


async def ok(_: Request) -> Response:
    return PlainTextResponse("ok")


def starlette() -> Starlette:
    inner = Starlette(routes=[Route("/b/{x:int}", ok), Mount("/deep/{z}", routes=[Route("/c/{y}", ok)])])
    return Starlette(
        routes=[
            Route("/", ok),
            Route("/a/{id}", ok),
            Mount("/tenant/{t:int}", app=inner),
            Mount("/static", app=StaticFiles(directory=ROOT / "tests" / "bed")),
            Host("other.example", app=inner),
        ]
    )


def fastapi() -> FastAPI:
    app, sub = FastAPI(), FastAPI()
    outer, inner = APIRouter(prefix="/outer"), APIRouter(prefix="/inner/{k}")

    async def answer() -> int:
        return 1

    async def answer_with(number: int) -> int:
        return number

    app.get("/plain/{number}")(answer_with)
    inner.get("/z/{q}")(answer)
    outer.get("/y")(answer)
    outer.include_router(inner)
    app.include_router(outer, prefix="/v1")
    sub.get("/s/{n}")(answer)
    sub.include_router(inner)
    app.mount("/sub/{m}", sub)
    return app


def litestar() -> Litestar:
    inner = Starlette(routes=[Route("/b/{x}", ok)])

    @get("/l/{number:int}")
    async def with_number(number: FromPath[int]) -> str:
        return str(number)

    @get("/plain")
    async def plain() -> str:
        return "x"

    @post("/plain")
    async def plain_post() -> str:
        return "x"

    @asgi("/mounted", is_mount=True, copy_scope=True)
    async def mounted(scope: LitestarScope, receive: LitestarReceive, send: LitestarSend) -> None:
        await inner(scope, receive, send)  # type: ignore[arg-type]  # each framework has its own type of scope

    return Litestar([with_number, plain, plain_post, mounted], logging_config=None)


@pytest.mark.parametrize(
    ("framework", "expected"),
    [
        (
            starlette,
            {
                ("GET", "/"): ("/", 200),
                ("GET", "/a/1"): ("/a/{id}", 200),
                ("HEAD", "/a/1"): ("/a/{id}", 200),
                ("POST", "/a/1"): ("/a/{id}", 405),
                ("GET", "/a/1/"): ("unmatched", 307),
                ("GET", "/tenant/42/b/007"): ("/tenant/{t}/b/{x}", 200),
                ("GET", "/tenant/007/deep/tenant/c/deep"): ("/tenant/{t}/deep/{z}/c/{y}", 200),
                ("GET", "/tenant/42/nope"): ("unmatched", 404),
                ("GET", "/static/served.py"): ("/static/{path}", 200),
                ("GET", "/static/nope"): ("/static/{path}", 404),
                ("GET", "/nope"): ("unmatched", 404),
                ("BREW", "/a/1"): ("/a/{id}", 405),
            },
        ),
        (
            fastapi,
            {
                ("GET", "/plain/1"): ("/plain/{number}", 200),
                ("GET", "/plain/x"): ("/plain/{number}", 422),
                ("DELETE", "/plain/1"): ("/plain/{number}", 405),
                ("GET", "/v1/outer/y"): ("/v1/outer/y", 200),
                ("PUT", "/v1/outer/y"): ("/v1/outer/y", 405),
                ("GET", "/v1/outer/inner/kk/z/qq"): ("/v1/outer/inner/{k}/z/{q}", 200),
                ("GET", "/sub/mm/s/1"): ("/sub/{m}/s/{n}", 200),
                ("GET", "/sub/mm/inner/kk/z/qq"): ("/sub/{m}/inner/{k}/z/{q}", 200),
                ("GET", "/sub/mm/nope"): ("unmatched", 404),
                ("GET", "/openapi.json"): ("/openapi.json", 200),
                ("GET", "/nope"): ("unmatched", 404),
            },
        ),
        (
            litestar,
            {
                ("GET", "/l/7"): ("/l/{number}", 200),
                ("GET", "/l/x"): ("unmatched", 404),
                ("GET", "/plain"): ("/plain", 200),
                ("POST", "/plain"): ("/plain", 201),
                ("DELETE", "/plain"): ("unmatched", 405),
                ("GET", "/mounted/b/1"): ("/mounted/{path}", 307),
                ("GET", "/nope"): ("unmatched", 404),
            },
        ),
    ],
)
def test_the_route_is_the_matched_template(
    framework: Callable[[], Any], expected: dict[tuple[str, str], tuple[str, int]], serve: Serve
) -> None:
    served = serve(framework())
    for (method, path), (route, status) in expected.items():
        response = served.client.request(method, path)
        assert response.status_code == status, (method, path)
        root = served.root(list(expected).index((method, path)))
        assert root.attributes is not None
        assert root.attributes.get("http.route", "unmatched") == route, (method, path)
        method_name = method if method in HTTP_METHODS else "HTTP"
        assert root.name == (method_name if route == "unmatched" else f"{method_name} {route}")

    counted = sorted(
        (method if method in HTTP_METHODS else "_OTHER", route, str(status))
        for (method, _), (route, status) in expected.items()
    )
    assert eventually(lambda: served.counted() == counted), served.counted()
    for route in {route for route, _ in expected.values()}:
        count = sum(1 for template, _ in expected.values() if template == route)
        served.recorder.assert_count("http_request_duration_seconds", count, route=route)


def test_a_host_route_and_the_host_header_change_nothing_about_the_template(serve: Serve) -> None:
    served = serve(starlette())
    served.client.get("/b/5", headers={"host": "other.example"})

    served.root()
    assert served.counted() == [("GET", "/b/{x}", "200")]


@pytest.mark.parametrize(
    ("method", "original"), [("BREW", "BREW"), ("GET", None), ("M" * 65, None), ("_OTHER", "_OTHER")]
)
def test_an_unknown_method_is_only_on_the_span(method: str, original: str | None, serve: Serve) -> None:
    served = serve(starlette())
    served.client.request(method, "/a/1")
    attributes = served.root().attributes or {}
    assert attributes["http.request.method"] == (method if method in HTTP_METHODS else "_OTHER")
    assert attributes.get("http.request.method_original") == original
    assert eventually(lambda: served.requests() == 1)
    ((counted, *_),) = served.counted()
    assert counted == attributes["http.request.method"]


def test_no_client_can_create_series(serve: Serve) -> None:
    served = serve(starlette())
    for number in range(40):
        served.client.request(f"M{number}", f"/{uuid.uuid4()}")
        served.client.get(f"/a/{uuid.uuid4()}")
        served.client.get(f"/tenant/{number:05}/b/{number:07}")

    # A request is counted a moment after its client has the response.
    assert eventually(lambda: served.requests() == 120)
    assert set(served.counted()) == {
        ("_OTHER", "unmatched", "404"),
        ("GET", "/a/{id}", "200"),
        ("GET", "/tenant/{t}/b/{x}", "200"),
    }


def test_an_application_without_a_framework_sets_its_route(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith("/things/"):
            set_route("/things/{id}")
        await PlainTextResponse(request_id() or "")(dict(scope), receive, send)

    served = serve(app, lifespan="off")
    response = served.client.get("/things/1")
    served.client.get("/else")

    assert response.text == response.headers["x-request-id"]
    assert eventually(
        lambda: served.counted() == [("GET", "/things/{id}", "200"), ("GET", "unmatched", "200")]
    )


def test_the_prefix_of_a_custom_mount_never_comes_from_the_client(serve: Serve) -> None:
    """It has changed the root path, and its routes are not accessible."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        prefix, _, _ = scope["path"].removeprefix("/").partition("/")
        scope |= {"app_root_path": "", "root_path": f"/{prefix}"}
        scope["route"] = Route("/c/{y}", ok)
        await PlainTextResponse("ok")(scope, receive, send)

    served = serve(app, lifespan="off")
    for number in range(3):
        served.client.get(f"/{number}/c/1")

    served.root(2)
    assert set(served.counted()) == {("GET", "/{mount}/c/{y}", "200")}


def test_an_unexpected_scope_fails_no_request(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["fastapi"] = "something else"
        await PlainTextResponse("ok")(scope, receive, send)

    served = serve(app, lifespan="off")
    assert served.client.get("/x").text == "ok"
    served.root()
    assert served.counted() == [("GET", "unmatched", "200")]
    assert "could not be determined" in caplog.text


class Gate:
    """Blocks an application on any event loop until a test continues it."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    async def wait(self) -> None:
        self.reached.set()
        while not self.opened.is_set():
            await asyncio.sleep(0.01)


def test_a_request_ends_with_the_last_byte_of_its_response(serve: Serve) -> None:
    gate = Gate()

    async def stream(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"first"
            await gate.wait()
            yield b"last"

        return StreamingResponse(body())

    served = serve(Starlette(routes=[Route("/stream", stream)]))
    with served.client.stream("GET", "/stream") as response:
        parts = response.iter_raw()
        assert next(parts) == b"first"
        assert gate.reached.wait(60)
        assert served.requests() == 0
        assert served.spans() == []
        gate.opened.set()
        assert b"".join(parts) == b"last"

    assert eventually(lambda: served.counted() == [("GET", "/stream", "200")])
    assert served.root().status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("fails", [False, True])
def test_a_background_task_is_not_part_of_the_request(serve: Serve, fails: bool) -> None:
    gate = Gate()

    async def work() -> None:
        await gate.wait()
        if fails:
            raise ValueError("too late to be the request's")

    async def start(_: Request) -> Response:
        return PlainTextResponse("started", background=BackgroundTask(work))

    served = serve(Starlette(routes=[Route("/start", start)]))
    assert served.client.get("/start").text == "started"
    assert gate.reached.wait(60)

    root = served.root()
    assert eventually(lambda: served.counted() == [("GET", "/start", "200")])
    gate.opened.set()
    served.stop()
    assert eventually(lambda: served.counted() == [("GET", "/start", "200")])
    assert root.status.status_code is StatusCode.UNSET


@pytest.mark.slow
@pytest.mark.parametrize("then", ["answers", "reads on", "fails"])
def test_a_client_that_disconnects_before_the_response_is_counted_as_disconnected(
    serve: Serve, then: str
) -> None:
    gate = Gate()

    async def slow(request: Request) -> Response:
        while not await request.is_disconnected():
            await asyncio.sleep(0.01)
        gate.reached.set()
        if then == "reads on":
            await request.body()  # raises ClientDisconnect
        if then == "fails":
            raise RuntimeError("broken")
        return PlainTextResponse("the client does not read this")

    served = serve(Starlette(routes=[Route("/slow", slow)]))
    with pytest.raises(httpx.ReadTimeout):
        served.client.get("/slow", timeout=httpx.Timeout(60, read=1))
    assert gate.reached.wait(60)

    root = served.root()
    assert eventually(lambda: served.counted() == [("GET", "/slow", "499")])
    assert (root.attributes or {})["http.response.status_code"] == 499
    assert (root.attributes or {}).get("error.type") == ("RuntimeError" if then == "fails" else None)
    assert root.status.status_code is (StatusCode.ERROR if then == "fails" else StatusCode.UNSET)
    assert len(root.events) == (then == "fails")


def test_a_disconnect_during_a_response_does_not_change_its_status(serve: Serve) -> None:
    closed = threading.Event()

    async def stream(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 1000
                    await asyncio.sleep(0.01)
            finally:
                closed.set()

        return StreamingResponse(body())

    served = serve(Starlette(routes=[Route("/stream", stream)]))
    with served.client.stream("GET", "/stream") as response:
        next(response.iter_raw())
    assert closed.wait(60)

    assert eventually(lambda: served.counted() == [("GET", "/stream", "200")])
    assert served.root().status.status_code is StatusCode.UNSET


async def broken(_: Request) -> Response:
    raise RuntimeError("broken")


@pytest.mark.parametrize("outermost", [True, False])
def test_an_exception_is_counted_as_a_single_500_and_reaches_the_server(
    serve: Serve, outermost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The exception handler may be inside or outside of the middleware."""

    def inside(served: Served) -> Starlette:
        middleware = Middleware(
            TelemetryMiddleware,
            metrics=served.recorder.metrics,
            tracer_provider=served.tracer_provider,
        )
        return Starlette(routes=[Route("/x", broken)], middleware=[middleware])

    served = serve(Starlette(routes=[Route("/x", broken)]) if outermost else inside, wrapped=outermost)
    response = served.client.get("/x")

    assert response.status_code == 500
    assert ("x-request-id" in response.headers) is outermost
    root = served.root()
    assert eventually(lambda: served.counted() == [("GET", "/x", "500")])
    assert root.attributes is not None
    assert root.attributes["error.type"] == "RuntimeError"
    assert root.attributes["http.response.status_code"] == 500
    assert root.status.status_code is StatusCode.ERROR
    assert [event.name for event in root.events] == ["exception"]
    assert eventually(lambda: "Exception in ASGI application" in caplog.text)


def test_an_exception_during_a_response_fails_the_span_and_not_the_count(serve: Serve) -> None:
    async def stream(_: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"first"
            raise RuntimeError("broken")

        return StreamingResponse(body())

    served = serve(Starlette(routes=[Route("/stream", stream)]))
    with pytest.raises(httpx.RemoteProtocolError):
        served.client.get("/stream")

    root = served.root()
    assert eventually(lambda: served.counted() == [("GET", "/stream", "200")])
    assert root.status.status_code is StatusCode.ERROR
    assert root.attributes is not None
    assert root.attributes["error.type"] == "RuntimeError"


def test_an_application_that_never_answers_has_failed(serve: Serve) -> None:
    async def silent(_scope: Any, _receive: Any, _send: Any) -> None:
        pass

    served = serve(silent, lifespan="off")
    assert served.client.get("/").status_code == 500
    assert eventually(lambda: served.counted() == [("GET", "unmatched", "500")])


@pytest.mark.parametrize(("status", "failed"), [(404, False), (429, False), (500, True), (503, True)])
def test_only_5xx_is_an_error(serve: Serve, status: int, failed: bool) -> None:
    async def refuse(_: Request) -> Response:
        raise HTTPException(status)

    served = serve(Starlette(routes=[Route("/x", refuse)]))
    served.client.get("/x")

    root = served.root()
    assert eventually(lambda: served.counted() == [("GET", "/x", str(status))])
    assert root.status.status_code is (StatusCode.ERROR if failed else StatusCode.UNSET)
    assert root.attributes is not None
    assert root.attributes.get("error.type") == (str(status) if failed else None)


@pytest.mark.parametrize(
    ("request_id", "accepted"),
    [
        ("0190b6a5-req_1", True),
        ("A" * 128, True),
        ("A" * 129, False),
        ("short", False),
        ("203.0.113.7-abcdef", False),
        ("ghp_0123456789abcdefghij", False),
        ("<script>alert(1)</script>", False),
        (None, False),
    ],
)
def test_a_valid_request_id_is_accepted_and_any_other_is_replaced(
    serve: Serve, request_id: str | None, accepted: bool
) -> None:
    served = serve(starlette())
    response = served.client.get("/", headers={} if request_id is None else {"x-request-id": request_id})

    echoed = response.headers["x-request-id"]
    assert (echoed == request_id) is accepted
    assert accepted or uuid.UUID(echoed).version == 4
    root = served.root()
    assert root.attributes is not None
    assert root.attributes["request.id"] == echoed


def test_an_id_set_by_the_application_is_not_changed(serve: Serve) -> None:
    async def own(_: Request) -> Response:
        return PlainTextResponse("", headers={"x-request-id": "of-the-application"})

    served = serve(Starlette(routes=[Route("/", own)]))

    assert served.client.get("/").headers.get_list("x-request-id") == ["of-the-application"]


def in_a_thread(user: str) -> str:
    set_user(user)
    return user


async def in_a_task(user: str) -> str:
    await asyncio.create_task(_set(user))
    return user


async def _set(user: str) -> None:
    set_user(uuid.UUID(int=int(user)))


def test_the_user_reaches_the_root_span_from_a_thread_and_from_a_task(serve: Serve) -> None:
    app = FastAPI()

    @app.get("/thread/{user}")
    def by_thread(user: Annotated[str, Depends(in_a_thread)]) -> str:
        return user

    @app.get("/task/{user}")
    async def by_task(user: Annotated[str, Depends(in_a_task)]) -> str:
        return user

    served = serve(app)
    served.client.get("/thread/u-1")
    served.client.get("/task/7")
    served.client.get("/thread/" + "u" * 500)
    set_user("outside of a request it does nothing")

    users = [(served.root(number).attributes or {})["user.id"] for number in range(3)]
    assert users == ["u-1", str(uuid.UUID(int=7)), "u" * 128]


def test_requests_at_the_same_time_do_not_mix_their_users(serve: Serve) -> None:
    async def login(request: Request) -> Response:
        user = request.path_params["user"]
        await asyncio.sleep(0.01)
        set_user(user)
        await asyncio.sleep(0.01)
        return PlainTextResponse(request_id() or "")

    served = serve(Starlette(routes=[Route("/login/{user}", login)]))

    async def load() -> None:
        async with httpx.AsyncClient(base_url=served.client.base_url, timeout=60) as client:
            for response in await asyncio.gather(*(client.get(f"/login/{n}") for n in range(50))):
                assert response.text == response.headers["x-request-id"]

    asyncio.run(load())
    served.root(49)
    attributes = [span.attributes or {} for span in served.spans()]
    assert all(str(fields["url.path"]) == f"/login/{fields['user.id']!s}" for fields in attributes)
    assert len({fields["request.id"] for fields in attributes}) == 50


def test_a_trace_continues_the_trace_of_its_client_only_for_that_request(serve: Serve) -> None:
    served = serve(starlette())
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    served.client.get("/", headers={"traceparent": parent})
    served.client.get("/")  # on the same connection
    served.client.get("/", headers={"traceparent": "nonsense"})

    first, second, third = (served.root(number) for number in range(3))
    assert first.context is not None
    assert second.context is not None
    assert first.parent is not None
    assert (f"{first.context.trace_id:032x}", f"{first.parent.span_id:016x}") == ("a" * 32, "b" * 16)
    assert second.parent is None
    assert third.parent is None
    assert second.context.trace_id != first.context.trace_id


def test_trailers_and_files_also_end_a_response(serve: Serve) -> None:
    """No available server sends them, so the test calls the application directly."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b""})
        assert served.requests() == 0
        await send({"type": "http.response.trailers", "headers": []})
        assert served.requests() == 1

    async def file(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.pathsend", "path": "/x"})
        assert served.requests() == 2

    async def run() -> None:
        async def send(message: Any) -> None:
            sent.append(message["type"])

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        for application in (app, file):
            await served.wrap(application)(dict(scope), asyncio.Queue().get, send)

    sent: list[str] = []
    served = serve(starlette())
    asyncio.run(run())
    assert sent[-1] == "http.response.pathsend"
    assert len(served.spans()) == 2


# --- WebSockets


def websockets(gate: Gate | None = None) -> Starlette:
    async def echo(socket: WebSocket) -> None:
        set_user("u-1")
        await socket.accept()
        if gate is not None:
            await gate.wait()
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await socket.send_text(await socket.receive_text())

    async def refuse(socket: WebSocket) -> None:
        await socket.close(1008)

    async def deny(socket: WebSocket) -> None:
        await socket.send_denial_response(JSONResponse({}, 401))

    async def by_the_server(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(4000)

    async def breaks(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()
        raise RuntimeError("broken")

    async def breaks_early(_: WebSocket) -> None:
        raise RuntimeError("broken")

    async def raises_disconnect(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.receive_text()

    return Starlette(
        routes=[
            WebSocketRoute(f"/{name}/{{id}}", endpoint)
            for name, endpoint in {
                "echo": echo,
                "refuse": refuse,
                "deny": deny,
                "by_the_server": by_the_server,
                "breaks": breaks,
                "breaks_early": breaks_early,
                "raises_disconnect": raises_disconnect,
            }.items()
        ]
    )


def open_socket(served: Served, path: str, **arguments: Any) -> ClientConnection:
    url = f"ws://{LOOPBACK}:{served.port}{path}"
    client: ClientConnection = connect(url, open_timeout=60, close_timeout=60, proxy=None, **arguments)
    return client


def sessions(served: Served) -> tuple[float, int]:
    """Return the number of open and of ended sessions."""
    recorder = served.recorder
    return (
        recorder.total("websocket_active_connections"),
        recorder.count("websocket_session_duration_seconds"),
    )


def test_a_session_is_open_until_it_is_closed_and_has_a_single_root_span(serve: Serve) -> None:
    served = serve(websockets())
    with open_socket(served, "/echo/1?ticket=abc", additional_headers={"x-request-id": "req-12345"}) as first:
        first.send("x")
        assert first.recv() == "x"
        assert first.response is not None
        assert first.response.headers["x-request-id"] == "req-12345"
        with open_socket(served, "/echo/2") as second:
            second.send("x")
            assert second.recv() == "x"
            assert sessions(served) == (2, 0)
            assert served.counted() == [("GET", "/echo/{id}", "101")] * 2
            assert served.spans() == []
        assert eventually(lambda: sessions(served) == (1, 1))

    assert eventually(lambda: sessions(served) == (0, 2))
    root = served.root(1)
    assert root.name == "websocket_session"
    assert dict(root.attributes or {}) == {
        "http.request.method": "GET",
        "url.path": "/echo/1",
        "url.scheme": "ws",
        "request.id": "req-12345",
        "user.id": "u-1",
        "websocket.close_code": 1000,
        "http.response.status_code": 101,
        "http.route": "/echo/{id}",
    }
    assert root.status.status_code is StatusCode.UNSET


def test_a_client_that_vanishes_ends_its_session(serve: Serve) -> None:
    served = serve(websockets())
    with contextlib.suppress(ConnectionClosed), open_socket(served, "/echo/1") as client:
        client.send("x")
        assert client.recv() == "x"
        assert sessions(served) == (1, 0)
        client.socket.shutdown(socket.SHUT_RDWR)
        assert eventually(lambda: sessions(served) == (0, 1))

    assert served.root().status.status_code is StatusCode.UNSET


def test_a_disconnect_exception_that_the_application_raises_is_not_an_error(serve: Serve) -> None:
    served = serve(websockets())
    with open_socket(served, "/raises_disconnect/1"):
        assert eventually(lambda: sessions(served) == (1, 0))

    root = served.root()
    assert sessions(served) == (0, 1)
    assert root.status.status_code is StatusCode.UNSET
    assert root.events == ()


def test_a_session_closed_by_the_server_ends_even_if_the_application_continues(serve: Serve) -> None:
    gate = Gate()

    async def lingers(socket: WebSocket) -> None:
        await socket.accept()
        await socket.close(4001)
        await gate.wait()

    served = serve(Starlette(routes=[WebSocketRoute("/lingers", lingers)]))
    with open_socket(served, "/lingers"):
        assert gate.reached.wait(60)
        assert eventually(lambda: sessions(served) == (0, 1))
        assert served.spans() == []
        gate.opened.set()

    assert (served.root().attributes or {})["websocket.close_code"] == 4001


@pytest.mark.parametrize(
    ("path", "status"), [("/refuse/1", 403), ("/deny/1", 401), ("/nope", 403), ("/breaks_early/1", 500)]
)
def test_a_refused_handshake_is_counted_and_is_not_a_session(serve: Serve, path: str, status: int) -> None:
    served = serve(websockets())
    with pytest.raises(InvalidStatus) as refused:
        open_socket(served, path)

    route = "unmatched" if path == "/nope" else path.replace("/1", "/{id}")
    root = served.root()
    assert refused.value.response.status_code == status
    assert eventually(lambda: served.counted() == [("GET", route, str(status))])
    assert sessions(served) == (0, 0)
    assert (root.attributes or {})["http.response.status_code"] == status
    assert root.status.status_code is (StatusCode.ERROR if status == 500 else StatusCode.UNSET)


def test_an_exception_fails_the_session_and_ends_it(serve: Serve) -> None:
    served = serve(websockets())
    with open_socket(served, "/breaks/1") as client:
        client.send("x")

    root = served.root()
    assert sessions(served) == (0, 1)
    assert root.status.status_code is StatusCode.ERROR
    assert [event.name for event in root.events] == ["exception"]
    assert eventually(lambda: served.counted() == [("GET", "/breaks/{id}", "101")])


def test_fifty_concurrent_sessions_are_counted_exactly(serve: Serve) -> None:
    served = serve(websockets())
    with contextlib.ExitStack() as stack:
        for number in range(50):
            client = stack.enter_context(open_socket(served, f"/echo/{number}"))
            client.send("x")
            client.recv()
        assert sessions(served) == (50, 0)

    assert eventually(lambda: sessions(served) == (0, 50))


def test_messages_that_do_not_fit_a_queue_are_counted_as_dropped(serve: Serve) -> None:
    served = serve(starlette())
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
    dropped = partial(served.recorder.metrics.websocket_outbound_dropped, "buffer_full")

    assert [offer(queue, number, dropped) for number in range(5)] == [True, True, False, False, False]
    assert [queue.get_nowait(), queue.get_nowait()] == [0, 1]
    served.recorder.assert_total("websocket_outbound_dropped_total", 3, reason="buffer_full")
    served.recorder.assert_total("websocket_outbound_dropped_total", 3)
