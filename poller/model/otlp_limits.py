"""Parts of an endpoint and of headers that OTLP's transports cannot send.

It imports no other module of the poller, because both the daemon and `poller.events` need it.
"""

from __future__ import annotations

from urllib.parse import SplitResult

LONGEST_HEADER = 8_192
"""Maximum characters of a header's value; HTTP and gRPC servers reject longer ones by default."""


def unsent_by_grpc(parts: SplitResult, protocol_setting: str) -> str | None:
    """Return the problem and its fix if the URL of a gRPC endpoint has a path or a query, else None.

    The text omits the query, which may contain a secret. The caller must have rejected a user part before.
    """
    lost = [name for name, text in (("path", parts.path.strip("/")), ("query", parts.query)) if text]
    if not lost:
        return None
    return (
        f"has a {' and a '.join(lost)}, which gRPC cannot send; write {parts.scheme}://{parts.netloc}, "
        f"or set {protocol_setting}=http/protobuf"
    )


def too_long_for_header(value: str) -> str | None:
    """Return the problem and its fix if the value of a header is too long, else None."""
    if len(value) <= LONGEST_HEADER:
        return None
    return f"has {len(value):,} characters; write at most {LONGEST_HEADER:,}"
