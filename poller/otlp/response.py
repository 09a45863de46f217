"""Classification of a collector's response: accepted, retryable or rejected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from poller.model.redaction import redact, redact_beginning
from poller.model.secrets import mask_url

Disposition = Literal["accepted", "retryable", "held", "invalid", "too_large"]
"""What happens to a request after its response.

accepted   the collector accepted it, except for `rejected` items
retryable  it was not accepted, and the specification permits to send the same request again
held       it was refused for a cause that an operator must fix (a token, a path), or for a cause unrelated
           to its data; the specification would drop it, the poller keeps it and retries slowly
invalid    its data were refused, and would be refused again
too_large  it was refused for its size; its halves may be accepted
"""

LONGEST_REASON = 300
"""Maximum length in characters of a collector's text in logs; a proxy may answer with a whole web page."""

_GRPC_RETRYABLE = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
"""OTLP specification 1.10, "Failures"; RESOURCE_EXHAUSTED only together with RetryInfo."""
_HTTP_RETRYABLE = frozenset({429, 502, 503, 504})
"""OTLP specification 1.10, "Retryable Response Codes"."""
_GRPC_INVALID = frozenset({"INVALID_ARGUMENT"})
_HTTP_INVALID = frozenset({400, 422})
_TOO_LARGE = re.compile(r"larger than max|too large|exceeds (the )?max", re.IGNORECASE)
"""Texts of gRPC's servers in C++, Go, Java, .NET and Rust for a message above their limit."""

_ANSWER_TOO_LARGE = "CLIENT: Received message larger than max"
"""Text of gRPC's core for an answer above 4 MiB; for a request it writes `SERVER: ...`."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The result of one request, with or without an answer."""

    disposition: Disposition
    reason: str = ""
    """Reason as text, without secrets, on one line. With `accepted` it is a warning of the collector."""
    error: Mapping[str, str | int] = field(default_factory=dict)
    """`error.type` and the status code, as attributes of metrics and log records; empty after success."""
    rejected: int = 0
    """Number of items that a partial success rejected."""
    wait: float | None = None
    """Seconds that the collector requests before the next attempt; None if it requests no pause."""


_TOKEN = "set the token in OTEL_EXPORTER_OTLP_HEADERS, for example authorization=Bearer%20TOKEN"  # noqa: S105 - an example
_DENIED = "the token in OTEL_EXPORTER_OTLP_HEADERS is valid but may not write here; use another token"
_PATH = (
    "the server does not accept metrics at this path; write the collector's base address in "
    "POLLER_OTLP_ENDPOINT, because /v1/metrics is appended, and check that it has a pipeline for metrics"
)
_ANSWERED = (
    # Only a collector or its proxy gives such an answer, so the port itself is correct.
    ("UNAUTHENTICATED", _TOKEN),
    (r"(HTTP|code:) 401", _TOKEN),
    ("PERMISSION_DENIED", _DENIED),
    (r"(HTTP|code:) 403", _DENIED),
    (r"(HTTP|code:) 404", _PATH),
    (r"(HTTP|code:) 405", _PATH),
    (
        "HTTP 429|RESOURCE_EXHAUSTED",
        "the collector is over its limits; raise them, or export less often (POLLER_EXPORT_INTERVAL)",
    ),
)
_UNREACHED = (
    ("[Cc]onnection refused", "start the collector, or correct host and port of POLLER_OTLP_ENDPOINT"),
    ("WRONG_VERSION_NUMBER", "the port speaks no TLS; write http:// in POLLER_OTLP_ENDPOINT"),
    ("speaks gRPC", "set POLLER_OTLP_PROTOCOL=grpc, or use the collector's port for HTTP (mostly 4318)"),
)


def advise(reason: str, *, answered: bool = False) -> str | None:
    """Return a hint for a failed export, or None; with `answered` only hints about answers."""
    table = _ANSWERED if answered else _ANSWERED + _UNREACHED
    return next((hint for pattern, hint in table if re.search(pattern, reason)), None)


def classify_accepted(rejected: int, message: str) -> ExportResult:
    """Classify an accepted request by the two fields of its partial success."""
    return ExportResult("accepted", printable_text(message), rejected=max(0, rejected))


def classify_grpc(code: str, details: str, wait: float | None, proxy: str | None = None) -> ExportResult:
    """Classify a gRPC status by its name; `wait` is its RetryInfo in seconds, None without RetryInfo.

    `proxy` is the URL of the proxy, if any; the reason names it if the connection failed.
    """
    disposition: Disposition = "held"
    if _ANSWER_TOO_LARGE in details:
        # Only an accepted request has an answer.
        return classify_unread(details)
    if code in ("RESOURCE_EXHAUSTED", "OUT_OF_RANGE") and _TOO_LARGE.search(details):
        disposition = "too_large"
    elif code in _GRPC_RETRYABLE or (code == "RESOURCE_EXHAUSTED" and wait is not None):
        disposition = "retryable"
    elif code in _GRPC_INVALID:
        disposition = "invalid"
    error = {"error.type": code, "rpc.response.status_code": code}
    on_the_way = name_proxy(proxy) if code in ("UNAVAILABLE", "DEADLINE_EXCEEDED") else ""
    return ExportResult(disposition, printable_text(f"{on_the_way}{code}: {details}"), error, wait=wait)


def classify_http(status: int, message: str, wait: float | None) -> ExportResult:
    """Classify an HTTP error status; `wait` is its Retry-After in seconds, None without that header."""
    disposition: Disposition = "held"
    if status in _HTTP_RETRYABLE:
        disposition = "retryable"
    elif status == 413:
        disposition = "too_large"
    elif status in _HTTP_INVALID:
        disposition = "invalid"
    error: dict[str, str | int] = {"error.type": str(status), "http.response.status_code": status}
    return ExportResult(disposition, printable_text(f"HTTP {status}: {message}"), error, wait=wait)


def classify_unread(why: str) -> ExportResult:
    """Classify an accepted request whose answer cannot be read."""
    return ExportResult("accepted", printable_text(f"the answer cannot be read: {why}"))


def classify_error(
    error: Exception,
    disposition: Literal["retryable", "held"],
    proxy: str | None = None,
    cause: str | None = None,
) -> ExportResult:
    """Classify a request without an answer; `proxy` is the URL of the proxy, if any.

    `cause` replaces the error's own text.
    """
    name = type(error).__name__
    return ExportResult(
        disposition, printable_text(f"{name_proxy(proxy)}{name}: {cause or error}"), {"error.type": name}
    )


def name_proxy(proxy: str | None) -> str:
    """Return a prefix that names the proxy of a failed connection; empty without a proxy."""
    return f"through the proxy {mask_url(proxy)}: " if proxy else ""


def printable_text(text: str) -> str:
    """Return the text without secrets, on one line, cut to LONGEST_REASON characters."""
    line = redact(" ".join(redact_beginning(text).split()))
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]}..."
