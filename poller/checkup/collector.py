"""Send the collector an empty request and say what came of it."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from poller.checkup.finding import Finding
from poller.checkup.port import mishap
from poller.errors import ConfigError

if TYPE_CHECKING:
    from poller.endpoint import Endpoint

LONGEST_SECONDS = 5.0
"""Enough for two tries again; the daemon takes POLLER_EXPORT_TIMEOUT and more patience."""
_PORT_SECONDS = 2.0
_TOKEN = "give the token it wants in OTEL_EXPORTER_OTLP_HEADERS, like authorization=Bearer%20TOKEN"  # noqa: S105 - an example
_DENIED = "the token in OTEL_EXPORTER_OTLP_HEADERS is known and may not write metrics: take another"
_PATH = (
    "no metrics are taken at this path; POLLER_OTLP_ENDPOINT is the collector's base, to which /v1/metrics "
    "is added; look whether its otlp receiver has a metrics pipeline"
)
_ADVICE = (
    # An answer that only a collector (or what stands before it) gives: the port itself is right.
    ("UNAUTHENTICATED", _TOKEN),
    (r"(HTTP|code:) 401", _TOKEN),
    ("PERMISSION_DENIED", _DENIED),
    (r"(HTTP|code:) 403", _DENIED),
    (r"(HTTP|code:) 404", _PATH),
    (r"(HTTP|code:) 405", _PATH),
    (
        "HTTP 429",
        "the collector is over its limits: give it more, or push less often (POLLER_EXPORT_INTERVAL)",
    ),
    ("RESOURCE_EXHAUSTED", "the collector is over its limits: give it more, or push less often"),
)
_SLOW = "it is there and does not answer in time: look at the collector's load and log"
_LAST_ADVICE = {
    "UNIMPLEMENTED": "who answers takes no OTLP metrics: has the otlp receiver a metrics pipeline?",
    "DEADLINE_EXCEEDED": _SLOW,
    "ReadTimeout": _SLOW,
}
"""What the port itself has to be looked at for first."""


def examine(endpoint: Endpoint | None, timeout: float) -> Finding:
    """Export nothing to `endpoint`, for real: connection, TLS, credentials and path are all looked at.

    `timeout` is in seconds and bounds the export with its retries, but it is never longer than
    LONGEST_SECONDS. Raises nothing for the collector's sake.
    """
    if endpoint is None:
        return Finding(
            "collector", "skip", "none: results are logged only", "set POLLER_OTLP_ENDPOINT to push them"
        )
    facts: dict[str, object] = {"endpoint": str(endpoint), "protocol": endpoint.protocol}
    what = f"{endpoint} by {endpoint.protocol}"
    try:
        reason, took = _export(endpoint, min(timeout, LONGEST_SECONDS))
    except ConfigError as error:
        problems = "; ".join(map(str, error.problems))
        return Finding("collector", "fail", f"{what}: {problems}", facts=facts)
    if reason is None:
        facts["duration"] = round(took, 6)
        return Finding("collector", "ok", f"{what} took an empty export in {took * 1000:.0f} ms", facts=facts)
    facts["error"] = reason
    for pattern, advice in _ADVICE:
        if re.search(pattern, reason):
            return Finding("collector", "fail", f"{what}: {reason}", advice, facts=facts)
    if found := mishap(endpoint, _PORT_SECONDS):
        return Finding("collector", "fail", f"{what}: {found.what}", found.advice, facts=facts)
    last = next((advice for word, advice in _LAST_ADVICE.items() if word in reason), None)
    advice = last or "look at the collector's log, and at what stands between here and it"
    return Finding("collector", "fail", f"{what}: {reason}", advice, facts=facts)


def _export(endpoint: Endpoint, timeout: float) -> tuple[str | None, float]:
    """Send an empty request; None when it was taken, else the reason without secrets; and its seconds.

    Raises ConfigError where the standard variables cannot be used.
    """
    from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData  # noqa: TID251 - an empty one

    from poller import otlp
    from poller.export import Delivery

    exporter = otlp.build(endpoint, timeout)
    # Cut into batches, nothing is no batch: the exporters would send no request and say that all went well.
    exporter._max_export_batch_size = None  # type: ignore[attr-defined]  # noqa: SLF001 - both exporters' own
    delivery = Delivery(exporter, str(endpoint), otlp.secrets(endpoint))
    since = time.monotonic()
    try:
        result = delivery.export(MetricsData([]), timeout * 1000)
        # What Delivery says of a failure goes to the log, as one line that is made for it.
        reason = delivery._masked(delivery._reasons.best())  # noqa: SLF001 - there is no other way to it
    finally:
        took = time.monotonic() - since
        delivery.shutdown()
    return None if result is MetricExportResult.SUCCESS else reason, took
