"""HTTP server metrics of OpenTelemetry's semantic conventions (1.44, HTTP metrics, "HTTP server")."""

from __future__ import annotations

from opentelemetry.metrics import Meter

from poller.events.attributes import UNMATCHED

BOUNDARIES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Seconds, as the semantic conventions recommend."""
_SCHEMES = frozenset({"http", "https"})
_VERSIONS = frozenset({"1.0", "1.1", "2", "3"})
_FAILED = 500


class HttpServer:
    """`http.server.request.duration` and `http.server.active_requests`."""

    def __init__(self, meter: Meter) -> None:
        self._duration = meter.create_histogram(
            "http.server.request.duration",
            "s",
            "Duration of HTTP server requests.",
            explicit_bucket_boundaries_advisory=BOUNDARIES,
        )
        self._active = meter.create_up_down_counter(
            "http.server.active_requests", "{request}", "Number of active HTTP server requests."
        )

    def answered(
        self,
        method: str,
        route: str,
        status: int,
        duration: float,
        scheme: str,
        protocol_version: str,
        error_type: str | None,
    ) -> None:
        """Record one request; `method` must be a known method, `duration` is in seconds."""
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.response.status_code": status,
            "url.scheme": scheme if scheme in _SCHEMES else "http",
        }
        if route != UNMATCHED:
            attributes["http.route"] = route
        # Proxies and clients choose the version; an unknown value would create a new series.
        if protocol_version in _VERSIONS:
            attributes["network.protocol.version"] = protocol_version
        if error_type is not None or status >= _FAILED:
            attributes["error.type"] = error_type or str(status)
        self._duration.record(duration, attributes)

    def active(self, change: int, method: str, scheme: str) -> None:
        """Add `change` to the requests in progress."""
        scheme = scheme if scheme in _SCHEMES else "http"
        self._active.add(change, {"http.request.method": method, "url.scheme": scheme})
