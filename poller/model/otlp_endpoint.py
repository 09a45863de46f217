"""Resolver of the OTLP endpoint per signal: URL, protocol, and TLS or plain text.

It imports no library, because both the daemon and `poller.events` need it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit, urlunsplit

from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.secrets import mask_url

Protocol = Literal["grpc", "http/protobuf"]
Signal = Literal["traces", "metrics", "logs"]

SIGNALS: tuple[Signal, ...] = get_args(Signal)
PROTOCOLS: dict[str, Protocol] = {name: name for name in get_args(Protocol)}
_HTTP_PORT = 4318
_PATH = re.compile(r"/v1/(traces|metrics|logs)$")
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
        """Whether the scheme disables TLS; None without an http or https scheme."""
        return {"http": True, "https": False}.get(self.url.partition("://")[0])


def resolve(
    value: str,
    where: str,
    protocol: Protocol | None = None,
    signal: Signal = "metrics",
    *,
    protocol_setting: str = "POLLER_OTLP_PROTOCOL",
    warn: Callable[[str], object] | None = None,
) -> Endpoint:
    """Parse the endpoint `value` of the variable or option `where`, and return the endpoint of `signal`.

    `POLLER_*`, `OBSCURA_*` and options require http:// or https://, so that plain text is always explicit.
    The `OTEL_*` variables follow their standard: gRPC accepts a bare host. For HTTP, the signal's path
    (`/v1/metrics`) is appended or replaces another signal's path. The signal's own standard variable
    (OTEL_EXPORTER_OTLP_METRICS_ENDPOINT) is used unchanged (OpenTelemetry specification,
    protocol/exporter.md, "Endpoint URLs for OTLP/HTTP").

    Without a `protocol`, port 4318 or a URL with a path means HTTP, anything else gRPC.

    Raises ConfigError that names `where`. With `warn`, a path or a query that gRPC cannot send is a warning.
    """
    masked = mask_url(value)

    def wrong(message: str) -> ConfigError:
        return ConfigError([invalid(where, f"{masked!r} {message}")])

    try:
        parts = urlsplit(value if "://" in value else f"//{value}")
        port = parts.port
    except ValueError:
        raise wrong("is not a URL; write one like http://collector:4317") from None
    by_scheme = parts.scheme in ("http", "https")
    if protocol is None:
        has_path = by_scheme and parts.path.strip("/") != ""
        protocol = "http/protobuf" if port == _HTTP_PORT or has_path else "grpc"
    if "@" in parts.path + parts.query + parts.fragment:
        raise wrong("has an @ after its host; write special characters of a password as %XX")
    if protocol == "grpc" and "@" in parts.netloc:
        raise wrong(
            "has a user name, which gRPC cannot send; write the credentials into OTEL_EXPORTER_OTLP_HEADERS, "
            "for example authorization=Bearer%20TOKEN"
        )
    if not by_scheme:
        # gRPC's own targets have no host, such as unix:///run/collector.sock.
        if where.startswith("OTEL_") and protocol == "grpc" and not (parts.scheme and parts.netloc):
            return Endpoint(value, protocol)
        if parts.scheme:
            raise wrong("has an unknown scheme; write http:// for plain text or https:// for TLS")
        bare = masked.removeprefix("//")
        raise wrong(f"has no scheme; write http://{bare} for plain text or https://{bare} for TLS")
    if not parts.hostname:
        raise wrong("has no host; write one like http://collector:4317")
    if protocol == "grpc":
        url = f"{parts.scheme}://{parts.netloc}"
        if unsent := [
            name for name, text in (("path", parts.path.strip("/")), ("query", parts.query)) if text
        ]:
            problem = wrong(
                f"has a {' and a '.join(unsent)}, which gRPC cannot send; write {url}, "
                f"or set {protocol_setting}=http/protobuf"
            )
            if warn is None:
                raise problem
            warn(str(problem))
        return Endpoint(url, protocol)
    if where == f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT":
        return Endpoint(value, protocol)
    path = f"{_PATH.sub('', parts.path.rstrip('/'))}/v1/{signal}"
    return Endpoint(urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")), protocol)
