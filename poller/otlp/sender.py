"""Sender for an endpoint, configured by the standard OTEL_EXPORTER_OTLP_* variables."""

from __future__ import annotations

import importlib.metadata
import ipaddress
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.files import read_regular
from poller.model.otlp_endpoint import Endpoint, Signal
from poller.model.otlp_variables import MAX_TLS_BYTES, OtlpVariables, prepare_grpc
from poller.model.redaction import Redaction, learn_environment, learn_url, redact
from poller.model.text import install
from poller.otlp.signals import format_of

if TYPE_CHECKING:
    from poller.otlp.grpc import GrpcSender
    from poller.otlp.http import HttpSender

logger = logging.getLogger(__name__)

USER_AGENT = "obscura-poller"
_TALKATIVE = ("urllib3.connection", "urllib3.connectionpool")
"""Loggers that log the URL of every request."""
_REDACTION = Redaction()


def build_sender(
    endpoint: Endpoint, timeout: float, environ: Mapping[str, str] = os.environ, signal: Signal = "metrics"
) -> GrpcSender | HttpSender:
    """Build the sender of `signal`; `timeout` bounds one request, in seconds. It sends nothing yet.

    TLS, client certificates, headers and compression come from the standard `OTEL_EXPORTER_OTLP_[METRICS_]*`
    variables (OpenTelemetry specification, protocol/exporter.md). Raises ConfigError if one of them cannot be
    used, or if the package for HTTP is missing.
    """
    learn_environment(environ)
    learn_url(endpoint.url)
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_REDACTION)
    variables = OtlpVariables(environ, signal)
    try:
        return (_grpc if endpoint.protocol == "grpc" else _http)(endpoint, timeout, variables)
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001 - libraries raise anything, and quote what they cannot read
        raise ConfigError([invalid("OTEL_EXPORTER_OTLP_*", redact(str(error)))]) from None


def _grpc(endpoint: Endpoint, timeout: float, variables: OtlpVariables) -> GrpcSender:
    prepare_grpc(os.environ)
    # gRPC's traces contain every header of every request, and cannot be masked.
    if variables.read("HEADERS") and os.environ.pop("GRPC_TRACE", None):
        logger.warning("GRPC_TRACE is ignored, because it would write the headers of OTLP")
    from grpc import ChannelCredentials, ssl_channel_credentials

    from poller.otlp.grpc import GrpcSender

    files = variables.files("grpc")
    compression = _compression(variables, "none", "gzip")
    plain_text = variables.is_plain_text(endpoint)
    provided = None if plain_text else _provided("GRPC", variables, ChannelCredentials)

    def credentials() -> Any:
        if provided is not None:
            return provided
        read = {kind: read_regular(path, MAX_TLS_BYTES) for kind, path in files.items()}
        return ssl_channel_credentials(
            root_certificates=read.get("CERTIFICATE"),
            private_key=read.get("CLIENT_KEY"),
            certificate_chain=read.get("CLIENT_CERTIFICATE"),
        )

    target = urlsplit(endpoint.url).netloc or endpoint.url
    return GrpcSender(
        target,
        tuple(variables.headers().items()),
        timeout,
        form=format_of(variables.signal),
        credentials=None if plain_text else credentials,
        gzip=compression == "gzip",
        user_agent=USER_AGENT,
        proxy=_proxy_of_grpc(target, os.environ),
    )


def _http(endpoint: Endpoint, timeout: float, variables: OtlpVariables) -> HttpSender:
    try:
        import requests

        from poller.otlp.http import COMPRESSIONS, HttpSender
        from poller.otlp.http_transport import HttpSession
    except ImportError as error:
        raise ConfigError(
            [
                invalid(
                    str(endpoint),
                    f"OTLP over HTTP requires an extra: {install('http')}; or push by gRPC, port 4317",
                )
            ]
        ) from error
    files = variables.files("http/protobuf")
    session = _provided("HTTP", variables, requests.Session)
    if session is None:
        session = HttpSession()
        if authority := files.get("CERTIFICATE"):
            session.verify = str(authority)
        certificate, key = files.get("CLIENT_CERTIFICATE"), files.get("CLIENT_KEY")
        if certificate:
            session.cert = (str(certificate), str(key)) if key else str(certificate)
    return HttpSender(
        endpoint.url,
        variables.headers(),
        timeout,
        form=format_of(variables.signal),
        compression=_compression(variables, *COMPRESSIONS),
        user_agent=USER_AGENT,
        session=session,
    )


def _proxy_of_grpc(target: str, environ: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy that gRPC uses for `target`; None if it uses none.

    Source: gRPC core, doc/environment_variables.md and http_proxy_mapper.cc.
    """
    names = ("grpc_proxy", "https_proxy", "http_proxy")
    proxy = next((environ[name] for name in names if name in environ), "")
    host = (urlsplit(f"//{target}").hostname or "") if not target.startswith("unix:") else ""
    if not proxy or not host:
        return None
    direct = environ.get("no_grpc_proxy", environ.get("no_proxy", "")).lower().split(",")
    return None if any(_is_direct(host, entry.strip()) for entry in direct) else proxy


def _is_direct(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return bool(entry) and host.endswith(entry)


def _compression(variables: OtlpVariables, *known: str) -> str:
    algorithm = (variables.read("COMPRESSION") or "none").strip().lower()
    if algorithm not in known:
        message = f"{redact(algorithm)!r} is not known here; write one of {', '.join(known)}"
        raise ConfigError([invalid(variables.where("COMPRESSION") or "", message)])
    return algorithm


def _provided(protocol: str, variables: OtlpVariables, kind: Any) -> Any:
    """Return the object of an installed credential provider (OpenTelemetry Python's mechanism), or None."""
    prefix = f"OTEL_PYTHON_EXPORTER_OTLP_{protocol}_"
    names = [f"{prefix}{variables.signal.upper()}_CREDENTIAL_PROVIDER", f"{prefix}CREDENTIAL_PROVIDER"]
    where = next((name for name in names if variables.environ.get(name)), None)
    if where is None:
        return None
    points = importlib.metadata.entry_points(
        group="opentelemetry_otlp_credential_provider", name=variables.environ[where]
    )
    try:
        given = next(iter(points)).load()()
    except StopIteration:
        message = f"{variables.environ[where]!r} is not installed; install the package that provides it"
        raise ConfigError([invalid(where, message)]) from None
    except Exception as error:  # noqa: BLE001 - it is a program of another vendor
        raise ConfigError([invalid(where, redact(f"{type(error).__name__}: {error}"))]) from None
    if not isinstance(given, kind):
        raise ConfigError([invalid(where, f"it gives a {type(given).__name__}, not a {kind.__name__}")])
    return given
