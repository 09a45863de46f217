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
from poller.demo.messaging.devices import DeviceService, KeyService, PublicKeys
from poller.demo.messaging.gateway import Gateway
from poller.demo.messaging.limits import RateLimit
from poller.demo.messaging.messages import Message, MessageService
from poller.demo.messaging.requests import RequestError
from poller.demo.messaging.settings import MessagingSettings
from poller.events import EventMetrics
from poller.events._asgi.exchange import CLIENT_CLOSED_REQUEST
from poller.events.request import set_user

_LEAST_BACKUP = 32


class Routes:
    """The routes of the original server at v0.9.4, with JSON instead of Protobuf."""

    def __init__(
        self,
        accounts: AccountService,
        devices: DeviceService,
        keys: KeyService,
        messages: MessageService,
        attachments: AttachmentService,
        backups: BackupService,
        gateway: Gateway,
        settings: MessagingSettings,
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
        """Return the routes, with the rate limit applied."""
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
        body = await requests.read(request, requests.SignUp)
        principal, tokens = await self._accounts.register(body.username, body.password)
        return _session(201, principal, tokens)

    async def _log_in(self, request: Request) -> Response:
        body = await requests.read(request, requests.Login)
        principal, tokens = await self._accounts.log_in(body.username, body.password, body.device)
        return _session(200, principal, tokens)

    async def _refresh(self, request: Request) -> Response:
        body = await requests.read(request, requests.Refresh)
        principal, tokens = await self._accounts.refresh(body.refresh)
        return _session(200, principal, tokens)

    async def _log_out(self, request: Request) -> Response:
        self._principal(request)
        body = await requests.read(request, requests.Refresh)
        await self._accounts.log_out(_bearer(request), body.refresh)
        return Response(status_code=204)

    async def _bundles(self, request: Request) -> Response:
        self._principal(request)
        bundles = await self._keys.bundles(request.path_params["userId"])
        return JSONResponse(
            [
                {"device": str(device), "identity": _text(identity), "pre_key": key and _text(key)}
                for device, identity, key in bundles
            ]
        )

    async def _create_device(self, request: Request) -> Response:
        user = self._principal(request).user
        body = await requests.read(request, requests.NewDevice)
        principal = Principal(user, await self._devices.create(user, body.name, _keys(body.keys)))
        return _session(201, principal, await self._accounts.create_tokens(principal))

    async def _delete_device(self, request: Request) -> Response:
        await self._devices.delete(self._principal(request).user, request.path_params["deviceId"])
        return Response(status_code=204)

    async def _upload_keys(self, request: Request) -> Response:
        device = self._device(request)
        body = await requests.read(request, requests.KeyUpload)
        return JSONResponse({"taken_over": await self._keys.upload(device, _keys(body))})

    async def _set_push_token(self, request: Request) -> Response:
        device = self._device(request)
        body = await requests.read(request, requests.PushToken)
        await self._devices.set_push_token(device, body.token)
        return Response(status_code=204)

    async def _send(self, request: Request) -> Response:
        sender = self._principal(request)
        self._device(request)
        body = await requests.read(request, requests.NewMessages)
        messages = [Message(item.submission, item.device, item.content) for item in body.messages]
        return JSONResponse({"stored": await self._messages.send(sender, messages)}, 201)

    async def _ticket(self, request: Request) -> Response:
        self._device(request)
        return JSONResponse({"ticket": self._gateway.ticket(self._principal(request))}, 201)

    async def _connect(self, socket: WebSocket) -> None:
        principal = self._gateway.redeem(socket.query_params.get("ticket", ""))
        if principal is None or principal.device is None:
            await socket.send_denial_response(
                JSONResponse({"error": "the ticket is invalid or expired; request a new ticket"}, 401)
            )
            return
        set_user(principal.user)
        await socket.accept()
        await self._gateway.serve(socket, principal.device)

    async def _upload_attachment(self, request: Request) -> Response:
        self._principal(request)
        content = await requests.read_content(request, self._settings.attachment_size)
        return JSONResponse({"id": str(await self._attachments.upload(content))}, 201)

    async def _download_attachment(self, request: Request) -> Response:
        self._principal(request)
        return _bytes(await self._attachments.download(request.path_params["id"]))

    async def _upload_backup(self, request: Request) -> Response:
        device = self._device(request)
        content = await requests.read_content(request, self._settings.backup_size, _LEAST_BACKUP)
        return JSONResponse({"version": await self._backups.upload(device, content)})

    async def _download_backup(self, request: Request) -> Response:
        version, content = await self._backups.download(self._device(request))
        return _bytes(content, {"etag": f'"{version}"'})

    def _principal(self, connection: HTTPConnection) -> Principal:
        """Return the principal and set the span's user. Raises RequestError (401) without a valid token."""
        principal = self._accounts.authenticate(_bearer(connection))
        set_user(principal.user)
        return principal

    def _device(self, connection: HTTPConnection) -> UUID:
        """Return the session's device. Raises RequestError: 401 without a token, 403 without a device."""
        principal = self._principal(connection)
        if principal.device is None:
            raise RequestError(403, "the session has no device; create a device first")
        return principal.device


async def rejected(_: Request, error: Exception) -> Response:
    """Return the response to a rejected request."""
    assert isinstance(error, RequestError)  # noqa: S101 - registered for this class
    return JSONResponse({"error": str(error)}, error.status_code, error.headers)


async def internal_error(_: Request, error: Exception) -> Response:
    """Return the response to a failed request; only the log has the reason."""
    del error
    # Uvicorn closes the connection after an exception; the header informs the client.
    return JSONResponse({"error": "internal error"}, 500, {"connection": "close"})


async def client_disconnected(_: Request, error: Exception) -> Response:
    """Return the status that counts a client that disconnected."""
    del error
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def _route(method: str, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    return Route(path, endpoint, methods=[method])


def _bearer(connection: HTTPConnection) -> str:
    return connection.headers.get("authorization", "").removeprefix("Bearer ")


def _session(status: int, principal: Principal, tokens: Tokens) -> Response:
    session = {"user": str(principal.user)} | ({"device": str(principal.device)} if principal.device else {})
    return JSONResponse({**session, **asdict(tokens)}, status)


def _bytes(content: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(content, media_type="application/octet-stream", headers=headers)


def _keys(upload: requests.KeyUpload) -> PublicKeys:
    return PublicKeys(upload.identity, [(pre_key.id, pre_key.key) for pre_key in upload.pre_keys])


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
