"""Resolver of the OTLP endpoint per signal: URL, protocol, and TLS or plain text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.otlp_limits import unsent_by_grpc
from poller.model.secrets import mask_url

Protocol = Literal["grpc", "http/protobuf"]
Signal = Literal["metrics", "traces", "logs"]

HTTP_PORT = 4318
PATHS: dict[Signal, str] = {signal: f"/v1/{signal}" for signal in ("metrics", "traces", "logs")}
"""Paths of HTTP requests (OTLP specification 1.10, "OTLP/HTTP Request")."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Target of a request: `http(s)://host:port` or gRPC's own target for gRPC, the full URL for HTTP."""

    url: str = field(repr=False)
    """May contain credentials; print `str(endpoint)` instead."""
    protocol: Protocol

    def __str__(self) -> str:
        return mask_url(self.url)

    @property
    def plain_text(self) -> bool | None:
        """Whether the scheme disables TLS; None if there is no scheme."""
        scheme = self.url.partition("://")[0] if "://" in self.url else ""
        return {"http": True, "https": False}.get(scheme)


def resolve(value: str, where: str, protocol: Protocol | None = None, signal: Signal = "metrics") -> Endpoint:
    """Parse the endpoint `value` of the variable or option `where`, and return the endpoint of `signal`.

    `POLLER_*`, `OBSCURA_*` and options require http:// or https://, so that plain text is always explicit.
    The `OTEL_*` variables follow their standard: gRPC accepts a bare host. For HTTP, the signal's path
    (`/v1/metrics`) is appended or replaces another signal's path. The signal's own standard variable
    (OTEL_EXPORTER_OTLP_METRICS_ENDPOINT) is used unchanged (OpenTelemetry specification,
    protocol/exporter.md, "Endpoint URLs for OTLP/HTTP").

    Without a `protocol`, port 4318 or a URL with a path means HTTP, anything else gRPC.

    Raises ConfigError that names `where`.
    """
    masked = mask_url(value)
    standard = where.startswith("OTEL_")

    def wrong(message: str) -> ConfigError:
        return ConfigError([invalid(where, message)])

    url = value if "://" in value else f"//{value}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong(f"{masked!r} is not a URL; write one like http://collector:4317") from None
    if protocol is None:
        # gRPC uses no path; its own targets, such as unix:///run/collector.sock, have other schemes.
        has_path = parts.scheme in ("http", "https") and parts.path.strip("/") != ""
        by_http = port == HTTP_PORT or has_path
        protocol = "http/protobuf" if by_http else "grpc"
    if "@" in parts.path + parts.query + parts.fragment:
        raise wrong(f"{masked!r} has an @ after its host; write special characters of a password as %XX")
    if protocol == "grpc" and "@" in parts.netloc:
        raise wrong(
            f"{masked!r} has a user name, which gRPC cannot send; set OTEL_EXPORTER_OTLP_HEADERS, "
            "for example authorization=Bearer%20TOKEN"
        )
    if parts.scheme not in ("http", "https"):
        if standard and protocol == "grpc":
            return Endpoint(value, protocol)
        if not parts.scheme:
            raise wrong(
                f"{masked!r} has no scheme; write http://{_bare(masked)} for plain text "
                f"or https://{_bare(masked)} for TLS"
            )
        raise wrong(f"{masked!r} has an unknown scheme; write http:// for plain text or https:// for TLS")
    if not parts.hostname:
        raise wrong(f"{masked!r} has no host; write one like http://collector:4317")
    if protocol == "grpc":
        if unsent := unsent_by_grpc(parts, "POLLER_OTLP_PROTOCOL"):
            raise wrong(f"{masked!r} {unsent}")
        return Endpoint(f"{parts.scheme}://{parts.netloc}", protocol)
    if where == f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT":
        return Endpoint(value, protocol)
    base = parts.path.rstrip("/")
    for path in PATHS.values():
        base = base.removesuffix(path)
    return Endpoint(urlunsplit((parts.scheme, parts.netloc, base + PATHS[signal], parts.query, "")), protocol)


def _bare(address: str) -> str:
    return address.removeprefix("//")
