"""A query's state is a word, followed by a word for the reason."""

from __future__ import annotations

from poller.model.errors import PollError
from poller.model.result import STALE, Skip, state_of
from tests.bed.definitions import a_query, a_result

QUERY = a_query("q")


def test_a_state_is_a_word_with_its_reason() -> None:
    states = [
        state_of(a_result(QUERY)),
        state_of(a_result(QUERY, estimated="cost")),
        state_of(a_result(QUERY, outcome="failed", error=PollError("timeout", "too slow"))),
        state_of(a_result(QUERY, outcome="skipped", skipped=Skip("relation", "relation x does not exist"))),
        STALE,
    ]
    assert [str(state) for state in states] == [
        "ok", "estimated(cost)", "failed(timeout)", "skipped(relation)", "stale",
    ]  # fmt: skip
