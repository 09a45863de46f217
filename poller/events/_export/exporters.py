"""Factory of OpenTelemetry's OTLP exporters, configured by the standard environment variables."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from poller.events._export.endpoint import Signal, Target
from poller.events._export.settings import TelemetryError
from poller.model.files import read_regular
from poller.model.otlp_limits import too_long_for_header

_MODULES: dict[Signal, tuple[str, str]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")
"""Names that HTTP/1.1 and gRPC can both send."""
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,16384}")
_FILES = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
_MOST_BYTES = 1 << 20
"""Of a file with certificates or a key."""
_MOST_POINTS = 8000
"""Data points of one request: 0.7 MB of ordinary ones. A gRPC server takes 4 MiB unless told otherwise, and
the exporter loses the whole of a larger request."""


def build(signal: Signal, target: Target) -> Any:
    """Build the exporter; TLS, headers, compression and temporality come from `OTEL_EXPORTER_OTLP_*`.

    Raises TelemetryError where one of them cannot be used, or where the package for HTTP is missing.
    """
    _check_headers(signal)
    try:
        return _grpc(signal, target) if target.protocol == "grpc" else _http(signal, target)
    except TelemetryError:
        raise
    except Exception as error:
        # Whatever the exporters cannot read: a compression, a header.
        raise TelemetryError([f"OTEL_EXPORTER_OTLP_*: {error}"]) from error


def _grpc(signal: Signal, target: Target) -> Any:
    # gRPC's core writes its own lines to stderr, past every logger.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # gRPC reads the name in small letters only, everything else in both.
    if "NO_PROXY" in os.environ:
        os.environ.setdefault("no_proxy", os.environ["NO_PROXY"])
    from grpc import ssl_channel_credentials

    files = _files(signal)
    plain_text = target.plain_text
    if plain_text is None:
        plain_text = (_read(signal, "INSECURE") or "").strip().lower() == "true"
    credentials = None
    if files and not plain_text:
        # Left to itself the exporter passes over a missing file, and a client certificate without a CA.
        read = {kind: read_regular(path, _MOST_BYTES) for kind, path in files.items()}
        credentials = ssl_channel_credentials(
            read.get("CERTIFICATE"), read.get("CLIENT_KEY"), read.get("CLIENT_CERTIFICATE")
        )
    return _class("grpc", signal)(
        endpoint=target.url,
        insecure=plain_text,
        credentials=credentials,
        timeout=target.timeout,
        **_limits(signal),
    )


def _http(signal: Signal, target: Target) -> Any:
    try:
        import requests

        exporter = _class("http", signal)
    except ImportError as error:
        wanted = "needs a package more: pip install opentelemetry-exporter-otlp-proto-http; or push by gRPC"
        raise TelemetryError([f"{target}: OTLP over HTTP {wanted}"]) from error
    _files(signal)  # this exporter takes them from the variables itself
    session = None
    # A credential provider brings a session of its own.
    if not any("CREDENTIAL_PROVIDER" in name for name in os.environ):
        session = requests.Session()
        # Without it `requests` would send what ~/.netrc has for the host, in place of our own header.
        session.auth = _credentials_of_url
        session.hooks["response"].append(_refuse_redirect)
    return exporter(endpoint=target.url, timeout=target.timeout, session=session, **_limits(signal))


def _credentials_of_url(request: Any) -> Any:
    """Send the user and password that the endpoint's URL holds, if any."""
    from requests.auth import HTTPBasicAuth
    from requests.utils import get_auth_from_url

    user, password = get_auth_from_url(request.url or "")
    return HTTPBasicAuth(user, password)(request) if user or password else request


def _refuse_redirect(response: Any, **_: Any) -> None:
    # The exporter follows none and takes it for a success: everything would be lost unseen.
    if 300 <= response.status_code < 400:
        response.close()
        raise ValueError(f"HTTP {response.status_code}: the collector is elsewhere; correct the endpoint")


def _class(protocol: str, signal: Signal) -> Any:
    module, name = _MODULES[signal]
    return getattr(import_module(f"opentelemetry.exporter.otlp.proto.{protocol}.{module}"), name)


def _limits(signal: Signal) -> dict[str, int]:
    return {"max_export_batch_size": _MOST_POINTS} if signal == "metrics" else {}


def _read(signal: Signal, name: str) -> str | None:
    prefixes = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_", "OTEL_EXPORTER_OTLP_")
    return next((found for prefix in prefixes if (found := os.environ.get(prefix + name))), None)


def _check_headers(signal: Signal) -> None:
    """Raise TelemetryError for what the exporter would drop or could never send, credentials for example."""
    problems = []
    for number, item in enumerate((_read(signal, "HEADERS") or "").split(","), 1):
        name, equals, value = (unquote(part).strip() for part in item.partition("="))
        # The item is not shown: it may be a part of a secret.
        if item.strip() and not (equals and _HEADER_NAME.fullmatch(name)):
            advice = "write one like authorization=Bearer%20TOKEN, and a comma in a value as %2C"
            problems.append(f"header {number} is not name=value; {advice}")
        elif not _HEADER_VALUE.fullmatch(value):
            problems.append(f"the value of header {number} has a character that no header can carry")
        elif too_long := too_long_for_header(value):
            problems.append(f"the value of header {number} {too_long}")
    if problems:
        raise TelemetryError([f"OTEL_EXPORTER_OTLP_HEADERS: {problem}" for problem in problems])


def _files(signal: Signal) -> dict[str, Path]:
    found = {kind: Path(name) for kind in _FILES if (name := _read(signal, kind))}
    problems = []
    for kind, path in found.items():
        try:
            read_regular(path, _MOST_BYTES)  # a pipe would hold up the start of the server
        except OSError as error:
            problems.append(f"OTEL_EXPORTER_OTLP_{kind}: {path} cannot be read: {error.strerror}")
    if problems:
        raise TelemetryError(problems)
    return found
