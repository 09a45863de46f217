"""Build OpenTelemetry's own exporter for an endpoint, as the standard variables want it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from poller.endpoint import Endpoint
from poller.errors import ConfigError, Problem
from poller.redaction import Redaction, learn_environment, learn_url, redact
from poller.secrets import show_path, userinfo

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

logger = logging.getLogger(__name__)

MAX_POINTS = 8000
"""Data points of one request: 0.7 MB of ordinary ones. A gRPC server takes 4 MiB unless told otherwise (so
does the collector's receiver), and the exporter loses the whole of a larger request after all its retries."""

_PREFIXES = ("OTEL_EXPORTER_OTLP_METRICS_", "OTEL_EXPORTER_OTLP_")
_TALKATIVE = ("opentelemetry.util.re", "urllib3.connection", "urllib3.connectionpool")
"""Loggers that write a header which they do not understand, or the URL of every request."""
_REDACTION = Redaction()
_FILES = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")


def build(endpoint: Endpoint, timeout: float, environ: Mapping[str, str] = os.environ) -> MetricExporter:
    """Build the exporter; `timeout` is in seconds and bounds one request with all its retries.

    TLS, client certificates, headers, compression and temporality come from the standard
    `OTEL_EXPORTER_OTLP_[METRICS_]*` variables. Raises ConfigError where one of them cannot be used, or
    where the package for HTTP is missing.
    """
    learn_environment(environ)
    learn_url(endpoint.url)
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_REDACTION)
    files = {kind: found for kind in _FILES if (found := _file(kind, environ))}
    try:
        return (_grpc if endpoint.protocol == "grpc" else _http)(endpoint, timeout, files, environ)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - exporters raise anything, and quote what they cannot read
        # Whatever the exporters cannot read: a compression, a number.
        raise ConfigError([Problem("OTEL_EXPORTER_OTLP_*", redact(str(error)))]) from None


def secrets(endpoint: Endpoint, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Every text that must not be shown although a library may put it into a message."""
    found = [_read("HEADERS", environ) or ""]
    found += [pair.partition("=")[2].strip() for pair in found[0].split(",")]
    found += [word for value in list(found) for word in unquote(value).split()]
    if user := userinfo(endpoint.url):
        found += [user, user.partition(":")[2]]
    return tuple(sorted({text for text in found if len(text) > 3}, key=len, reverse=True))


def _grpc(
    endpoint: Endpoint, timeout: float, files: Mapping[str, Path], environ: Mapping[str, str]
) -> MetricExporter:
    # gRPC's core writes its own lines to stderr, past every logger; what matters comes as a status.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Its traces show every header of every request, and it lets nobody mask them.
    if _read("HEADERS", environ) and os.environ.pop("GRPC_TRACE", None):
        logger.warning("GRPC_TRACE is left out of account: it would write the headers of OTLP")
    from grpc import ssl_channel_credentials
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    plain_text = endpoint.plain_text
    if plain_text is None:
        plain_text = (_read("INSECURE", environ) or "").strip().lower() == "true"
    credentials = None
    if files and not plain_text:
        # Left to itself the exporter passes over a missing file, and a client certificate without a CA.
        read = {kind: path.read_bytes() for kind, path in files.items()}
        credentials = ssl_channel_credentials(
            root_certificates=read.get("CERTIFICATE"),
            private_key=read.get("CLIENT_KEY"),
            certificate_chain=read.get("CLIENT_CERTIFICATE"),
        )
    return OTLPMetricExporter(
        endpoint=endpoint.url,
        insecure=plain_text,
        credentials=credentials,
        timeout=timeout,
        max_export_batch_size=MAX_POINTS,
    )


def _http(
    endpoint: Endpoint, timeout: float, files: Mapping[str, Path], environ: Mapping[str, str]
) -> MetricExporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        from poller.otlpsession import Session
    except ImportError as error:
        raise ConfigError(
            [
                Problem(
                    str(endpoint),
                    "OTLP over HTTP needs a package more: pip install 'obscura-poller[http]'; "
                    "or push by gRPC, port 4317",
                )
            ]
        ) from error
    del files  # they were looked at; this exporter takes them from the variables itself
    # A credential provider brings a session of its own.
    session = None if any("CREDENTIAL_PROVIDER" in name for name in environ) else Session()
    return OTLPMetricExporter(
        endpoint=endpoint.url, timeout=timeout, session=session, max_export_batch_size=MAX_POINTS
    )


def _read(name: str, environ: Mapping[str, str]) -> str | None:
    return next((found for prefix in _PREFIXES if (found := environ.get(prefix + name))), None)


def _file(kind: str, environ: Mapping[str, str]) -> Path | None:
    for prefix in _PREFIXES:
        if name := environ.get(prefix + kind):
            path = Path(name)
            try:
                with path.open("rb"):
                    return path
            except OSError as error:
                # A key itself may stand where its file's name belongs.
                shown = show_path(name) if kind == "CLIENT_KEY" or not name.isprintable() else repr(name)
                what = f"{shown} cannot be read: {error.strerror}"
                raise ConfigError([Problem(prefix + kind, what)]) from None
    return None
