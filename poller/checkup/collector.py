"""Send the collector an empty request and say what came of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from poller import verdict
from poller.checkup.finding import Finding
from poller.checkup.port import mishap
from poller.errors import ConfigError

if TYPE_CHECKING:
    from poller.endpoint import Endpoint

LONGEST_SECONDS = 5.0
"""The daemon takes POLLER_EXPORT_TIMEOUT, and is more patient."""
_PORT_SECONDS = 2.0
_SLOW = "it is there and does not answer in time: look at the collector's load and log"
_LAST_ADVICE = {
    "UNIMPLEMENTED": "who answers takes no OTLP metrics: has the otlp receiver a metrics pipeline?",
    "DEADLINE_EXCEEDED": _SLOW,
    "ReadTimeout": _SLOW,
}
"""What the port itself has to be looked at for first."""


def examine(endpoint: Endpoint | None, timeout: float) -> Finding:
    """Export nothing to `endpoint`, for real: connection, TLS, credentials and path are all looked at.

    `timeout` is in seconds and bounds the export, but it is never longer than LONGEST_SECONDS. Raises nothing
    for the collector's sake.
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
    if hint := verdict.advice(reason, answered=True):
        return Finding("collector", "fail", f"{what}: {reason}", hint, facts=facts)
    if found := mishap(endpoint, _PORT_SECONDS):
        return Finding("collector", "fail", f"{what}: {found.what}", found.advice, facts=facts)
    last = next((advice for word, advice in _LAST_ADVICE.items() if word in reason), None)
    advice = last or "look at the collector's log, and at what stands between here and it"
    return Finding("collector", "fail", f"{what}: {reason}", advice, facts=facts)


def _export(endpoint: Endpoint, timeout: float) -> tuple[str | None, float]:
    """Send an empty request; None when it was taken, else the reason without secrets; and its seconds.

    Raises ConfigError where the standard variables cannot be used.
    """
    from poller import otlp

    sender = otlp.build(endpoint, timeout)
    since = time.monotonic()
    try:
        answer = sender.send(b"")
        took = time.monotonic() - since
    finally:
        sender.close()
    return None if answer.fate == "taken" else answer.reason, took
