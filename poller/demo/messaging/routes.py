"""HTTP routes of the messaging server below `/v1`, and their error responses."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from uuid import UUID

from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from poller.demo.messaging import requests
from poller.demo.messaging.accounts import AccountService, Principal, Tokens
from poller.demo.messaging.attachments import AttachmentService
from poller.demo.messaging.backups import BackupService
from poller.demo.messaging.devices import DeviceService, Keys, KeyService
from poller.demo.messaging.gateway import Gateway
from poller.demo.messaging.limits import RateLimit
from poller.demo.messaging.messages import Message, MessageService
from poller.demo.messaging.refused import RefusedError
from poller.demo.messaging.settings import Settings
from poller.events import EventMetrics
from poller.events._asgi.exchange import CLIENT_LEFT
from poller.events.request import set_user

_LEAST_BACKUP = 32


class Routes:
    """Everything below `/v1`, as the server has it at v0.9.4, with JSON in place of Protobuf."""

    def __init__(
        self,
        accounts: AccountService,
        devices: DeviceService,
        keys: KeyService,
        messages: MessageService,
        attachments: AttachmentService,
        backups: BackupService,
        gateway: Gateway,
        settings: Settings,
    ) -> None:
        self._accounts = accounts
        self._devices = devices
        self._keys = keys
        self._messages = messages
        self._attachments = attachments
        self._backups = backups
        self._gateway = gateway
        self._settings = settings

    def mount(self, metrics: EventMetrics) -> Mount:
        """The routes, behind the rate limit."""
        return Mount(
            "/v1",
            routes=[
                _route("POST", "/users", self._sign_up),
                _route("GET", "/users/{userId:uuid}", self._bundles),
                _route("POST", "/sessions", self._log_in),
                _route("DELETE", "/sessions", self._log_out),
                _route("POST", "/sessions/refresh", self._refresh),
                _route("POST", "/devices", self._create_device),
                _route("POST", "/devices/keys", self._upload_keys),
                _route("DELETE", "/devices/{deviceId:uuid}", self._delete_device),
                _route("PUT", "/push-tokens", self._set_push_token),
                _route("POST", "/messages", self._send),
                _route("POST", "/gateway/ticket", self._ticket),
                WebSocketRoute("/gateway", self._connect),
                _route("POST", "/attachments", self._upload_attachment),
                _route("GET", "/attachments/{id:uuid}", self._download_attachment),
                _route("POST", "/backup", self._upload_backup),
                _route("GET", "/backup", self._download_backup),
            ],
            middleware=[Middleware(RateLimit, metrics=metrics, settings=self._settings)],
        )

    async def _sign_up(self, request: Request) -> Response:
        asked = await requests.read(request, requests.SignUp)
        principal, tokens = await self._accounts.register(asked.username, asked.password)
        return _let_in(201, principal, tokens)

    async def _log_in(self, request: Request) -> Response:
        asked = await requests.read(request, requests.Login)
        principal, tokens = await self._accounts.log_in(asked.username, asked.password, asked.device)
        return _let_in(200, principal, tokens)

    async def _refresh(self, request: Request) -> Response:
        asked = await requests.read(request, requests.Refresh)
        principal, tokens = await self._accounts.refresh(asked.refresh)
        return _let_in(200, principal, tokens)

    async def _log_out(self, request: Request) -> Response:
        self._who(request)
        asked = await requests.read(request, requests.Refresh)
        await self._accounts.log_out(_bearer(request), asked.refresh)
        return Response(status_code=204)

    async def _bundles(self, request: Request) -> Response:
        self._who(request)
        bundles = await self._keys.bundles(request.path_params["userId"])
        return JSONResponse(
            [
                {"device": str(device), "identity": _text(identity), "pre_key": key and _text(key)}
                for device, identity, key in bundles
            ]
        )

    async def _create_device(self, request: Request) -> Response:
        user = self._who(request).user
        asked = await requests.read(request, requests.NewDevice)
        principal = Principal(user, await self._devices.create(user, asked.name, _keys(asked.keys)))
        return _let_in(201, principal, await self._accounts.let_in(principal))

    async def _delete_device(self, request: Request) -> Response:
        await self._devices.delete(self._who(request).user, request.path_params["deviceId"])
        return Response(status_code=204)

    async def _upload_keys(self, request: Request) -> Response:
        device = self._device(request)
        asked = await requests.read(request, requests.KeyUpload)
        return JSONResponse({"taken_over": await self._keys.upload(device, _keys(asked))})

    async def _set_push_token(self, request: Request) -> Response:
        device = self._device(request)
        asked = await requests.read(request, requests.PushToken)
        await self._devices.set_push_token(device, asked.token)
        return Response(status_code=204)

    async def _send(self, request: Request) -> Response:
        sender = self._who(request)
        self._device(request)
        asked = await requests.read(request, requests.Outgoing)
        messages = [Message(one.submission, one.device, one.content) for one in asked.messages]
        return JSONResponse({"stored": await self._messages.send(sender, messages)}, 201)

    async def _ticket(self, request: Request) -> Response:
        self._device(request)
        return JSONResponse({"ticket": self._gateway.ticket(self._who(request))}, 201)

    async def _connect(self, socket: WebSocket) -> None:
        principal = self._gateway.redeem(socket.query_params.get("ticket", ""))
        if principal is None or principal.device is None:
            await socket.send_denial_response(JSONResponse({"error": "the ticket is not valid"}, 401))
            return
        set_user(principal.user)
        await socket.accept()
        await self._gateway.serve(socket, principal.device)

    async def _upload_attachment(self, request: Request) -> Response:
        self._who(request)
        content = await requests.read_content(request, self._settings.attachment_size)
        return JSONResponse({"id": str(await self._attachments.upload(content))}, 201)

    async def _download_attachment(self, request: Request) -> Response:
        self._who(request)
        return _bytes(await self._attachments.download(request.path_params["id"]))

    async def _upload_backup(self, request: Request) -> Response:
        device = self._device(request)
        content = await requests.read_content(request, self._settings.backup_size, _LEAST_BACKUP)
        return JSONResponse({"version": await self._backups.upload(device, content)})

    async def _download_backup(self, request: Request) -> Response:
        version, content = await self._backups.download(self._device(request))
        return _bytes(content, {"etag": f'"{version}"'})

    def _who(self, connection: HTTPConnection) -> Principal:
        """Who asks, which is told to the request's span. Raises RefusedError (401) where nobody knows."""
        principal = self._accounts.who(_bearer(connection))
        set_user(principal.user)
        return principal

    def _device(self, connection: HTTPConnection) -> UUID:
        """The device that asks. Raises RefusedError: 401, and 403 where the session is not a device's."""
        principal = self._who(connection)
        if principal.device is None:
            raise RefusedError(403, "set up a device first")
        return principal.device


async def refuse(_: Request, error: Exception) -> Response:
    """Answer what was refused."""
    assert isinstance(error, RefusedError)  # noqa: S101 - it is registered for those
    return JSONResponse({"error": str(error)}, error.status_code, error.headers)


async def fail(_: Request, error: Exception) -> Response:
    """Answer what has failed, without a word of why: that is in the log."""
    del error
    # Uvicorn closes the connection after an exception, and the client had better know.
    return JSONResponse({"error": "internal error"}, 500, {"connection": "close"})


async def let_go(_: Request, error: Exception) -> Response:
    """Answer a client that has gone, for the count's sake."""
    del error
    return Response(status_code=CLIENT_LEFT)


def _route(method: str, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    return Route(path, endpoint, methods=[method])


def _bearer(connection: HTTPConnection) -> str:
    return connection.headers.get("authorization", "").removeprefix("Bearer ")


def _let_in(status: int, principal: Principal, tokens: Tokens) -> Response:
    who = {"user": str(principal.user)} | ({"device": str(principal.device)} if principal.device else {})
    return JSONResponse({**who, **asdict(tokens)}, status)


def _bytes(content: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(content, media_type="application/octet-stream", headers=headers)


def _keys(asked: requests.KeyUpload) -> Keys:
    return Keys(asked.identity, [(one.id, one.key) for one in asked.pre_keys])


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
