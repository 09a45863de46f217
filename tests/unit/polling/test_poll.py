"""A tick's answers become results one by one, and a query's error is never raised."""

from __future__ import annotations

from collections.abc import Sequence

from poller.model.errors import PollError
from poller.model.query import QueryDefinition
from poller.model.result import Answer, PollResult, RejectedRow, Sample, Skip
from poller.model.rows import Column, Rows
from poller.polling.poll import poll
from tests.bed.definitions import Source, a_query

QUERIES = [a_query(name) for name in ("good", "skipped", "failed", "wrong", "guessed")]
ABSENT = Skip("column", "column t.x does not exist")
REFUSED = PollError("rejected", "no", sqlstate="42501")
NUMBER, TEXT = Column("n", 20), Column("n", 25)


def answer(queries: Sequence[QueryDefinition]) -> list[Answer]:
    good, skipped, failed, wrong, guessed = queries
    return [
        Answer(good, 5.0, 0.1, rows=Rows((NUMBER,), [(b"7",), (None,)], beyond=1), answered=9.0),
        Answer(skipped, 5.0, 0.0, skipped=ABSENT),
        Answer(failed, 5.0, 0.2, error=REFUSED),
        Answer(wrong, 5.0, 0.3, rows=Rows((TEXT,), [(b"x",)])),
        Answer(guessed, 5.0, 0.4, rows=Rows((NUMBER,), [(b"9",)]), estimated="cost"),
    ]


def test_each_answer_becomes_a_poll_result() -> None:
    good, skipped, failed, wrong, guessed = poll(QUERIES, Source(answer))
    assert good == PollResult(
        QUERIES[0],
        5.0,
        0.1,
        "ok",
        (Sample("good", 7, {}),),
        {"null": 1, "overflow": 1},
        (RejectedRow("good", "null", {"n": None}),),
        answered=9.0,
        returned=3,
    )
    assert skipped == PollResult(QUERIES[1], 5.0, 0.0, "skipped", skipped=ABSENT)
    assert failed == PollResult(QUERIES[2], 5.0, 0.2, "failed", error=REFUSED)
    assert failed.error_type == "rejected"
    assert (wrong.outcome, wrong.error_type, wrong.duration, wrong.samples) == ("failed", "mismatch", 0.3, ())
    assert guessed == PollResult(
        QUERIES[4], 5.0, 0.4, "ok", (Sample("guessed", 9, {}),), estimated="cost", returned=1
    )


def test_the_callback_receives_the_name_of_each_answer() -> None:
    names: list[str] = []
    poll(QUERIES, Source(answer), names.append)
    assert names == [query.name for query in QUERIES]
