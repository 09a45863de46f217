"""Resolver of one signal's OTLP endpoint: URL, protocol, and TLS or plain text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from poller.events._privacy.patterns import cut
from poller.model.otlp_limits import unsent_by_grpc

Signal = Literal["traces", "metrics", "logs"]
Protocol = Literal["grpc", "http/protobuf"]

SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
_HTTP_PORT = 4318


@dataclass(frozen=True, slots=True)
class SignalEndpoint:
    """Endpoint of one signal: `http(s)://host:port` (or gRPC's own form) for gRPC, the full URL for HTTP."""

    url: str = field(repr=False)
    """May contain credentials; use `str(target)` for output."""
    protocol: Protocol
    timeout: float
    """Seconds for one request including all its retries."""
    unsent: str | None = None
    """Part of the configured endpoint that the protocol cannot send, and its fix."""

    def __str__(self) -> str:
        return cut(self.url)

    @property
    def plain_text(self) -> bool | None:
        """Whether the scheme selects plain text; None without an http or https scheme."""
        return {"http": True, "https": False}.get(self.url.partition("://")[0])


def resolve(
    value: str, where: str, signal: Signal, protocol: Protocol | None, timeout: float
) -> SignalEndpoint:
    """Parse an endpoint according to the rules of its variable.

    The server's own variables require http:// or https://, so that plain text is always explicit. The
    standard variables allow a bare host for gRPC. For HTTP, `/v1/traces` and so on is appended, except to a
    variable of one signal (OpenTelemetry specification, protocol/exporter.md, "Endpoint URLs for OTLP/HTTP").

    Raises ValueError with a message that states what to write instead.
    """
    text = cut(value if "://" in value else f"//{value}").removeprefix("//")
    url = value if "://" in value else f"//{value}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{text!r} is not a URL; write one like http://collector:4317") from None
    own_path = re.search(r"/v1/(traces|metrics|logs)/?$", parts.path)
    if protocol is None:
        # gRPC ignores a path. Its own targets, such as unix:///run/collector.sock, have another scheme.
        has_path = parts.scheme in ("http", "https") and parts.path.strip("/") != ""
        protocol = "http/protobuf" if port == _HTTP_PORT or has_path else "grpc"
    if parts.scheme not in ("http", "https"):
        if where.startswith("OTEL_") and protocol == "grpc" and "://" not in value:
            return SignalEndpoint(value, protocol, timeout)
        raise ValueError(
            f"{text!r} does not start with http:// or https://; "
            "write http:// before the host for plain text, or https:// for TLS"
        )
    if not parts.hostname:
        raise ValueError(f"{text!r} has no host; write one like http://collector:4317")
    if protocol == "grpc":
        if "@" in parts.netloc:
            raise ValueError(
                f"{text!r} has a user name (omitted here), which gRPC cannot send; "
                "write the credentials into OTEL_EXPORTER_OTLP_HEADERS, like authorization=Bearer%20TOKEN"
            )
        unsent = unsent_by_grpc(parts, "OTEL_EXPORTER_OTLP_PROTOCOL")
        return SignalEndpoint(
            f"{parts.scheme}://{parts.netloc}", protocol, timeout, unsent and f"{where}: {text!r} {unsent}"
        )
    if where.startswith("OTEL_") and where != "OTEL_EXPORTER_OTLP_ENDPOINT":
        return SignalEndpoint(value, protocol, timeout)
    path = (parts.path[: own_path.start()] if own_path else parts.path.rstrip("/")) + f"/v1/{signal}"
    return SignalEndpoint(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")), protocol, timeout)
