"""A tick's answers become results one by one, and no query's trouble is raised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from poller.errors import PollError
from poller.model import Answer, Column, PollResult, QueryDefinition, Rows, Sample
from poller.polling import poll
from tests.bed.definitions import a_query

QUERIES = [a_query(name) for name in ("good", "skipped", "failed", "wrong")]
REFUSED = PollError("rejected", "no", sqlstate="42501")
NUMBER, TEXT = Column("n", 20), Column("n", 25)


def ask(queries: Sequence[QueryDefinition]) -> Iterator[Answer]:
    good, skipped, failed, wrong = queries
    yield Answer(good, 5.0, 0.1, rows=Rows((NUMBER,), [(b"7",), (None,)], beyond=1))
    yield Answer(skipped, 5.0, 0.0, skipped="column t.x does not exist")
    yield Answer(failed, 5.0, 0.2, error=REFUSED)
    yield Answer(wrong, 5.0, 0.3, rows=Rows((TEXT,), [(b"x",)]))


def test_each_answer_becomes_what_the_poll_came_to() -> None:
    good, skipped, failed, wrong = poll(QUERIES, ask)
    assert good == PollResult(
        QUERIES[0], 5.0, 0.1, "ok", (Sample("good", 7, {}),), {"null": 1, "overflow": 1}
    )
    assert skipped == PollResult(QUERIES[1], 5.0, 0.0, "skipped", reason="column t.x does not exist")
    assert failed == PollResult(QUERIES[2], 5.0, 0.2, "failed", error=REFUSED)
    assert failed.error_type == "rejected"
    assert (wrong.outcome, wrong.error_type, wrong.duration, wrong.samples) == ("failed", "mismatch", 0.3, ())


def test_each_result_is_told_before_the_next_answer_is_waited_for() -> None:
    order: list[str] = []

    def watched(queries: Sequence[QueryDefinition]) -> Iterator[Answer]:
        for answer in ask(queries):
            order.append(f"answer {answer.query.name}")
            yield answer

    poll(QUERIES, watched, lambda result: order.append(f"result {result.query.name}"))
    assert order == [f"{what} {query.name}" for query in QUERIES for what in ("answer", "result")]
