"""The log says what changed: a failure once, its repeats summed up, its end announced."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from poller.model.errors import PollError
from poller.model.result import PollResult, Sample, Skip, SkipReason
from poller.polling.store import ResultStore
from poller.postgres.sqlstate import server_error
from poller.telemetry.logging import JsonFormatter
from poller.telemetry.poll_log import PollLog
from tests.bed.definitions import a_query, a_result

A, B = a_query("a"), a_query("b")
GOOD_A, GOOD_B = a_result(A), a_result(B)
DENIED = PollError("rejected", "permission denied for table t", sqlstate="42501", hint="GRANT SELECT")
GONE = PollError("unavailable", "connection refused", sqlstate="57P03", hint="wait")


def failed(error: PollError, query: Any = A) -> PollResult:
    return a_result(query, outcome="failed", error=error)


def test_a_single_poll_promises_no_other(caplog: pytest.LogCaptureFixture) -> None:
    assert Heard(caplog, repeats=False)(failed(GONE)) == ["WARNING replica unavailable: connection refused"]


class Heard:
    def __init__(self, caplog: pytest.LogCaptureFixture, **arguments: Any) -> None:
        caplog.set_level(logging.INFO, logger="poller.telemetry.poll_log")
        self._caplog = caplog
        self._polls_log = PollLog(**arguments)
        self.now = 0.0

    def __call__(self, *results: PollResult, after: float = 60.0) -> list[str]:
        """What the log says of one tick, `after` seconds behind the one before."""
        self.now += after
        self._caplog.clear()
        self._polls_log.observe(results, self.now)
        return [f"{record.levelname} {record.getMessage()}" for record in self._caplog.records]

    def forget(self, *names: str) -> None:
        self._polls_log.reset(names)

    def extra(self, name: str) -> object:
        (record,) = self._caplog.records
        return vars(record).get(name)


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Heard:
    return Heard(caplog)


def test_good_polls_are_no_news(heard: Heard) -> None:
    assert heard(GOOD_A, GOOD_B) == []


def test_a_failure_is_said_once_with_what_to_do_and_its_end_with_how_long(heard: Heard) -> None:
    assert heard(failed(DENIED), GOOD_B) == ["WARNING query a failed: permission denied for table t"]
    assert heard.extra("query") == "a"
    assert heard.extra("error.type") == "rejected"
    assert heard.extra("db.response.status_code") == "42501"
    assert heard.extra("hint") == "GRANT SELECT"
    assert heard(failed(DENIED)) == []
    assert heard(failed(DENIED)) == []
    assert heard(GOOD_A) == ["INFO query a recovered after 3m"]
    assert heard.extra("times") == 3
    assert heard(GOOD_A) == []
    assert heard(failed(DENIED)) == ["WARNING query a failed: permission denied for table t"], (
        "it is news again"
    )


def test_a_failure_that_lasts_is_summed_up_once_an_hour(heard: Heard) -> None:
    heard(failed(DENIED))
    assert heard(failed(DENIED), after=3599) == []
    assert heard(failed(DENIED), after=1) == ["WARNING query a is still failed(rejected) after 1h"]
    assert heard.extra("times") == 3
    assert heard(failed(DENIED), after=3599) == []
    assert heard(failed(DENIED), after=1) == ["WARNING query a is still failed(rejected) after 2h"]
    assert heard(GOOD_A, after=60) == ["INFO query a recovered after 2h1m"]


def test_an_outage_that_lasts_is_summed_up_once_an_hour(heard: Heard) -> None:
    heard(failed(GONE), failed(GONE, B))
    assert heard(failed(GONE), failed(GONE, B), after=3600) == ["WARNING replica unavailable for 1h by now"]
    assert heard.extra("failed_ticks") == 2
    assert heard(failed(GONE), after=60) == []


def test_values_that_are_too_old_are_said_to_be_withheld_once(caplog: pytest.LogCaptureFixture) -> None:
    store, polls_log = ResultStore([A, B]), PollLog()

    def said(now: float) -> list[str]:
        caplog.clear()
        polls_log.values(store.freshness(now))
        return caplog.messages

    assert said(0) == [], "what never was is not withheld"
    store.put([GOOD_A], 0)
    store.put([failed(DENIED)], 600)
    assert said(900) == []
    assert said(901) == ["query a: no good poll for 15m1s, its values are withheld (max_age 15m)"]
    assert said(1200) == []
    store.put([GOOD_A], 1200)
    assert said(1200) == []
    assert said(2200) != [], "it is news again"


def test_many_whose_values_are_withheld_make_one_line(caplog: pytest.LogCaptureFixture) -> None:
    queries = [a_query(f"q{number}") for number in range(25)]
    store, polls_log = ResultStore(queries), PollLog()
    store.put([a_result(query) for query in queries], 0)
    polls_log.values(store.freshness(901))
    (said,) = caplog.messages
    assert said.startswith("25 queries: no good poll for longer than their max_age, their values are")
    assert said.endswith("q18, q19 and 5 more")


def test_another_failure_of_the_same_query_is_news(heard: Heard) -> None:
    heard(failed(DENIED))
    assert heard(failed(PollError("timeout", "too slow", sqlstate="57014"))) == [
        "WARNING query a failed: too slow"
    ]


def test_a_skipped_query_says_its_reason_once(heard: Heard) -> None:
    skipped = a_result(A, outcome="skipped", skipped=Skip("column", "column t.x does not exist"))
    assert heard(skipped) == ["WARNING query a skipped: column t.x does not exist"]
    assert heard(skipped) == []
    assert heard(GOOD_A) == ["INFO query a recovered after 2m"]


@pytest.mark.parametrize("reason", ["lag", "primary", "excess_privilege"])
def test_a_refused_server_is_one_line_for_all_queries_and_one_when_it_is_taken_again(
    heard: Heard, reason: SkipReason
) -> None:
    refused = [a_result(query, outcome="skipped", skipped=Skip(reason, "not this one")) for query in (A, B)]
    assert heard(*refused) == ["WARNING polls skipped: not this one"]
    assert (heard.extra("poller.reason"), heard.extra("queries")) == (reason, 2)
    assert heard(*refused) == []
    assert heard(GOOD_A, GOOD_B) == ["INFO polling again after 2m"]


def test_an_outage_that_ends_in_a_refusal_tells_both(heard: Heard) -> None:
    heard(failed(GONE, A), failed(GONE, B))
    refused = a_result(A, outcome="skipped", skipped=Skip("lag", "far behind"))
    assert heard(refused) == ["WARNING polls skipped: far behind"]
    assert heard(GOOD_A) == ["INFO polling again after 1m"]


@pytest.mark.parametrize("reason", ["busy", "duty_cycle", "breaker"])
def test_a_query_held_back_for_its_record_is_told_once_an_hour_and_is_no_recovery(
    heard: Heard, reason: SkipReason
) -> None:
    held = a_result(A, outcome="skipped", skipped=Skip(reason, "took 4s"))
    assert heard(held) == ["WARNING query a is polled less often: took 4s"]
    assert heard.extra("poller.reason") == reason
    assert heard(GOOD_A) == []
    assert heard(held) == []
    assert heard(held, after=3600.0) == ["WARNING query a is polled less often: took 4s"]


def test_a_breaker_does_not_make_a_lasting_failure_news_again_but_a_later_one_is(heard: Heard) -> None:
    held = a_result(A, outcome="skipped", skipped=Skip("breaker", "failed 3 times in a row"))
    heard(failed(DENIED))
    assert heard(held) == ["WARNING query a is polled less often: failed 3 times in a row"]
    assert heard(failed(DENIED)) == []
    assert heard(GOOD_A) == ["INFO query a recovered after 3m"]
    heard(failed(DENIED))
    assert heard(held) == ["WARNING query a is polled less often: failed 3 times in a row"]


def test_an_estimate_is_told_once_and_so_is_its_end(heard: Heard) -> None:
    guessed = a_result(A, estimated="cost")
    assert heard(guessed) == ["INFO query a: the estimate answers (cost)"]
    assert heard(guessed) == []
    assert heard(GOOD_A) == ["INFO query a recovered after 2m"]


def test_a_conflict_tells_its_kind_and_what_to_do(heard: Heard) -> None:
    text = (
        "canceling statement due to conflict with recovery (User was holding a relation lock for too long.)"
    )
    assert heard(failed(server_error("40001", text))) == [f"WARNING query a failed: {text}"]
    assert heard.extra("poller.conflict") == "lock"
    assert "max_standby_streaming_delay" in str(heard.extra("hint"))


def test_an_outage_is_one_line_for_all_queries_and_one_when_it_is_over(heard: Heard) -> None:
    told = heard(failed(GONE, A), failed(GONE, B))
    assert told == ["WARNING replica unavailable, polls will be tried again: connection refused"]
    assert heard.extra("queries") == 2
    assert heard.extra("db.response.status_code") == "57P03"
    assert heard.extra("hint") == "wait"
    assert heard(failed(GONE, A), failed(GONE, B)) == []
    assert heard(GOOD_A, GOOD_B) == ["INFO replica available again after 2m"]
    assert heard.extra("failed_ticks") == 2


def test_an_outage_does_not_make_an_old_failure_news_again(heard: Heard) -> None:
    heard(failed(DENIED))
    heard(failed(GONE))
    assert heard(failed(DENIED)) == ["INFO replica available again after 1m"]


def test_rows_left_out_are_said_by_reason_and_count_but_a_declared_null_is_not(heard: Heard) -> None:
    assert heard(a_result(A, quarantined={"null": 3})) == []
    assert heard(a_result(A, quarantined={"null": 3, "duplicate": 2})) == ["WARNING query a: rows omitted"]
    assert heard.extra("quarantined.duplicate") == 2
    assert heard.extra("quarantined.null") == 3, "beside another reason it completes the account"
    assert heard(a_result(A, quarantined={"duplicate": 5})) == [], "the same reason again"
    assert heard(GOOD_A) == ["INFO query a recovered after 2m"]


def test_our_own_cancelling_is_no_failure_and_no_recovery(heard: Heard) -> None:
    ours = PollError("cancelled", "stop requested")
    assert heard(failed(ours)) == []
    heard(failed(GONE))
    assert heard(failed(ours)) == []


def test_a_cancel_by_somebody_else_is_said(heard: Heard) -> None:
    theirs = PollError("cancelled", "canceling statement due to user request", sqlstate="57014")
    assert heard(failed(theirs)) == ["WARNING query a failed: canceling statement due to user request"]


def test_where_nothing_is_pushed_each_value_is_told(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard(caplog, every_result=True)
    result = a_result(A, Sample("things", 7, {"state": "queued"}))
    assert heard(result) == heard(result) == ["INFO things = 7"]
    assert (heard.extra("query"), heard.extra("attributes")) == ("a", {"state": "queued"})


@pytest.mark.parametrize("name", ["name", "message", "args", "module", "query", "levelname"])
def test_an_attribute_may_have_a_name_that_logging_keeps_for_itself(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    heard = Heard(caplog, every_result=True)
    assert heard(a_result(A, Sample("things", 7, {name: "x"}))) == ["INFO things = 7"]
    assert f'"{name}": "x"' in JsonFormatter().format(caplog.records[0])


def test_what_is_forgotten_is_news_again_and_has_no_recovery(heard: Heard) -> None:
    held = a_result(A, outcome="skipped", skipped=Skip("breaker", "failed 3 times in a row"))
    heard(failed(DENIED), failed(DENIED, B))
    heard(held)
    heard.forget("a")
    assert heard(GOOD_A) == []
    assert heard(held) == ["WARNING query a is polled less often: failed 3 times in a row"]
    assert heard(failed(DENIED)) == ["WARNING query a failed: permission denied for table t"]
    assert heard(GOOD_B) == ["INFO query b recovered after 5m"], "the others' memory stays"
