"""Results of an export by the collector's response: the OTLP specification and our differences."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import grpc
import pytest

from poller.model.redaction import learn
from poller.otlp.http import retry_after
from poller.otlp.response import LONGEST_REASON, Disposition, classify_grpc, classify_http, printable_text

RETRYABLE = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}


@pytest.mark.parametrize("code", [code.name for code in grpc.StatusCode if code.name != "OK"])
def test_a_grpc_status_is_retryable_according_to_the_specification(code: str) -> None:
    """Other statuses drop the request only if they reject the data: an operator can fix a token or a path."""
    result = classify_grpc(code, "so it is", None)
    expected = "retryable" if code in RETRYABLE else "invalid" if code == "INVALID_ARGUMENT" else "held"
    assert result.disposition == expected
    assert result.reason == f"{code}: so it is"
    assert result.error == {"error.type": code, "rpc.response.status_code": code}


def test_exhausted_resources_are_retryable_with_retry_info_only() -> None:
    result = classify_grpc("RESOURCE_EXHAUSTED", "quota", 7.0)
    assert (result.disposition, result.wait) == ("retryable", 7.0)
    assert classify_grpc("RESOURCE_EXHAUSTED", "quota", None).disposition == "held"


@pytest.mark.parametrize(
    ("code", "details"),
    [
        ("RESOURCE_EXHAUSTED", "Decompressed message larger than max"),
        ("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (5100000 vs. 4194304)"),
        ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (5100000 vs. 4194304)"),
        ("RESOURCE_EXHAUSTED", "gRPC message exceeds maximum size 4194304: 5100000"),
        ("RESOURCE_EXHAUSTED", "Received message exceeds the maximum configured message size."),
        (
            "OUT_OF_RANGE",
            "Error, decoded message length too large: found 5100000 bytes, the limit is: 4194304",
        ),
    ],
)
def test_a_message_above_a_servers_limit_is_recognized_by_its_text(code: str, details: str) -> None:
    assert classify_grpc(code, details, None).disposition == "too_large"


@pytest.mark.parametrize(
    ("status", "disposition"),
    [
        *[(status, "retryable") for status in (429, 502, 503, 504)],
        *[(status, "held") for status in (301, 307, 401, 403, 404, 405, 408, 415, 500, 501)],
        *[(status, "invalid") for status in (400, 422)],
        (413, "too_large"),
    ],
)
def test_an_http_status_is_retryable_according_to_the_specification(
    status: int, disposition: Disposition
) -> None:
    result = classify_http(status, "so it is", 3.0)
    assert (result.disposition, result.wait) == (disposition, 3.0)
    assert result.error == {"error.type": str(status), "http.response.status_code": status}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        ("0", 0.0),
        ("-5", 0.0),
        ("1.5", 1.5),
        ("soon", None),
        ("inf", None),
        ("", None),
    ],
)
def test_retry_after_as_a_number(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


def test_retry_after_as_a_date() -> None:
    at = datetime.fromtimestamp(time.time(), UTC) + timedelta(hours=1)
    seconds = retry_after(format_datetime(at, usegmt=True))
    assert seconds is not None
    assert 3000 < seconds <= 3600
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 -0000") == 0.0


SECRET = "open-sesame-token"


@pytest.mark.parametrize("visible", range(len(SECRET) + 1))
def test_a_reason_is_a_short_line_without_secrets(visible: int) -> None:
    """Even if the line is cut within the secret, because masking comes first."""
    learn(SECRET)
    page = ("no\n\tentry " * 50)[:LONGEST_REASON]
    before = " ".join(page.split())[: LONGEST_REASON - visible]
    reason = printable_text(before + SECRET + " and more" * 9)
    assert len(reason) <= LONGEST_REASON + 3
    assert "\n" not in reason
    assert not any(SECRET[:length] in reason for length in range(4, len(SECRET) + 1))
    assert printable_text(page).startswith("no entry no entry")


@pytest.mark.parametrize("secrets", [("sesame-one", "sesame-one-two"), ("sesame-one-two", "sesame-one")])
def test_a_secret_that_is_the_prefix_of_another_leaves_nothing_of_both(secrets: tuple[str, str]) -> None:
    learn(*secrets)
    assert printable_text("a sesame-one-two, a sesame-one") == "a ***, a ***"


@pytest.mark.parametrize("start", ["x", " ", SECRET, "://a:"])
def test_only_the_beginning_of_a_huge_text_is_processed(start: str) -> None:
    """Megabytes would take seconds; half a secret at the end of the beginning is masked as well."""
    learn(SECRET)
    for visible in (1, 9, len(SECRET) - 1):
        reason = printable_text((start * 16_384)[: 16_384 - visible] + SECRET + start * 2**20)
        assert len(reason) <= LONGEST_REASON + 3
        assert "open-s" not in reason.removeprefix(start)


def test_a_long_answer_is_masked_before_it_is_cut() -> None:
    learn(SECRET)
    reason = printable_text("x" * (LONGEST_REASON - 15) + SECRET)
    assert reason == "x" * (LONGEST_REASON - 15) + "***"
