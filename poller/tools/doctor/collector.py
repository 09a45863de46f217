"""Diagnosis of the collector: result of an empty export, and the protocol at its port."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from poller.model.diagnostics import Diagnostic
from poller.model.errors import ConfigError
from poller.model.otlp_endpoint import Endpoint
from poller.model.otlp_variables import OtlpVariables
from poller.otlp.response import advise

_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""Client preface with an empty SETTINGS frame (RFC 9113, sections 3.4 and 6.5)."""
_SETTINGS = 4
_FRAME_HEADER = 9
_HTTP_ADVICE = "set POLLER_OTLP_PROTOCOL=http/protobuf, or use the collector's gRPC port (usually 4317)"
_GRPC_ADVICE = "set POLLER_OTLP_PROTOCOL=grpc, or use the collector's HTTP port (usually 4318)"
_CLIENT_ADVICE = (
    "if the collector requires a client certificate, set OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and "
    "OTEL_EXPORTER_OTLP_CLIENT_KEY; if they are set, the collector does not trust their certificate authority"
)


def network_problem(
    endpoint: Endpoint, timeout: float, environ: Mapping[str, str] = os.environ
) -> Diagnostic | None:
    """Return why an export to `endpoint` cannot work; None if the port shows no reason.

    Opens a few short connections and sends no metrics. Each wait takes at most `timeout` seconds.
    """
    place = _place(endpoint)
    if place is None or _uses_proxy(place[0]):
        return None
    variables = OtlpVariables(environ, "metrics")
    secure = not variables.is_plain_text(endpoint)
    try:
        with socket.create_connection(place, timeout):
            pass
    except socket.gaierror:
        return _problem(
            f"the host name {place[0]} cannot be resolved", "correct the endpoint's host, or add it to DNS"
        )
    except ConnectionRefusedError:
        return _problem(
            "connection refused",
            "start the collector, or correct host and port; its receiver accepts connections from other "
            "machines only with endpoint: 0.0.0.0:4317",
        )
    except TimeoutError:
        return _problem("no answer", "check the firewall, or correct host and port")
    except OSError as error:
        return _problem(
            error.strerror or "the host cannot be reached", "correct the endpoint, or fix the network"
        )
    try:
        return _protocol_problem(endpoint, place, timeout, variables, secure=secure)
    except OSError:
        return None


def _problem(message: str, advice: str) -> Diagnostic:
    return Diagnostic("error", "collector", message, advice)


def _protocol_problem(
    endpoint: Endpoint, place: tuple[str, int], timeout: float, variables: OtlpVariables, *, secure: bool
) -> Diagnostic | None:
    encrypted = _accepts_tls(place, timeout)
    if encrypted and not secure:
        return _problem("the port uses TLS, but the endpoint is plain text", "write https:// in the endpoint")
    if secure and not encrypted:
        return _problem("the port does not use TLS, but the endpoint does", "write http:// in the endpoint")
    context: ssl.SSLContext | None = None
    if secure:
        context = ssl.create_default_context(cafile=variables.read("CERTIFICATE"))
        context.set_alpn_protocols(["h2", "http/1.1"])
        if certificate := variables.read("CLIENT_CERTIFICATE"):
            context.load_cert_chain(certificate, variables.read("CLIENT_KEY"))
    try:
        protocol = _detect_protocol(place, timeout, context)
    except ssl.SSLCertVerificationError as error:
        return _problem(
            f"the collector's certificate is not accepted: {error.verify_message}",
            "set OTEL_EXPORTER_OTLP_CERTIFICATE to the authority's file, and use the certificate's host name",
        )
    except ssl.SSLError as error:
        if "CERTIFICATE" in (error.reason or ""):
            return _problem("the collector rejected the TLS handshake", _CLIENT_ADVICE)
        return _problem(f"the TLS handshake failed: {error.reason}", "check the collector's log")
    if secure and protocol is None:
        return _problem("the collector closes the connection after the TLS handshake", _CLIENT_ADVICE)
    if endpoint.protocol == "grpc" and protocol == "http/1.1":
        return _problem("the port uses HTTP/1.1, not gRPC", _HTTP_ADVICE)
    if endpoint.protocol == "http/protobuf" and protocol == "http/2":
        return _problem("the port uses gRPC, not HTTP/1.1", _GRPC_ADVICE)
    return None


def _accepts_tls(place: tuple[str, int], timeout: float) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is sent, so the identity does not matter
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        with (
            socket.create_connection(place, timeout) as plain,
            context.wrap_socket(plain, server_hostname=place[0]),
        ):
            return True
    except ssl.SSLError as error:
        # A peer that sends an alert understands TLS; any other error is not a TLS record.
        return "ALERT" in (error.reason or "")
    except OSError:
        return False


def _detect_protocol(
    place: tuple[str, int], timeout: float, context: ssl.SSLContext | None
) -> Literal["http/1.1", "http/2"] | None:
    """Try HTTP/2, then HTTP/1.1, and return the protocol that the port understands."""
    answer = _answer(place, timeout, context, _HTTP2_PREFACE)
    if len(answer) == _FRAME_HEADER and answer[3] == _SETTINGS:
        return "http/2"
    request = f"OPTIONS * HTTP/1.1\r\nHost: {place[0]}\r\nConnection: close\r\n\r\n"
    answer = _answer(place, timeout, context, request.encode())
    return "http/1.1" if answer.startswith(b"HTTP/1.") else None


def _answer(place: tuple[str, int], timeout: float, context: ssl.SSLContext | None, request: bytes) -> bytes:
    """The first bytes of the answer to `request`, at most the length of a frame header."""
    answer = b""
    with socket.create_connection(place, timeout) as plain:
        connection = plain if context is None else context.wrap_socket(plain, server_hostname=place[0])
        # A peer may close the connection; in TLS 1.3 it does so if the client certificate is missing.
        with connection, contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            connection.sendall(request)
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
        return None  # a target scheme of gRPC
    # gRPC uses port 443 by default, with or without TLS.
    default_port = 80 if parts.scheme == "http" and endpoint.protocol != "grpc" else 443
    return parts.hostname, port or default_port


def _uses_proxy(host: str) -> bool:
    """Whether exports use a proxy; the port then shows nothing about them."""
    proxies = getproxies()
    return any(kind in proxies for kind in ("http", "https", "all", "grpc")) and not proxy_bypass(host)


LONGEST_SECONDS = 5.0
"""Timeout of the diagnosis in seconds; the daemon waits for POLLER_EXPORT_TIMEOUT."""
_PORT_SECONDS = 2.0
_SLOW = "the collector does not answer in time: check its load and log"
_LAST_ADVICE = {
    "UNIMPLEMENTED": "the server accepts no OTLP metrics; add a pipeline for metrics to its otlp receiver",
    "DEADLINE_EXCEEDED": _SLOW,
    "ReadTimeout": _SLOW,
}
"""Advice by error, used if the port itself shows no problem."""


def examine(endpoint: Endpoint | None, timeout: float) -> Diagnostic:
    """Send an empty export to `endpoint`, which checks connection, TLS, credentials and path.

    The export takes at most `timeout` and at most LONGEST_SECONDS seconds. Problems with the collector are
    findings, not exceptions.
    """
    if endpoint is None:
        return Diagnostic(
            "skip",
            "collector",
            "no endpoint: results are only logged",
            "set POLLER_OTLP_ENDPOINT to export them",
        )
    facts: dict[str, object] = {"endpoint": str(endpoint), "protocol": endpoint.protocol}
    target = f"{endpoint} by {endpoint.protocol}"
    try:
        reason, duration = _export(endpoint, min(timeout, LONGEST_SECONDS))
    except ConfigError as error:
        problems = "; ".join(map(str, error.problems))
        return Diagnostic("error", "collector", f"{target}: {problems}", facts=facts)
    if reason is None:
        facts["duration"] = round(duration, 6)
        return Diagnostic(
            "ok", "collector", f"{target} accepted an empty export in {duration * 1000:.0f} ms", facts=facts
        )
    facts["error"] = reason
    if hint := advise(reason, answered=True):
        return Diagnostic("error", "collector", f"{target}: {reason}", hint, facts=facts)
    if problem := network_problem(endpoint, _PORT_SECONDS):
        return replace(problem, message=f"{target}: {problem.message}", facts=facts)
    last = next((advice for error, advice in _LAST_ADVICE.items() if error in reason), None)
    advice = last or "check the collector's log, and proxies or firewalls on the way to it"
    return Diagnostic("error", "collector", f"{target}: {reason}", advice, facts=facts)


def _export(endpoint: Endpoint, timeout: float) -> tuple[str | None, float]:
    """Send an empty request; return the reason of a failure, without secrets, and the duration in seconds.

    Raises ConfigError if the standard variables cannot be used.
    """
    from poller.otlp.sender import build_sender

    sender = build_sender(endpoint, timeout)
    since = time.monotonic()
    try:
        answer = sender.send(b"")
        duration = time.monotonic() - since
    finally:
        sender.close()
    return None if answer.disposition == "accepted" else answer.reason, duration
