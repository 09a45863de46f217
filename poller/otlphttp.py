"""Send one request over HTTP and read what comes back."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import time
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it ships stubs without py.typed

from poller import verdict
from poller.otlpforms import Form
from poller.verdict import Verdict

PROTOBUF = "application/x-protobuf"
COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}
_LONGEST_ANSWER = 64 * 1024
"""Bytes of an answer that are read; one of a collector has some hundred."""


class Session(requests.Session):
    """A session that knows the collector's authority better than the environment of `requests` does."""

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """Keep OTEL_EXPORTER_OTLP_CERTIFICATE, which REQUESTS_CA_BUNDLE would take the place of."""
        if verify is None and self.verify is not True:
            verify = self.verify
        return super().merge_environment_settings(url, proxies, stream, verify, cert)


class HttpSender:
    """A session with one collector; sends one request at a time."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout: float,
        *,
        form: Form,
        compression: str,
        user_agent: str,
        session: requests.Session,
    ) -> None:
        """Prepare the session; `compression` is one of COMPRESSIONS, `timeout` is in seconds."""
        self._url = url
        self._timeout = timeout
        self._form = form
        self._compress = COMPRESSIONS[compression]
        self._session = session
        encoding = {} if compression == "none" else {"content-encoding": compression}
        self._headers = {"content-type": PROTOBUF, "user-agent": user_agent, **encoding, **headers}
        self._proven = False

    def send(self, body: bytes) -> Verdict:
        """Send an encoded request of the signal; raises nothing for the collector's sake."""
        body = self._compress(body)
        proven, self._proven = self._proven, False
        since = time.monotonic()
        try:
            return self._send(body, self._timeout)
        except requests.Timeout as error:
            return verdict.of_error(error, "later")
        except requests.ConnectionError as error:
            # What worked before and lay idle may have been cut by whoever stands between.
            left = self._timeout - (time.monotonic() - since)
            if not proven or left <= 0:
                return verdict.of_error(error, "later")
        except Exception as error:  # noqa: BLE001 - what cannot be sent raises anything
            return _unsent(error)
        try:
            return self._send(body, left)
        except Exception as error:  # noqa: BLE001 - the same
            return _unsent(error)

    def close(self) -> None:
        """Close the connections that are at rest."""
        self._session.close()

    def _send(self, body: bytes, timeout: float) -> Verdict:
        with self._session.post(
            self._url, data=body, headers=self._headers, timeout=timeout, allow_redirects=False, stream=True
        ) as response:
            content = next(response.iter_content(_LONGEST_ANSWER), b"")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not 200 <= response.status_code < 300:
            return _refused(response, kind, content)
        if kind == "text/html":
            # A collector's answer is never one, so whoever says so has thrown the values away.
            return verdict.of_http(response.status_code, "a web page answers, no collector", None)
        self._proven = True
        return verdict.of_response(*_partial_success(self._form, kind, content))


def _unsent(error: Exception) -> Verdict:
    # A header or a proxy that cannot be used is no RequestException, or one that also is a ValueError.
    passing = isinstance(error, requests.RequestException | OSError) and not isinstance(error, ValueError)
    return verdict.of_error(error, "later" if passing else "held")


def _refused(response: requests.Response, kind: str, content: bytes) -> Verdict:
    if 300 <= response.status_code < 400:
        # To follow it would send the headers' secrets wherever the answer says.
        return verdict.of_http(response.status_code, "the collector is elsewhere; correct the endpoint", None)
    message = response.reason or ""
    if kind == PROTOBUF:
        with contextlib.suppress(DecodeError):
            message = Status.FromString(content).message or message
    elif kind != "text/html" and content.strip():
        message = f"{message}: {content.decode(errors='replace')}"
    return verdict.of_http(response.status_code, message, retry_after(response.headers.get("retry-after")))


def _partial_success(form: Form, kind: str, content: bytes) -> tuple[int, str]:
    """How many are rejected, and the message; what cannot be read is a success without remarks."""
    try:
        if kind == "application/json":
            told = (json.loads(content or b"{}") or {}).get("partialSuccess") or {}
            return int(told.get(form.rejected_in_json, 0)), str(told.get("errorMessage", ""))
        partial = form.response.FromString(content).partial_success
        return getattr(partial, form.rejected), partial.error_message
    except (DecodeError, ValueError, TypeError, AttributeError):
        return 0, ""


def retry_after(value: str | None) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or as a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except (TypeError, ValueError):
            return None
        seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - time.time()
    return max(0.0, seconds) if math.isfinite(seconds) else None
