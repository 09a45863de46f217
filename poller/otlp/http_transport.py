"""HTTP transport of `requests` with connections that another thread can close."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from http.client import BadStatusLine, RemoteDisconnected
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter


class HttpSession(requests.Session):
    """A session for one URL in which the configured CA certificate takes precedence over the environment."""

    _environment: Any = None

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Keep OTEL_EXPORTER_OTLP_CERTIFICATE, which REQUESTS_CA_BUNDLE would override.

        The environment is read once: to look for a proxy, `requests` goes through all of it twice a request.
        """
        if self._environment is None:
            if verify is None and self.verify is not True:
                verify = self.verify
            self._environment = super().merge_environment_settings(url, proxies, stream, verify, cert)
        return self._environment


class AbortableConnection:
    """The current connection of one sender, which another thread can close at any time.

    It keeps a duplicate of the socket, because TLS detaches the socket during its handshake.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._deadline = math.inf

    def begin(self, deadline: float) -> None:
        """Start an exchange that may last until `deadline` (monotonic seconds)."""
        with self._lock:
            self._deadline = deadline

    def opened(self, connection: socket.socket) -> None:
        """Replace the connection with a new one. Raises TimeoutError after the deadline."""
        with self._lock:
            self._drop()
            if time.monotonic() > self._deadline:
                connection.close()
                raise TimeoutError("the time for the request is over")
            self._socket = connection.dup()

    def cut(self) -> None:
        """Close the connection, even while a thread uses it; a connection that opens later is refused."""
        with self._lock:
            self._deadline = -math.inf
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class AbortableAdapter(HTTPAdapter):
    """The transport of `requests`, with connections that an AbortableConnection can close."""

    def __init__(self, line: AbortableConnection) -> None:
        self._pools = abortable_pools(line)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager


def abortable_pools(line: AbortableConnection) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    """Return the pools of each URL scheme for a PoolManager, with connections that `line` can close."""

    class Lined:
        def _new_conn(self) -> socket.socket:
            opened: socket.socket = super()._new_conn()  # type: ignore[misc]  # a connection is its next class
            line.opened(opened)
            return opened

    def lined(pool: Any) -> Any:
        return type("LinedPool", (pool,), {"ConnectionCls": type("Lined", (Lined, pool.ConnectionCls), {})})

    return {scheme: lined(pool) for scheme, pool in urllib3.poolmanager.pool_classes_by_scheme.items()}


def cause_of(error: BaseException) -> str:
    """Return the innermost reason of an error of `requests` or urllib3; its own text repeats every layer."""
    inner: object = error
    while isinstance(inner, BaseException):
        error = inner
        nested = [inner.__cause__, getattr(inner, "reason", None), *inner.args]
        inner = next((argument for argument in nested if isinstance(argument, BaseException)), None)
    if isinstance(error, BadStatusLine) and not isinstance(error, RemoteDisconnected):
        # A SETTINGS frame of HTTP/2 (RFC 9113, section 6.5).
        grpc = str(error)[3:4] == "\x04"
        return "the port speaks gRPC, not HTTP/1.1" if grpc else "the port does not speak HTTP/1.1"
    return getattr(error, "strerror", None) or str(error)
