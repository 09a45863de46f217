"""Span checks of design document 005, section 4: a root span with a request id, current names."""

from __future__ import annotations

from collections.abc import Mapping

from poller.events.attributes import HTTP_METHODS
from poller.model.diagnostics import Severity
from poller.model.text import quote
from poller.receiver.decode import ReceivedValue, Span
from poller.tools.conform.notes import Differences

_IDS = ("request.id", "request_id")
_USERS = ("user.id", "user_id")
_SWITCHED = "101"
"""Status of a request that became a WebSocket session."""

_OLD: Mapping[str, str] = {
    "http.method": "http.request.method",
    "http.status_code": "http.response.status_code",
    "http.url": "url.full",
    "http.target": "url.path",
    "http.scheme": "url.scheme",
    "http.host": "server.address",
    "http.server_name": "server.address",
    "http.flavor": "network.protocol.version",
    "http.request_content_length": "http.request.header.content-length",
    "net.host.name": "server.address",
    "net.host.port": "server.port",
    "net.peer.name": "server.address",
    "net.peer.port": "server.port",
    "net.sock.peer.addr": "network.peer.address",
    "net.sock.peer.port": "network.peer.port",
    "net.transport": "network.transport",
    "net.protocol.name": "network.protocol.name",
    "net.protocol.version": "network.protocol.version",
    "db.system": "db.system.name",
    "db.name": "db.namespace",
    "db.statement": "db.query.text",
    "db.operation": "db.operation.name",
    "db.sql.table": "db.collection.name",
    "messaging.operation": "messaging.operation.type",
}
"""Names of semantic conventions before 1.23 (HTTP) and 1.28 (databases), and their current names."""


def check_structure(span: Span, where: str, differences: Differences) -> None:
    """Add the missing, outdated or impossible parts of a span, without its values, at `where`."""
    attributes, add = span.attributes, differences.add
    for old, new in _OLD.items():
        if old in attributes and new not in attributes:
            # Libraries create the other spans, and some of them do not support the current names.
            severity: Severity = "error" if span.kind == "server" else "warning"
            message = "is an outdated name, on $"
            add("old_convention", old, message, where, advice=f"send {new}", severity=severity)
    if span.kind == "server":
        _check_root(attributes, where, differences)
    elif not span.parent_span_id and "http.request.method" in attributes and span.kind != "client":
        message = f"has the kind {span.kind}, on $: the root span of a request must have the kind server"
        add("span_kind", "root span", message, where)
    _check_values(span, where, differences)


def _check_root(attributes: Mapping[str, ReceivedValue], where: str, differences: Differences) -> None:
    names = [] if any(attributes.get(name) for name in _IDS) else ["request.id"]
    if not any(name.startswith("rpc.") for name in attributes):
        # An outdated name is already reported.
        current = (("http.request.method", "http.method"), ("url.path", "http.target"))
        names += [name for name, old in current if name not in attributes and old not in attributes]
    for name in names:
        advice = "set it on each root span"
        differences.add("missing_attribute", name, "is missing, on $", where, advice=advice)
    switched = str(attributes.get("http.response.status_code")) == _SWITCHED
    if switched and not any(attributes.get(name) for name in _USERS):
        message = "is missing, on $: the root span of a WebSocket session must have it"
        differences.add("missing_attribute", "user.id", message, where)


def _check_values(span: Span, where: str, differences: Differences) -> None:
    """Add the impossible values."""

    def add(subject: str, message: str, advice: str | None = None) -> None:
        differences.add("impossible_value", subject, message, where, advice=advice)

    if not (_is_id(span.trace_id, 32) and _is_id(span.span_id, 16)):
        add("span ids", "are invalid, on $")
    if not 0 < span.start_time_unix_nano <= span.end_time_unix_nano:
        add("span times", "end before they start, or are 0, on $")
    status = span.attributes.get("http.response.status_code")
    if status is not None and not (type(status) is int and 100 <= status <= 599):
        add("http.response.status_code", "is not from 100 to 599, on $")
    method = span.attributes.get("http.request.method")
    if method is not None and method not in HTTP_METHODS:
        add("http.request.method", "is not an HTTP method, on $", f"send {quote(HTTP_METHODS[-1])}")


def _is_id(digits: str, length: int) -> bool:
    return len(digits) == length and digits.strip("0") != ""
