"""A stateful API server of Kubernetes for Leases, over a real socket, with faults."""

from __future__ import annotations

import contextlib
import copy
import json
import socket
import ssl
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import trustme

from poller.receiver.ports import LOOPBACK, free_ports

NAMESPACE = "observability"
_LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
Fault = Literal[
    "hang", "lost", "slow", "endless", "endless-error", "cut", "page", "unavailable", "conflict", "forbidden"
]
"""What happens to one request.

hang           it is not applied and has no answer
lost           it is applied, and its answer is lost
slow           it is applied, and its answer arrives byte by byte
endless        it is applied, and its answer never ends; also with the status of an error
cut            the connection is closed without an answer
page           a web page answers
others         it is not applied, and the answer is an error
"""


class Leases:
    """The Leases of a cluster, with optimistic concurrency as in the API."""

    def __init__(self) -> None:
        self.stored: dict[str, dict[str, Any]] = {}
        self.version = 100
        self._lock = threading.Lock()

    def apply(self, method: str, name: str, document: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        """Apply a request and return the status and the answer."""
        with self._lock:
            stored = self.stored.get(name)
            if method == "POST":
                if stored is not None:
                    return status(409, f'leases.coordination.k8s.io "{name}" already exists')
            elif stored is None:
                return status(404, f'leases.coordination.k8s.io "{name}" not found')
            if method == "GET" or document is None:
                return 200, copy.deepcopy(stored or {})
            if stored is not None and version_of(document) != version_of(stored):
                return status(409, "the object has been modified")
            self.put(name, document)
            return (201 if method == "POST" else 200), copy.deepcopy(self.stored[name])

    def put(self, name: str, document: dict[str, Any]) -> None:
        """Store a Lease, whatever it contains."""
        self.version += 1
        self.stored[name] = copy.deepcopy(document)
        self.stored[name].setdefault("metadata", {})
        if isinstance(self.stored[name]["metadata"], dict):
            self.stored[name]["metadata"] |= {"name": name, "resourceVersion": str(self.version)}

    def spec(self, name: str) -> dict[str, Any]:
        return dict(self.stored[name]["spec"])


def version_of(document: dict[str, Any]) -> object:
    return document["metadata"]["resourceVersion"]


def status(code: int, message: str) -> tuple[int, dict[str, Any]]:
    """Return an error of the API."""
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


class KubernetesApiServer:
    """Listens on loopback until it is closed; `faults` are of the next requests, in order."""

    def __init__(self, authority: trustme.CA | None = None) -> None:
        self.leases = Leases()
        self.faults: deque[Fault | None] = deque()
        self.always: Fault | None = None
        """The fault of every request."""
        self.requests: list[tuple[str, str, dict[str, Any] | None]] = []
        self.tokens: list[str] = []
        """The token of each request."""
        self.accepts: str | None = None
        """The only accepted token; None: every one."""
        self._ended = threading.Event()
        self._authority = authority
        (self.port,) = free_ports(1)
        self._server: ThreadingHTTPServer | None = None
        self.listen()

    def listen(self) -> None:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                api.answer(self)

            do_POST = do_PUT = do_GET  # noqa: N815 - names of http.server

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments: object) -> None:
                """Print nothing if a client disconnects."""

        self._server = Server((LOOPBACK, self.port), Handler)
        if self._authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._authority.issue_cert(LOOPBACK).configure_cert(context)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def refuse(self) -> None:
        """Stop listening; connections that exist end with their next request."""
        self.always = "cut"
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def close(self) -> None:
        self._ended.set()
        self.refuse()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        document = json.loads(body) if body else None
        name = request.path.removeprefix(_LEASES).removeprefix("/") or str(
            (document or {})["metadata"]["name"]
        )
        self.requests.append((request.command, name, document))
        self.tokens.append(request.headers.get("Authorization", ""))
        with contextlib.suppress(IndexError):
            fault = self.always or self.faults.popleft()
            if self._disturb(fault, request, name, document):
                return
        if self.accepts is not None and self.tokens[-1] != self.accepts:
            reply(request, *status(401, "Unauthorized"))
        else:
            reply(request, *self.leases.apply(request.command, name, document))

    def _disturb(
        self, fault: Fault | None, request: BaseHTTPRequestHandler, name: str, document: dict[str, Any] | None
    ) -> bool:
        """Return whether the fault has replaced the answer."""
        if fault is None:
            return False
        if fault in ("lost", "slow", "endless"):
            self.leases.apply(request.command, name, document)
        match fault:
            case "hang" | "lost":
                self._ended.wait(60)
            case "slow":
                for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" " * 100_000:
                    if self._ended.wait(0.05):
                        break
                    request.wfile.write(bytes([byte]))
            case "endless" | "endless-error":
                line = "200 OK" if fault == "endless" else "500 Internal Server Error"
                request.wfile.write(f"HTTP/1.1 {line}\r\n\r\n".encode())
                while not self._ended.is_set():
                    request.wfile.write(b" " * 65536)
            case "cut":
                with contextlib.suppress(OSError):
                    request.connection.shutdown(socket.SHUT_RDWR)
            case "page":
                page = b"<html>Sign in</html>"
                request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page)
            case "unavailable":
                reply(request, *status(500, "etcdserver: request timed out"))
            case "conflict":
                reply(request, *status(409, "the object has been modified"))
            case "forbidden":
                reply(request, *status(403, "leases.coordination.k8s.io is forbidden"))
        # After a complete answer the client sends its next request on the same connection.
        request.close_connection = fault not in ("page", "unavailable", "conflict", "forbidden")
        return True

    def kubeconfig(self, file: Path) -> Path:
        """Write a kubeconfig for this server."""
        cluster = {"server": f"http://{LOOPBACK}:{self.port}"}
        return write_kubeconfig(file, cluster, NAMESPACE, "secret-token")


def write_kubeconfig(file: Path, cluster: dict[str, str], namespace: str, token: str) -> Path:
    """Write a kubeconfig for an account with `token`, whose requests are for `namespace`."""
    context = {"cluster": "c", "user": "u", "namespace": namespace}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": context}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def reply(request: BaseHTTPRequestHandler, code: int, document: dict[str, Any]) -> None:
    content = json.dumps(document).encode()
    request.send_response(code)
    request.send_header("Content-Type", "application/json")
    request.send_header("Content-Length", str(len(content)))
    request.end_headers()
    request.wfile.write(content)


@contextlib.contextmanager
def kubernetes_api(authority: trustme.CA | None = None) -> Iterator[KubernetesApiServer]:
    server = KubernetesApiServer(authority)
    try:
        yield server
    finally:
        server.close()
