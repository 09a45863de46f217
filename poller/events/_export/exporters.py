"""Factory of OpenTelemetry's OTLP exporters, configured by the standard environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from poller.events._export.settings import SignalEndpoint, TelemetryError
from poller.model.errors import ConfigError
from poller.model.files import read_regular
from poller.model.otlp_endpoint import Signal
from poller.model.otlp_variables import MAX_TLS_BYTES, OtlpVariables, prepare_grpc

_MODULES: dict[Signal, tuple[str, str]] = {
    "traces": ("trace_exporter", "OTLPSpanExporter"),
    "metrics": ("metric_exporter", "OTLPMetricExporter"),
    "logs": ("_log_exporter", "OTLPLogExporter"),
}
_MOST_POINTS = 8000
"""Maximum number of data points in one request, typically 0.7 MB. A gRPC server accepts 4 MiB by default, and
the exporter loses a larger request completely."""


def build(signal: Signal, target: SignalEndpoint) -> Any:
    """Build the exporter; TLS, headers, compression and temporality come from `OTEL_EXPORTER_OTLP_*`.

    Raises TelemetryError if one of these variables is invalid or the package for HTTP is missing.
    """
    variables = OtlpVariables(os.environ, signal)
    try:
        options = {
            "endpoint": target.url,
            "timeout": target.timeout,
            "headers": variables.headers(),
            **({"max_export_batch_size": _MOST_POINTS} if signal == "metrics" else {}),
        }
        build_exporter = _grpc if target.protocol == "grpc" else _http
        return build_exporter(target, variables, options)
    except TelemetryError:
        raise
    except ConfigError as error:
        raise TelemetryError(map(str, error.problems)) from None
    except Exception as error:
        # Covers every setting that the exporters reject, such as a compression.
        raise TelemetryError([f"OTEL_EXPORTER_OTLP_*: {error}"]) from error


def _grpc(target: SignalEndpoint, variables: OtlpVariables, options: Mapping[str, Any]) -> Any:
    prepare_grpc(os.environ)
    from grpc import ssl_channel_credentials

    files = variables.files("grpc")
    plain_text = variables.is_plain_text(target)
    credentials = None
    if files and not plain_text:
        # The exporter itself ignores a missing file, and a client certificate without a CA.
        read = {option: read_regular(path, MAX_TLS_BYTES) for option, path in files.items()}
        credentials = ssl_channel_credentials(
            read.get("CERTIFICATE"), read.get("CLIENT_KEY"), read.get("CLIENT_CERTIFICATE")
        )
    return _class("grpc", variables.signal)(insecure=plain_text, credentials=credentials, **options)


def _http(target: SignalEndpoint, variables: OtlpVariables, options: Mapping[str, Any]) -> Any:
    try:
        import requests

        exporter = _class("http", variables.signal)
    except ImportError as error:
        advice = "requires an extra package: pip install opentelemetry-exporter-otlp-proto-http, or use gRPC"
        raise TelemetryError([f"{target}: OTLP over HTTP {advice}"]) from error
    files = {f"{option.lower()}_file": str(path) for option, path in variables.files("http/protobuf").items()}
    session = None
    # A credential provider supplies its own session.
    if not any("CREDENTIAL_PROVIDER" in name for name in os.environ):
        session = requests.Session()
        # Otherwise `requests` would replace the configured header with credentials from ~/.netrc.
        session.auth = _credentials_of_url
        session.hooks["response"].append(_refuse_redirect)
    return exporter(session=session, **files, **options)


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
