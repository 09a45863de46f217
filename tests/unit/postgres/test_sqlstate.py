"""An SQLSTATE determines the kind of failure and the hint."""

from __future__ import annotations

import pytest

from poller.model.errors import ErrorKind
from poller.model.redaction import LONGEST_BEGINNING, learn, redact_beginning
from poller.postgres.sqlstate import LONGEST_MESSAGE, kind_of, one_line, server_error


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [
        ("40001", "conflict"), ("40P01", "conflict"), ("57P04", "conflict"), ("55P03", "timeout"),
        ("25P03", "timeout"), ("25P04", "timeout"), ("57P01", "unavailable"), ("57P03", "unavailable"),
        ("53300", "unavailable"), ("08006", "unavailable"), ("28P01", "unavailable"),
        ("28000", "unavailable"),
        ("22012", "rejected"), ("42501", "rejected"), ("42P01", "rejected"), ("25006", "rejected"),
        ("42601", "rejected"), ("XX000", "rejected"), (None, "unavailable"),
    ],
)  # fmt: skip
def test_each_sqlstate_has_its_kind(sqlstate: str | None, kind: ErrorKind) -> None:
    assert kind_of(sqlstate) == kind
    assert server_error(sqlstate, "x").kind == kind


def test_a_statement_that_ran_for_its_whole_timeout_was_ended_by_it() -> None:
    error = server_error("57014", "canceling statement", elapsed=0.95, timeout=1.0)
    assert (error.kind, error.hint) == ("timeout", "make the query cheaper or raise its timeout")


def test_a_timeout_message_is_a_timeout_even_after_a_late_read() -> None:
    error = server_error("57014", "canceling statement due to statement timeout", elapsed=0.1, timeout=1.0)
    assert error.kind == "timeout"


@pytest.mark.parametrize(("elapsed", "timeout"), [(0.2, 1.0), (99.0, None)])
def test_a_statement_that_was_cancelled_before_its_timeout_was_cancelled_by_a_user(
    elapsed: float, timeout: float | None
) -> None:
    error = server_error("57014", "canceling statement", elapsed=elapsed, timeout=timeout)
    assert (error.kind, error.sqlstate, error.hint) == ("cancelled", "57014", None)


def test_the_servers_hint_precedes_the_pollers_hint() -> None:
    error = server_error("42703", "no column")
    assert error.hint is not None
    assert "requires.columns" in error.hint
    assert server_error("42703", "no column", hint="Perhaps you meant x.").hint == "Perhaps you meant x."
    late = server_error("57014", "x", hint="theirs", elapsed=1, timeout=1)
    assert late.hint == "theirs"


def test_a_long_message_of_the_server_is_cut() -> None:
    error = server_error("22P02", "invalid: " + "x" * 1_000_000, hint="y" * 1_000_000)
    assert error.message.startswith("invalid: xxx")
    assert error.message.endswith("xxx...")
    assert error.hint is not None
    assert len(error.message) == len(error.hint) == LONGEST_MESSAGE + len("...")
    conflict = server_error("40001", "z" * 2000 + " (User was holding a relation lock for too long.)")
    assert conflict.conflict == "lock", "the complete message determines the kind"


def test_lines_of_libpq_become_sentences_and_lines_within_a_sentence_do_not() -> None:
    """libpq's message for a lost connection (PostgreSQL source, src/interfaces/libpq/fe-misc.c)."""
    assert one_line(
        "server closed the connection unexpectedly\n"
        "\tThis probably means the server terminated abnormally\n\tbefore or while processing the request.\n"
    ) == (
        "server closed the connection unexpectedly. "
        "This probably means the server terminated abnormally before or while processing the request."
    )


def test_a_huge_message_is_cut_before_masking_and_contains_no_part_of_a_secret() -> None:
    learn("wholly-secret-text")
    text = "wholly-secret-text and " + "x" * (LONGEST_BEGINNING - 34) + "wholly-secret-text" + "y" * 1_000_000
    beginning = redact_beginning(text)
    assert beginning.startswith("*** and xxx")
    assert beginning.endswith(f"xxx... ({len(text)} characters)")
    assert len(beginning) < LONGEST_BEGINNING
    assert "wholly" not in beginning
    assert redact_beginning("wholly-secret-text, short") == "***, short"
    assert len(server_error("XX000", text).message) <= LONGEST_MESSAGE + 3
