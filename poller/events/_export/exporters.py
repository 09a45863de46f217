"""Factory of OpenTelemetry's OTLP exporters, configured by the standard environment variables."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from poller.events._export.endpoint import Signal, SignalEndpoint
from poller.events._export.settings import TelemetryError
from poller.model.files import read_regular
from poller.model.otlp_limits import too_long_for_header

_MODULES: dict[Signal, tuple[str, str]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_HEADER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")
"""Header names that both HTTP/1.1 and gRPC can send."""
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,16384}")
_FILES = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
_MOST_BYTES = 1 << 20
"""Maximum size of a file with certificates or a key, in bytes."""
_MOST_POINTS = 8000
"""Maximum number of data points in one request, typically 0.7 MB. A gRPC server accepts 4 MiB by default, and
the exporter loses a larger request completely."""


def build(signal: Signal, target: SignalEndpoint) -> Any:
    """Build the exporter; TLS, headers, compression and temporality come from `OTEL_EXPORTER_OTLP_*`.

    Raises TelemetryError if one of these variables is invalid or the package for HTTP is missing.
    """
    _check_headers(signal)
    try:
        return _grpc(signal, target) if target.protocol == "grpc" else _http(signal, target)
    except TelemetryError:
        raise
    except Exception as error:
        # Covers every setting that the exporters reject, such as a compression.
        raise TelemetryError([f"OTEL_EXPORTER_OTLP_*: {error}"]) from error


def _grpc(signal: Signal, target: SignalEndpoint) -> Any:
    # gRPC's core writes directly to stderr, not through a logger.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # gRPC reads `no_proxy` in lower case only; it reads the other proxy variables in both cases.
    if "NO_PROXY" in os.environ:
        os.environ.setdefault("no_proxy", os.environ["NO_PROXY"])
    from grpc import ssl_channel_credentials

    files = _files(signal)
    plain_text = target.plain_text
    if plain_text is None:
        plain_text = (_read(signal, "INSECURE") or "").strip().lower() == "true"
    credentials = None
    if files and not plain_text:
        # The exporter itself ignores a missing file, and a client certificate without a CA.
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


def _http(signal: Signal, target: SignalEndpoint) -> Any:
    try:
        import requests

        exporter = _class("http", signal)
    except ImportError as error:
        advice = "requires an extra package: pip install opentelemetry-exporter-otlp-proto-http, or use gRPC"
        raise TelemetryError([f"{target}: OTLP over HTTP {advice}"]) from error
    _files(signal)  # the HTTP exporter reads the variables itself
    session = None
    # A credential provider supplies its own session.
    if not any("CREDENTIAL_PROVIDER" in name for name in os.environ):
        session = requests.Session()
        # Otherwise `requests` would replace the configured header with credentials from ~/.netrc.
        session.auth = _credentials_of_url
        session.hooks["response"].append(_refuse_redirect)
    return exporter(endpoint=target.url, timeout=target.timeout, session=session, **_limits(signal))


def _credentials_of_url(request: Any) -> Any:
    """Send the user and password from the endpoint's URL, if it has any."""
    from requests.auth import HTTPBasicAuth
    from requests.utils import get_auth_from_url

    user, password = get_auth_from_url(request.url or "")
    return HTTPBasicAuth(user, password)(request) if user or password else request


def _refuse_redirect(response: Any, **_: Any) -> None:
    # The exporter does not follow redirects and treats them as success, so all data would be lost unnoticed.
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
    return next((value for prefix in prefixes if (value := os.environ.get(prefix + name))), None)


def _check_headers(signal: Signal) -> None:
    """Raise TelemetryError for headers that the exporter would drop or cannot send, such as credentials."""
    problems = []
    for number, item in enumerate((_read(signal, "HEADERS") or "").split(","), 1):
        name, equals, value = (unquote(part).strip() for part in item.partition("="))
        # The item is not shown, because it may be part of a secret.
        if item.strip() and not (equals and _HEADER_NAME.fullmatch(name)):
            advice = "write one like authorization=Bearer%20TOKEN, and a comma in a value as %2C"
            problems.append(f"header {number} is not name=value; {advice}")
        elif not _HEADER_VALUE.fullmatch(value):
            problems.append(f"the value of header {number} has a character that is not allowed in a header")
        elif too_long := too_long_for_header(value):
            problems.append(f"the value of header {number} {too_long}")
    if problems:
        raise TelemetryError([f"OTEL_EXPORTER_OTLP_HEADERS: {problem}" for problem in problems])


def _files(signal: Signal) -> dict[str, Path]:
    paths = {kind: Path(name) for kind in _FILES if (name := _read(signal, kind))}
    problems = []
    for kind, path in paths.items():
        try:
            read_regular(path, _MOST_BYTES)  # rejects a pipe, which would block the server's start
        except OSError as error:
            problems.append(f"OTEL_EXPORTER_OTLP_{kind}: {path} cannot be read: {error.strerror}")
    if problems:
        raise TelemetryError(problems)
    return paths
