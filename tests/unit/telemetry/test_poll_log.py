"""The log contains changes: a failure once, a summary of its repeats, and its end."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest

from poller.model.errors import PollError
from poller.model.log_format import JsonFormatter
from poller.model.result import Freshness, PollResult, Sample, Skip, SkipReason
from poller.polling.store import ResultStore
from poller.postgres.sqlstate import server_error
from poller.telemetry.logging import READER
from poller.telemetry.poll_log import PollLog, log_withheld
from tests.bed.definitions import a_query, a_result

A, B = a_query("a"), a_query("b")
GOOD_A, GOOD_B = a_result(A), a_result(B)
DENIED = PollError("rejected", "permission denied for table t", sqlstate="42501", hint="GRANT SELECT")
GONE = PollError("unavailable", "connection refused", sqlstate="57P03", hint="wait")


def failed(error: PollError, query: Any = A) -> PollResult:
    return a_result(query, outcome="failed", error=error)


def test_a_single_poll_does_not_announce_another(caplog: pytest.LogCaptureFixture) -> None:
    assert Recorded(caplog, repeats=False)(failed(GONE)) == [
        "WARNING replica unavailable: connection refused"
    ]


class Recorded:
    def __init__(self, caplog: pytest.LogCaptureFixture, **arguments: Any) -> None:
        caplog.set_level(logging.INFO, logger="poller.telemetry.poll_log")
        self._caplog = caplog
        self._polls_log = PollLog(**arguments)
        self.now = 0.0

    def __call__(self, *results: PollResult, after: float = 60.0) -> list[str]:
        """Return the log lines of a tick, `after` seconds after the previous tick."""
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
def recorded(caplog: pytest.LogCaptureFixture) -> Recorded:
    return Recorded(caplog)


def test_good_polls_are_not_logged(recorded: Recorded) -> None:
    assert recorded(GOOD_A, GOOD_B) == []


def test_a_failure_is_logged_once_with_advice_and_its_end_with_the_duration(recorded: Recorded) -> None:
    assert recorded(failed(DENIED), GOOD_B) == ["WARNING query a failed: permission denied for table t"]
    assert recorded.extra("query") == "a"
    assert recorded.extra("error.type") == "rejected"
    assert recorded.extra("db.response.status_code") == "42501"
    assert recorded.extra("hint") == "GRANT SELECT"
    assert recorded(failed(DENIED)) == []
    assert recorded(failed(DENIED)) == []
    assert recorded(GOOD_A) == ["INFO query a recovered after 3m"]
    assert recorded.extra("times") == 3
    assert recorded(GOOD_A) == []
    assert recorded(failed(DENIED)) == ["WARNING query a failed: permission denied for table t"], (
        "it must be logged again"
    )


def test_a_lasting_failure_is_summarized_once_an_hour(recorded: Recorded) -> None:
    recorded(failed(DENIED))
    assert recorded(failed(DENIED), after=3599) == []
    assert recorded(failed(DENIED), after=1) == ["WARNING query a is still failed(rejected) after 1h"]
    assert recorded.extra("times") == 3
    assert recorded(failed(DENIED), after=3599) == []
    assert recorded(failed(DENIED), after=1) == ["WARNING query a is still failed(rejected) after 2h"]
    assert recorded(GOOD_A, after=60) == ["INFO query a recovered after 2h1m"]


def test_a_lasting_outage_is_summarized_once_an_hour(recorded: Recorded) -> None:
    recorded(failed(GONE), failed(GONE, B))
    assert recorded(failed(GONE), failed(GONE, B), after=3600) == [
        "WARNING replica unavailable for 1h by now"
    ]
    assert recorded.extra("failed_ticks") == 2
    assert recorded(failed(GONE), after=60) == []


def test_withheld_values_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    store, polls_log = ResultStore([A, B]), PollLog()

    def messages_at(now: float) -> list[str]:
        caplog.clear()
        log_withheld({"": polls_log.newly_withheld(store.freshness(now))})
        return caplog.messages

    assert messages_at(0) == [], "values that never existed are not withheld"
    store.put([GOOD_A], 0)
    store.put([failed(DENIED)], 600)
    assert messages_at(900) == []
    assert messages_at(901) == [
        "query a: no successful poll for 15m1s; its values are withheld (max_age 15m)"
    ]
    assert messages_at(1200) == []
    store.put([GOOD_A], 1200)
    assert messages_at(1200) == []
    assert messages_at(2200) != [], "it must be logged again"


def withheld(number: int) -> list[Freshness]:
    """Return so many queries whose values are withheld from now on."""
    queries = [a_query(f"q{number}") for number in range(number)]
    store = ResultStore(queries)
    store.put([a_result(query) for query in queries], 0)
    return PollLog().newly_withheld(store.freshness(901))


@pytest.mark.parametrize("target", ["", "eu-1"])
def test_many_queries_with_withheld_values_are_a_single_line(
    caplog: pytest.LogCaptureFixture, target: str
) -> None:
    log_withheld({target: withheld(25), "good": []})
    (message,) = caplog.messages
    assert message.startswith("25 queries: no successful poll within their max_age; their values are")
    assert message.endswith("q18, q19 and 5 more")


def test_withheld_values_of_many_targets_are_a_single_line(caplog: pytest.LogCaptureFixture) -> None:
    log_withheld({f"t{number}": withheld(2) for number in range(500)})
    (message,) = caplog.messages
    assert message.startswith("1000 queries on 500 targets: no successful poll within their max_age; ")
    assert message.endswith(" are withheld: " + ", ".join(f"t{n} (2)" for n in range(20)) + " and 480 more")


def test_a_record_about_the_withheld_values_of_one_target_has_its_name() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(READER))
    logger = logging.getLogger("poller.telemetry.poll_log")
    logger.addHandler(handler)
    try:
        log_withheld({"eu-1": withheld(1)})
        log_withheld({"eu-2": withheld(3)})
        log_withheld({"eu-1": withheld(3), "eu-2": withheld(3)})
    finally:
        logger.removeHandler(handler)
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(record["message"].partition(":")[0], record.get("target")) for record in records] == [
        ("query q0", "eu-1"),
        ("3 queries", "eu-2"),
        ("6 queries on 2 targets", None),
    ]


def test_another_failure_of_the_same_query_is_logged(recorded: Recorded) -> None:
    recorded(failed(DENIED))
    assert recorded(failed(PollError("timeout", "too slow", sqlstate="57014"))) == [
        "WARNING query a failed: too slow"
    ]


def test_the_reason_of_a_skipped_query_is_logged_once(recorded: Recorded) -> None:
    skipped = a_result(A, outcome="skipped", skipped=Skip("column", "column t.x does not exist"))
    assert recorded(skipped) == ["WARNING query a skipped: column t.x does not exist"]
    assert recorded(skipped) == []
    assert recorded(GOOD_A) == ["INFO query a recovered after 2m"]


@pytest.mark.parametrize("reason", ["lag", "primary", "excess_privilege"])
def test_a_refused_server_and_its_recovery_are_each_a_single_line_for_all_queries(
    recorded: Recorded, reason: SkipReason
) -> None:
    refused = [a_result(query, outcome="skipped", skipped=Skip(reason, "not this one")) for query in (A, B)]
    assert recorded(*refused) == ["WARNING polls skipped: not this one"]
    assert (recorded.extra("poller.reason"), recorded.extra("queries")) == (reason, 2)
    assert recorded(*refused) == []
    assert recorded(GOOD_A, GOOD_B) == ["INFO polling again after 2m"]


def test_an_outage_that_ends_in_a_refusal_logs_both(recorded: Recorded) -> None:
    recorded(failed(GONE, A), failed(GONE, B))
    refused = a_result(A, outcome="skipped", skipped=Skip("lag", "far behind"))
    assert recorded(refused) == ["WARNING polls skipped: far behind"]
    assert recorded(GOOD_A) == ["INFO polling again after 1m"]


@pytest.mark.parametrize("reason", ["busy", "duty_cycle", "breaker"])
def test_a_delayed_query_is_logged_once_an_hour_and_has_not_recovered(
    recorded: Recorded, reason: SkipReason
) -> None:
    held = a_result(A, outcome="skipped", skipped=Skip(reason, "took 4s"))
    assert recorded(held) == ["WARNING query a is polled less often: took 4s"]
    assert recorded.extra("poller.reason") == reason
    assert recorded(GOOD_A) == []
    assert recorded(held) == []
    assert recorded(held, after=3600.0) == ["WARNING query a is polled less often: took 4s"]


def test_a_breaker_does_not_repeat_a_lasting_failure_but_a_later_failure_is_logged(
    recorded: Recorded,
) -> None:
    held = a_result(A, outcome="skipped", skipped=Skip("breaker", "failed 3 times in a row"))
    recorded(failed(DENIED))
    assert recorded(held) == ["WARNING query a is polled less often: failed 3 times in a row"]
    assert recorded(failed(DENIED)) == []
    assert recorded(GOOD_A) == ["INFO query a recovered after 3m"]
    recorded(failed(DENIED))
    assert recorded(held) == ["WARNING query a is polled less often: failed 3 times in a row"]


def test_an_estimate_and_its_end_are_each_logged_once(recorded: Recorded) -> None:
    guessed = a_result(A, estimated="cost")
    assert recorded(guessed) == ["INFO query a: the estimate answers (cost)"]
    assert recorded(guessed) == []
    assert recorded(GOOD_A) == ["INFO query a recovered after 2m"]


def test_a_conflict_is_logged_with_its_kind_and_advice(recorded: Recorded) -> None:
    text = (
        "canceling statement due to conflict with recovery (User was holding a relation lock for too long.)"
    )
    assert recorded(failed(server_error("40001", text))) == [f"WARNING query a failed: {text}"]
    assert recorded.extra("poller.conflict") == "lock"
    assert "max_standby_streaming_delay" in str(recorded.extra("hint"))


def test_an_outage_and_its_end_are_each_a_single_line_for_all_queries(recorded: Recorded) -> None:
    messages = recorded(failed(GONE, A), failed(GONE, B))
    assert messages == ["WARNING replica unavailable, polls will be retried: connection refused"]
    assert recorded.extra("queries") == 2
    assert recorded.extra("db.response.status_code") == "57P03"
    assert recorded.extra("hint") == "wait"
    assert recorded(failed(GONE, A), failed(GONE, B)) == []
    assert recorded(GOOD_A, GOOD_B) == ["INFO replica available again after 2m"]
    assert recorded.extra("failed_ticks") == 2


def test_an_outage_does_not_repeat_an_old_failure(recorded: Recorded) -> None:
    recorded(failed(DENIED))
    recorded(failed(GONE))
    assert recorded(failed(DENIED)) == ["INFO replica available again after 1m"]


def test_omitted_rows_are_logged_by_reason_and_count_except_a_declared_null(recorded: Recorded) -> None:
    assert recorded(a_result(A, rejected={"null": 3})) == []
    assert recorded(a_result(A, rejected={"null": 3, "duplicate": 2})) == ["WARNING query a: rows omitted"]
    assert recorded.extra("quarantined.duplicate") == 2
    assert recorded.extra("quarantined.null") == 3, "with another reason it is listed as well"
    assert recorded(a_result(A, rejected={"duplicate": 5})) == [], "the same reason again"
    assert recorded(GOOD_A) == ["INFO query a recovered after 2m"]


def test_a_cancel_by_the_poller_is_neither_a_failure_nor_a_recovery(recorded: Recorded) -> None:
    cancelled = PollError("cancelled", "stop requested")
    assert recorded(failed(cancelled)) == []
    recorded(failed(GONE))
    assert recorded(failed(cancelled)) == []


def test_a_cancel_by_another_user_is_logged(recorded: Recorded) -> None:
    theirs = PollError("cancelled", "canceling statement due to user request", sqlstate="57014")
    assert recorded(failed(theirs)) == ["WARNING query a failed: canceling statement due to user request"]


def test_without_an_endpoint_each_value_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    recorded = Recorded(caplog, every_result=True)
    result = a_result(A, Sample("things", 7, {"state": "queued"}))
    assert recorded(result) == recorded(result) == ["INFO things = 7"]
    assert (recorded.extra("query"), recorded.extra("attributes")) == ("a", {"state": "queued"})


@pytest.mark.parametrize("name", ["name", "message", "args", "module", "query", "levelname"])
def test_an_attribute_may_have_a_reserved_name_of_logging(
    caplog: pytest.LogCaptureFixture, name: str
) -> None:
    recorded = Recorded(caplog, every_result=True)
    assert recorded(a_result(A, Sample("things", 7, {name: "x"}))) == ["INFO things = 7"]
    assert f'"{name}": "x"' in JsonFormatter(READER).format(caplog.records[0])


def test_a_discarded_query_is_logged_again_and_has_no_recovery(recorded: Recorded) -> None:
    held = a_result(A, outcome="skipped", skipped=Skip("breaker", "failed 3 times in a row"))
    recorded(failed(DENIED), failed(DENIED, B))
    recorded(held)
    recorded.forget("a")
    assert recorded(GOOD_A) == []
    assert recorded(held) == ["WARNING query a is polled less often: failed 3 times in a row"]
    assert recorded(failed(DENIED)) == ["WARNING query a failed: permission denied for table t"]
    assert recorded(GOOD_B) == ["INFO query b recovered after 5m"], "other queries keep their records"
