"""Build what sends to an endpoint, as the standard variables want it."""

from __future__ import annotations

import importlib.metadata
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry.util.re import parse_env_headers

from poller.endpoint import Endpoint, Signal
from poller.errors import ConfigError, Problem
from poller.otlpforms import form_of
from poller.otlpvariables import Variables
from poller.redaction import Redaction, learn_environment, learn_url, redact

if TYPE_CHECKING:
    from poller.otlpgrpc import GrpcSender
    from poller.otlphttp import HttpSender

logger = logging.getLogger(__name__)

USER_AGENT = "obscura-poller"
_TALKATIVE = ("opentelemetry.util.re", "urllib3.connection", "urllib3.connectionpool")
"""Loggers that write a header which they do not understand, or the URL of every request."""
_REDACTION = Redaction()
_FILES = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")


def build(
    endpoint: Endpoint, timeout: float, environ: Mapping[str, str] = os.environ, signal: Signal = "metrics"
) -> GrpcSender | HttpSender:
    """Build what sends `signal`; `timeout` is in seconds and bounds one request. Nothing is sent yet.

    TLS, client certificates, headers and compression come from the standard `OTEL_EXPORTER_OTLP_[METRICS_]*`
    variables (OpenTelemetry specification, protocol/exporter.md). Raises ConfigError where one of them
    cannot be used, or where the package for HTTP is missing.
    """
    learn_environment(environ)
    learn_url(endpoint.url)
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_REDACTION)
    told = Variables(environ, signal)
    files = {kind: found for kind in _FILES if (found := told.file(kind))}
    try:
        return (_grpc if endpoint.protocol == "grpc" else _http)(endpoint, timeout, files, told)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise anything, and quote what they cannot read
        raise ConfigError([Problem("OTEL_EXPORTER_OTLP_*", redact(str(error)))]) from None


def _grpc(endpoint: Endpoint, timeout: float, files: Mapping[str, Path], told: Variables) -> GrpcSender:
    # gRPC's core writes its own lines to stderr, past every logger; what matters comes as a status.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Its traces show every header of every request, and it lets nobody mask them.
    if told.read("HEADERS") and os.environ.pop("GRPC_TRACE", None):
        logger.warning("GRPC_TRACE is left out of account: it would write the headers of OTLP")
    from grpc import ChannelCredentials, ssl_channel_credentials

    from poller.otlpgrpc import GrpcSender

    compression = _compression(told, "none", "gzip")
    plain_text = endpoint.plain_text
    if plain_text is None:
        plain_text = (told.read("INSECURE") or "").strip().lower() == "true"
    credentials = None if plain_text else _provided("GRPC", told, ChannelCredentials)
    if credentials is None and not plain_text:
        read = {kind: path.read_bytes() for kind, path in files.items()}
        credentials = ssl_channel_credentials(
            root_certificates=read.get("CERTIFICATE"),
            private_key=read.get("CLIENT_KEY"),
            certificate_chain=read.get("CLIENT_CERTIFICATE"),
        )
    return GrpcSender(
        urlsplit(endpoint.url).netloc or endpoint.url,
        tuple(_headers(told).items()),
        timeout,
        form=form_of(told.signal),
        credentials=credentials,
        gzip=compression == "gzip",
        user_agent=USER_AGENT,
    )


def _http(endpoint: Endpoint, timeout: float, files: Mapping[str, Path], told: Variables) -> HttpSender:
    try:
        import requests

        from poller.otlphttp import COMPRESSIONS, HttpSender, Session
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
    session = _provided("HTTP", told, requests.Session)
    if session is None:
        session = Session()
        if authority := files.get("CERTIFICATE"):
            session.verify = str(authority)
        certificate, key = files.get("CLIENT_CERTIFICATE"), files.get("CLIENT_KEY")
        if certificate:
            session.cert = (str(certificate), str(key)) if key else str(certificate)
    return HttpSender(
        endpoint.url,
        _headers(told),
        timeout,
        form=form_of(told.signal),
        compression=_compression(told, *COMPRESSIONS),
        user_agent=USER_AGENT,
        session=session,
    )


def _headers(told: Variables) -> Mapping[str, str]:
    return parse_env_headers(told.read("HEADERS") or "", liberal=True)


def _compression(told: Variables, *known: str) -> str:
    wanted = (told.read("COMPRESSION") or "none").strip().lower()
    if wanted not in known:
        what = f"{redact(wanted)!r} is not known here; write one of {', '.join(known)}"
        raise ConfigError([Problem(told.where("COMPRESSION") or "", what)])
    return wanted


def _provided(protocol: str, told: Variables, kind: Any) -> Any:
    """What an installed credential provider gives, if one is named: OpenTelemetry Python's own way."""
    prefix = f"OTEL_PYTHON_EXPORTER_OTLP_{protocol}_"
    names = [f"{prefix}{told.signal.upper()}_CREDENTIAL_PROVIDER", f"{prefix}CREDENTIAL_PROVIDER"]
    where = next((name for name in names if told.environ.get(name)), None)
    if where is None:
        return None
    points = importlib.metadata.entry_points(
        group="opentelemetry_otlp_credential_provider", name=told.environ[where]
    )
    try:
        given = next(iter(points)).load()()
    except StopIteration:
        what = f"{told.environ[where]!r} is not installed; install the package that provides it"
        raise ConfigError([Problem(where, what)]) from None
    except Exception as error:  # noqa: BLE001 - it is somebody else's program
        raise ConfigError([Problem(where, redact(f"{type(error).__name__}: {error}"))]) from None
    if not isinstance(given, kind):
        raise ConfigError([Problem(where, f"it gives a {type(given).__name__}, not a {kind.__name__}")])
    return given
