"""HTTP sender for one OTLP request."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import requests
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it ships stubs without py.typed
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.exceptions import ContentDecodingError
from requests.utils import get_auth_from_url, get_environ_proxies, select_proxy

from poller.otlp.http_transport import AbortableAdapter, AbortableConnection, cause_of
from poller.otlp.response import (
    ExportResult,
    classify_accepted,
    classify_error,
    classify_http,
    classify_unread,
)
from poller.otlp.signals import SignalFormat

PROTOBUF = "application/x-protobuf"
COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}
_LONGEST_ANSWER = 4 * 2**20
"""Bytes of an answer that are read, the same as gRPC's limit; a collector's answer has some hundred."""
_PIECE = 64 * 1024
_MARGIN_SECONDS = 0.5
"""Time after the timeout at which the deadline ends an exchange. An earlier timeout gives more detail."""
_UNREAD_ANSWER = (DecodeError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""Errors of the parsers for an answer that does not conform to OTLP."""


class HttpSender:
    """A session with one collector; sends one request at a time."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout: float,
        *,
        form: SignalFormat,
        compression: str,
        user_agent: str,
        session: requests.Session,
    ) -> None:
        """Prepare the session; `compression` is one of COMPRESSIONS.

        `timeout`, in seconds, bounds a whole exchange: name resolution, connection, TLS, and every byte of
        the answer. A session with its own transport adapters keeps them; their connections end at their own
        timeouts.
        """
        self._url = url
        self._timeout = timeout
        self._form = form
        self._compress = COMPRESSIONS[compression]
        self._session = session
        if session.auth is None:
            # Otherwise `requests` replaces the configured header with the host's entry in ~/.netrc.
            session.auth = _credentials_of_url
        self._line = AbortableConnection()
        for prefix, adapter in list(session.adapters.items()):
            if type(adapter) is HTTPAdapter:
                session.mount(prefix, AbortableAdapter(self._line))
        encoding = {} if compression == "none" else {"content-encoding": compression}
        self._headers = {"content-type": PROTOBUF, "user-agent": user_agent, **encoding, **headers}
        self._proven = False
        self._exchange: threading.Thread | None = None
        self._closed = False

    def send(self, body: bytes) -> ExportResult:
        """Send an encoded request of the signal; a failure is returned as an ExportResult, not raised.

        The exchange runs on its own thread, because a hanging name resolution cannot be cancelled.
        """
        if self._exchange is not None:
            self._exchange.join(self._timeout)
            if self._exchange.is_alive():
                return self._overdue()
        deadline = time.monotonic() + self._timeout
        self._line.begin(deadline)
        if self._closed:
            self._line.cut()
        answers: list[ExportResult] = []
        exchange = threading.Thread(
            target=lambda: answers.append(self._exchange_with_retry(body, deadline)),
            name="otlp-exchange",
            daemon=True,
        )
        exchange.start()  # may raise; a thread that did not start cannot be joined
        self._exchange = exchange
        exchange.join(self._timeout + _MARGIN_SECONDS)
        if answers:
            return answers[0]
        self._line.cut()
        return self._overdue()

    def rest(self) -> None:
        """Keep the connection, because an idle connection needs no CPU time and opening another does."""

    def close(self) -> None:
        """Close the connections and cancel a request in progress."""
        self._closed = True
        self._line.cut()
        self._session.close()

    def _overdue(self) -> ExportResult:
        error = requests.ReadTimeout(f"no complete answer within {self._timeout:g} s")
        return classify_error(error, "retryable")

    def _exchange_with_retry(self, body: bytes, deadline: float) -> ExportResult:
        body = self._compress(body)
        proven, self._proven = self._proven, False
        try:
            return self._send(body, self._timeout)
        except requests.Timeout as error:
            return self._unsent(error)
        except requests.ConnectionError as error:
            # A proxy or firewall may have cut an idle connection that worked before.
            left = deadline - time.monotonic()
            if not proven or left <= 0:
                return self._unsent(error)
        except Exception as error:  # noqa: BLE001 - what cannot be sent raises anything
            return self._unsent(error)
        try:
            return self._send(body, left)
        except Exception as error:  # noqa: BLE001 - the same
            return self._unsent(error)

    def _send(self, body: bytes, timeout: float) -> ExportResult:
        with self._session.post(
            self._url, data=body, headers=self._headers, timeout=timeout, allow_redirects=False, stream=True
        ) as response:
            accepted = 200 <= response.status_code < 300
            try:
                content, unread = _read(response)
            except ContentDecodingError as error:
                content, unread = b"", str(error)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not accepted:
            return _refused(response, kind, content)
        if not unread and not _is_otlp(self._form, kind, content):
            # Another server received and discarded the data.
            return classify_http(response.status_code, "a web server answers, not a collector", None)
        self._proven = True
        if unread:
            return classify_unread(unread)
        return classify_accepted(*_partial_success(self._form, kind, content))

    def _unsent(self, error: Exception) -> ExportResult:
        # An unusable header or proxy raises no RequestException, or one that is also a ValueError.
        passing = isinstance(error, requests.RequestException | OSError) and not isinstance(error, ValueError)
        proxy = None
        if self._session.trust_env and isinstance(error, requests.ConnectionError):
            proxy = select_proxy(self._url, get_environ_proxies(self._url))
        return classify_error(error, "retryable" if passing else "held", proxy, cause_of(error))


def _credentials_of_url(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add the user and password of the endpoint's URL to a request, if any."""
    user, password = get_auth_from_url(request.url or "")
    return HTTPBasicAuth(user, password)(request) if user or password else request


def _read(response: requests.Response) -> tuple[bytes, str]:
    """Return the answer's body and no error, or an empty body and why it was not read."""
    content = bytearray()
    for piece in response.iter_content(_PIECE):
        content += piece
        if len(content) > _LONGEST_ANSWER:
            return b"", f"it is longer than {_LONGEST_ANSWER} bytes"
    return bytes(content), ""


def _refused(response: requests.Response, kind: str, content: bytes) -> ExportResult:
    if 300 <= response.status_code < 400:
        # Following a redirect would send secret headers to a host that the answer chooses.
        return classify_http(response.status_code, "the collector is elsewhere; correct the endpoint", None)
    message = response.reason or ""
    if kind == PROTOBUF:
        with contextlib.suppress(DecodeError):
            message = Status.FromString(content).message or message
    elif kind != "text/html" and content.strip():
        message = f"{message}: {content.decode(errors='replace')}"
    return classify_http(response.status_code, message, retry_after(response.headers.get("retry-after")))


def _is_otlp(form: SignalFormat, kind: str, content: bytes) -> bool:
    """Return whether a successful answer may be a collector's: empty, or an OTLP response of any type.

    An answer of a type of OTLP may be damaged; then the request is accepted all the same.
    """
    if kind == "text/html":
        return False
    if not content or kind == PROTOBUF:
        return True
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        with contextlib.suppress(DecodeError):
            form.response.FromString(content)
            return True
        return kind == "application/json"
    fields = {"partialSuccess", "partial_success"}
    return not document or (isinstance(document, dict) and bool(document.keys() & fields))


def _partial_success(form: SignalFormat, kind: str, content: bytes) -> tuple[int, str]:
    """Return the rejected item count and the message; 0 and no message if the answer cannot be parsed."""
    try:
        if kind == "application/json":
            partial_success = (json.loads(content or b"{}") or {}).get("partialSuccess") or {}
            return int(partial_success.get(form.rejected_in_json, 0)), str(
                partial_success.get("errorMessage", "")
            )
        partial = form.response.FromString(content).partial_success
        return getattr(partial, form.rejected), partial.error_message
    except _UNREAD_ANSWER:
        return 0, ""


def retry_after(value: str | None) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date (RFC 9110, 10.2.3); None if invalid."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except (TypeError, ValueError, OverflowError):
            return None
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else None
