"""Diagnosis of the collector: result of an empty export, and the protocol at its port."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from poller.config.endpoint import Endpoint
from poller.model.errors import ConfigError
from poller.otlp import response as export_result
from poller.tools.doctor.finding import Finding

if TYPE_CHECKING:
    from poller.config.endpoint import Endpoint


_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The client's preface and its empty SETTINGS frame (RFC 9113, sections 3.4 and 6.5)."""
_SETTINGS = 4
_FRAME_HEADER = 9
_CA = ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")
_HTTP_ADVICE = "set POLLER_OTLP_PROTOCOL=http/protobuf, or use the collector's port for gRPC (mostly 4317)"
_GRPC_ADVICE = "set POLLER_OTLP_PROTOCOL=grpc, or use the collector's port for HTTP (mostly 4318)"
_CLIENT_ADVICE = (
    "if the collector wants a client's certificate, name it in OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and its "
    "key in OTEL_EXPORTER_OTLP_CLIENT_KEY; if it has one already, the collector does not know its authority"
)


@dataclass(frozen=True, slots=True)
class NetworkProblem:
    """What is wrong with a port, and what to do."""

    message: str
    advice: str


def network_problem(
    endpoint: Endpoint, timeout: float, environ: Mapping[str, str] = os.environ
) -> NetworkProblem | None:
    """Say why an export to `endpoint` could not work; None where the port gives no reason.

    Makes a few short connections, each wait on them bounded by `timeout` seconds, and sends no metrics.
    """
    place = _place(endpoint)
    if place is None or _proxied(place[0]):
        return None
    secure = not _plain_text(endpoint, environ)
    try:
        with socket.create_connection(place, timeout):
            pass
    except socket.gaierror:
        return NetworkProblem(
            f"the name {place[0]} is not known", "correct the endpoint's host, or make it known to DNS"
        )
    except ConnectionRefusedError:
        return NetworkProblem(
            "connection refused",
            "start the collector, or correct host and port; its receiver hears other machines only with "
            "endpoint: 0.0.0.0:4317",
        )
    except TimeoutError:
        return NetworkProblem("nothing answers", "look for a firewall, or correct host and port")
    except OSError as error:
        return NetworkProblem(
            error.strerror or "the host cannot be reached", "correct the endpoint, or the network"
        )
    try:
        return _problem_inside(endpoint, place, timeout, environ, secure=secure)
    except OSError:
        return None


def _problem_inside(
    endpoint: Endpoint, place: tuple[str, int], timeout: float, environ: Mapping[str, str], *, secure: bool
) -> NetworkProblem | None:
    encrypted = _takes_tls(place, timeout)
    if encrypted and not secure:
        return NetworkProblem(
            "TLS is spoken there, and the endpoint says plain text", "write https:// in the endpoint"
        )
    if secure and not encrypted:
        return NetworkProblem(
            "no TLS is spoken there, and the endpoint says TLS", "write http:// in the endpoint"
        )
    context: ssl.SSLContext | None = None
    if secure:
        context = ssl.create_default_context(cafile=_first(_CA, environ))
        context.set_alpn_protocols(["h2", "http/1.1"])
        certificate, key = _client_files(environ)
        if certificate:
            context.load_cert_chain(certificate, key)
    try:
        spoken = _spoken(place, timeout, context)
    except ssl.SSLCertVerificationError as error:
        return NetworkProblem(
            f"its certificate is not accepted: {error.verify_message}",
            "name the authority's file in OTEL_EXPORTER_OTLP_CERTIFICATE, the host as the certificate does",
        )
    except ssl.SSLError as error:
        if "CERTIFICATE" in (error.reason or ""):
            return NetworkProblem("the TLS handshake was refused", _CLIENT_ADVICE)
        return NetworkProblem(f"the TLS handshake failed: {error.reason}", "look at the collector's log")
    if secure and spoken is None:
        return NetworkProblem("the connection is ended right after the TLS handshake", _CLIENT_ADVICE)
    if endpoint.protocol == "grpc" and spoken == "http/1.1":
        return NetworkProblem("HTTP/1.1 is spoken there, not gRPC", _HTTP_ADVICE)
    if endpoint.protocol == "http/protobuf" and spoken == "http/2":
        return NetworkProblem("gRPC is spoken there, not HTTP/1.1", _GRPC_ADVICE)
    return None


def _takes_tls(place: tuple[str, int], timeout: float) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent: only who answers matters
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with (
            socket.create_connection(place, timeout) as plain,
            context.wrap_socket(plain, server_hostname=place[0]),
        ):
            return True
    except ssl.SSLError as error:
        # Who refuses by an alert has understood; anything else is no record of TLS.
        return "ALERT" in (error.reason or "")
    except OSError:
        return False


def _spoken(
    place: tuple[str, int], timeout: float, context: ssl.SSLContext | None
) -> Literal["http/1.1", "http/2"] | None:
    """Greet as HTTP/2 does, then as HTTP/1.1 does, and see which is understood."""
    answer = _answer(place, timeout, context, _HTTP2_PREFACE)
    if len(answer) == _FRAME_HEADER and answer[3] == _SETTINGS:
        return "http/2"
    request = f"OPTIONS * HTTP/1.1\r\nHost: {place[0]}\r\nConnection: close\r\n\r\n"
    answer = _answer(place, timeout, context, request.encode())
    return "http/1.1" if answer.startswith(b"HTTP/1.") else None


def _answer(place: tuple[str, int], timeout: float, context: ssl.SSLContext | None, words: bytes) -> bytes:
    """The first bytes said to `words`, as many as the header of a frame has."""
    answer = b""
    with socket.create_connection(place, timeout) as plain:
        connection = plain if context is None else context.wrap_socket(plain, server_hostname=place[0])
        # Who hangs up has said what there is to say; in TLS 1.3 so does who misses a client's certificate.
        with connection, contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            connection.sendall(words)
            while len(answer) < _FRAME_HEADER and (more := connection.recv(_FRAME_HEADER - len(answer))):
                answer += more
    return answer


def _place(endpoint: Endpoint) -> tuple[str, int] | None:
    url = endpoint.url if "://" in endpoint.url else f"//{endpoint.url}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("", "http", "https") or not parts.hostname:
        return None  # gRPC's own kinds of targets
    # gRPC takes 443 where none is written, with TLS or without.
    by_default = 80 if parts.scheme == "http" and endpoint.protocol != "grpc" else 443
    return parts.hostname, port or by_default


def _plain_text(endpoint: Endpoint, environ: Mapping[str, str]) -> bool:
    if endpoint.plain_text is not None:
        return endpoint.plain_text
    names = ("OTEL_EXPORTER_OTLP_METRICS_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE")
    return (_first(names, environ) or "").strip().lower() == "true"


def _proxied(host: str) -> bool:
    """Whether a proxy stands between: then the port says nothing of what an export meets."""
    proxies = getproxies()
    return any(kind in proxies for kind in ("http", "https", "all", "grpc")) and not proxy_bypass(host)


def _client_files(environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    certificate = ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE")
    key = ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY")
    return _first(certificate, environ), _first(key, environ)


def _first(names: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    return next((environ[name] for name in names if environ.get(name)), None)


LONGEST_SECONDS = 5.0
"""The daemon takes POLLER_EXPORT_TIMEOUT, and is more patient."""
_PORT_SECONDS = 2.0
_SLOW = "it is there and does not answer in time: look at the collector's load and log"
_LAST_ADVICE = {
    "UNIMPLEMENTED": "who answers takes no OTLP metrics: has the otlp receiver a metrics pipeline?",
    "DEADLINE_EXCEEDED": _SLOW,
    "ReadTimeout": _SLOW,
}
"""What the port itself has to be looked at for first."""


def examine(endpoint: Endpoint | None, timeout: float) -> Finding:
    """Export nothing to `endpoint`, for real: connection, TLS, credentials and path are all looked at.

    `timeout` is in seconds and bounds the export, but it is never longer than LONGEST_SECONDS. Raises nothing
    for the collector's sake.
    """
    if endpoint is None:
        return Finding(
            "collector", "skip", "none: results are logged only", "set POLLER_OTLP_ENDPOINT to push them"
        )
    facts: dict[str, object] = {"endpoint": str(endpoint), "protocol": endpoint.protocol}
    what = f"{endpoint} by {endpoint.protocol}"
    try:
        reason, took = _export(endpoint, min(timeout, LONGEST_SECONDS))
    except ConfigError as error:
        problems = "; ".join(map(str, error.problems))
        return Finding("collector", "fail", f"{what}: {problems}", facts=facts)
    if reason is None:
        facts["duration"] = round(took, 6)
        return Finding("collector", "ok", f"{what} took an empty export in {took * 1000:.0f} ms", facts=facts)
    facts["error"] = reason
    if hint := export_result.advice(reason, answered=True):
        return Finding("collector", "fail", f"{what}: {reason}", hint, facts=facts)
    if found := network_problem(endpoint, _PORT_SECONDS):
        return Finding("collector", "fail", f"{what}: {found.message}", found.advice, facts=facts)
    last = next((advice for word, advice in _LAST_ADVICE.items() if word in reason), None)
    advice = last or "look at the collector's log, and at what stands between here and it"
    return Finding("collector", "fail", f"{what}: {reason}", advice, facts=facts)


def _export(endpoint: Endpoint, timeout: float) -> tuple[str | None, float]:
    """Send an empty request; None when it was taken, else the reason without secrets; and its seconds.

    Raises ConfigError where the standard variables cannot be used.
    """
    from poller.otlp import sender as otlp

    sender = otlp.build(endpoint, timeout)
    since = time.monotonic()
    try:
        answer = sender.send(b"")
        took = time.monotonic() - since
    finally:
        sender.close()
    return None if answer.fate == "taken" else answer.reason, took
