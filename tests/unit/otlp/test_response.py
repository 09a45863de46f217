"""Verdicts: what each answer of a collector means, by the OTLP specification and where we differ."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import grpc
import pytest

from poller.model.redaction import learn
from poller.otlp import response as export_result
from poller.otlp.http import retry_after
from poller.otlp.response import Fate

RETRYABLE = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}


@pytest.mark.parametrize("code", [code.name for code in grpc.StatusCode if code.name != "OK"])
def test_a_grpc_status_is_retryable_as_the_specification_says(code: str) -> None:
    """What is not, is dropped only where it blames the data: a token or a path gets repaired."""
    found = export_result.of_grpc(code, "so it is", None)
    expected = "later" if code in RETRYABLE else "invalid" if code == "INVALID_ARGUMENT" else "held"
    assert found.fate == expected
    assert found.reason == f"{code}: so it is"
    assert found.error == {"error.type": code, "rpc.response.status_code": code}


def test_exhausted_resources_are_retryable_with_retry_info_only() -> None:
    found = export_result.of_grpc("RESOURCE_EXHAUSTED", "quota", 7.0)
    assert (found.fate, found.wait) == ("later", 7.0)
    assert export_result.of_grpc("RESOURCE_EXHAUSTED", "quota", None).fate == "held"


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
def test_a_message_above_a_servers_limit_is_known_by_its_words(code: str, details: str) -> None:
    assert export_result.of_grpc(code, details, None).fate == "too_large"


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        *[(status, "later") for status in (429, 502, 503, 504)],
        *[(status, "held") for status in (301, 307, 401, 403, 404, 405, 408, 415, 500, 501)],
        *[(status, "invalid") for status in (400, 422)],
        (413, "too_large"),
    ],
)
def test_an_http_status_is_retryable_as_the_specification_says(status: int, fate: Fate) -> None:
    found = export_result.of_http(status, "so it is", 3.0)
    assert (found.fate, found.wait) == (fate, 3.0)
    assert found.error == {"error.type": str(status), "http.response.status_code": status}


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
    found = retry_after(format_datetime(at, usegmt=True))
    assert found is not None
    assert 3000 < found <= 3600
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 -0000") == 0.0


SECRET = "open-sesame-token"


@pytest.mark.parametrize("shown", range(len(SECRET) + 1))
def test_a_reason_is_one_short_line_without_secrets(shown: int) -> None:
    """Also where the line is cut within the secret: it is masked before."""
    learn(SECRET)
    page = ("no\n\tentry " * 50)[: export_result.LONGEST_REASON]
    before = " ".join(page.split())[: export_result.LONGEST_REASON - shown]
    told = export_result.printable_text(before + SECRET + " and more" * 9)
    assert len(told) <= export_result.LONGEST_REASON + 3
    assert "\n" not in told
    assert not any(SECRET[:length] in told for length in range(4, len(SECRET) + 1))
    assert export_result.printable_text(page).startswith("no entry no entry")


@pytest.mark.parametrize("secrets", [("sesame-one", "sesame-one-two"), ("sesame-one-two", "sesame-one")])
def test_of_two_secrets_one_of_which_starts_with_the_other_nothing_remains(secrets: tuple[str, str]) -> None:
    learn(*secrets)
    assert export_result.printable_text("a sesame-one-two, a sesame-one") == "a ***, a ***"


@pytest.mark.parametrize("start", ["x", " ", SECRET, "://a:"])
def test_of_a_huge_text_a_part_is_looked_at(start: str) -> None:
    """Megabytes of it took seconds; half a secret at the end of that part is not shown either."""
    learn(SECRET)
    for shown in (1, 9, len(SECRET) - 1):
        told = export_result.printable_text((start * 16_384)[: 16_384 - shown] + SECRET + start * 2**20)
        assert len(told) <= export_result.LONGEST_REASON + 3
        assert "open-s" not in told.removeprefix(start)


def test_a_long_answer_is_masked_before_it_is_cut() -> None:
    learn(SECRET)
    told = export_result.printable_text("x" * (export_result.LONGEST_REASON - 15) + SECRET)
    assert told == "x" * (export_result.LONGEST_REASON - 15) + "***"
