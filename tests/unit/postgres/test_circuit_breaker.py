"""A query's record of polls decides how often it runs: not too often, but always again."""

from __future__ import annotations

import itertools

import pytest

from poller.model.errors import ErrorKind, PollError
from poller.model.query import QueryDefinition
from poller.model.result import EstimateReason, PollResult, Skip, SkipReason
from poller.postgres.circuit_breaker import FAILURES_BEFORE_A_BREAK, LONGEST_BREAK_SECONDS, CircuitBreaker
from tests.bed.definitions import a_query, a_result

FIVE_MINUTES = a_query("five", interval=300.0)
EVERY_SECOND = a_query("one", interval=1.0)


def ok(query: QueryDefinition, duration: float = 0.01, estimated: EstimateReason | None = None) -> PollResult:
    return a_result(query, duration=duration, estimated=estimated)


def failed(query: QueryDefinition, kind: ErrorKind = "rejected", duration: float = 0.01) -> PollResult:
    return a_result(query, outcome="failed", duration=duration, error=PollError(kind, "no"))


def reason(skip: Skip | None) -> SkipReason | None:
    return skip.reason if skip else None


def runs(
    breaker: CircuitBreaker, query: QueryDefinition, seconds: float, kind: ErrorKind = "rejected"
) -> list[float]:
    """Return the runs of a query that always fails, if it is due in every interval for `seconds`."""
    ran, now = [], 0.0
    while now < seconds:
        if breaker.check(query, now, None) is None:
            ran.append(now)
            breaker.record(failed(query, kind), now)
        now += query.interval
    return ran


def test_nothing_is_delayed_before_its_first_run() -> None:
    assert CircuitBreaker(0.01, 1).check(FIVE_MINUTES, 0.0, 1000) is None


def test_a_query_within_its_duty_cycle_is_polled_every_time() -> None:
    breaker = CircuitBreaker(0.1)
    breaker.record(ok(FIVE_MINUTES, 30.0), 30.0)
    assert breaker.check(FIVE_MINUTES, 300.0, None) is None
    assert breaker.check(FIVE_MINUTES, 30.1, None) is None, "even if it is due again immediately"


def test_a_query_beyond_its_duty_cycle_waits_until_it_is_within_it() -> None:
    breaker = CircuitBreaker(0.1)
    breaker.record(ok(EVERY_SECOND, 0.5), 10.5)  # it began at 10, so the next may begin at 15
    skip = breaker.check(EVERY_SECOND, 11.0, None)
    assert skip == Skip(
        "duty_cycle",
        "took 500ms and may take 10% of the time, polled at most once in 5s; "
        "make it cheaper or its interval longer",
    )
    assert breaker.check(EVERY_SECOND, 14.0, None) == skip, "the message must not contain an outdated time"
    assert reason(breaker.check(EVERY_SECOND, 14.9, None)) == "duty_cycle"
    assert breaker.check(EVERY_SECOND, 15.0, None) is None
    breaker.record(ok(EVERY_SECOND, 0.05), 15.05)
    assert breaker.check(EVERY_SECOND, 16.0, None) is None, "it is fast now"


def test_the_duration_of_a_failure_counts_as_well() -> None:
    breaker = CircuitBreaker(0.1)
    breaker.record(failed(FIVE_MINUTES, "timeout", 60.0), 60.0)
    assert reason(breaker.check(FIVE_MINUTES, 300.0, None)) == "duty_cycle"
    assert breaker.check(FIVE_MINUTES, 600.0, None) is None


def test_a_duty_cycle_of_100_percent_delays_nothing() -> None:
    breaker = CircuitBreaker(1.0)
    breaker.record(ok(EVERY_SECOND, 5.0), 5.0)
    assert breaker.check(EVERY_SECOND, 5.0, None) is None


def test_a_failing_query_is_run_less_and_less_often_but_at_least_once_an_hour() -> None:
    ran = runs(CircuitBreaker(1.0), FIVE_MINUTES, 6 * 3600)
    gaps = [int(later - earlier) for earlier, later in itertools.pairwise(ran)]
    assert gaps[: FAILURES_BEFORE_A_BREAK - 1] == [300] * (FAILURES_BEFORE_A_BREAK - 1)
    assert gaps[FAILURES_BEFORE_A_BREAK - 1 :] == [600, 1200, 2400, 3600, 3600, 3600, 3600]


def test_a_query_with_an_interval_above_an_hour_runs_in_every_interval() -> None:
    slow = a_query("slow", interval=7200.0)
    assert runs(CircuitBreaker(1.0), slow, 10 * 7200) == [n * 7200.0 for n in range(10)]


@pytest.mark.slow
def test_a_query_still_runs_after_a_day_of_failures() -> None:
    ran = runs(CircuitBreaker(1.0), EVERY_SECOND, 24 * 3600)
    assert ran[-1] > 23 * 3600
    assert max(later - earlier for earlier, later in itertools.pairwise(ran)) <= LONGEST_BREAK_SECONDS


def test_a_success_closes_the_breaker() -> None:
    breaker = CircuitBreaker(1.0)
    for number in range(FAILURES_BEFORE_A_BREAK):
        breaker.record(failed(FIVE_MINUTES), 300.0 * number)
    assert breaker.check(FIVE_MINUTES, 900.0, None) == Skip(
        "breaker", "failed 3 times in a row, tried at most once in 10m: no"
    )
    assert breaker.check(FIVE_MINUTES, 1200.0, None) is None, "the half-open probe"
    breaker.record(ok(FIVE_MINUTES), 1200.0)
    assert breaker.check(FIVE_MINUTES, 1200.0, None) is None


@pytest.mark.parametrize("kind", ["unavailable", "cancelled"])
def test_failures_of_the_server_do_not_open_the_breaker(kind: ErrorKind) -> None:
    assert len(runs(CircuitBreaker(1.0), FIVE_MINUTES, 3000.0, kind)) == 10


def test_a_query_that_was_never_run_does_not_count_as_failed() -> None:
    breaker = CircuitBreaker(0.1)
    conflict = PollError("rejected", "another query's conflict ended the session")
    for _ in range(FAILURES_BEFORE_A_BREAK + 2):
        breaker.record(a_result(FIVE_MINUTES, outcome="failed", duration=0.0, error=conflict), 0.0)
        unsent = PollError("rejected", "no")
        unsent.unsent = True
        breaker.record(a_result(FIVE_MINUTES, outcome="failed", error=unsent), 0.0)
    assert breaker.check(FIVE_MINUTES, 1.0, None) is None


def test_a_delayed_query_reports_its_last_failure() -> None:
    breaker = CircuitBreaker(0.1)
    for _ in range(FAILURES_BEFORE_A_BREAK):
        error = PollError("rejected", "relation x does not exist", sqlstate="42P01")
        breaker.record(a_result(FIVE_MINUTES, outcome="failed", error=error), 0.0)
    assert str(breaker.check(FIVE_MINUTES, 0.0, None)) == (
        "failed 3 times in a row, tried at most once in 10m: 42P01 relation x does not exist"
    )


def test_a_skip_neither_opens_nor_closes_the_breaker() -> None:
    breaker = CircuitBreaker(1.0)
    for number in range(FAILURES_BEFORE_A_BREAK):
        breaker.record(failed(FIVE_MINUTES), 300.0 * number)
    breaker.record(a_result(FIVE_MINUTES, outcome="skipped", skipped=Skip("lag", "far behind")), 900.0)
    assert reason(breaker.check(FIVE_MINUTES, 900.0, None)) == "breaker"


def test_estimates_after_timeouts_open_the_breaker_and_other_estimates_do_not() -> None:
    breaker = CircuitBreaker(1.0)
    for number in range(FAILURES_BEFORE_A_BREAK):
        breaker.record(ok(FIVE_MINUTES, 30.0, "timeout"), 300.0 * number)
    breaker.record(ok(FIVE_MINUTES, 0.01, "breaker"), 900.0)
    assert reason(breaker.check(FIVE_MINUTES, 900.0, None)) == "breaker"


def test_while_the_server_is_busy_only_expensive_queries_wait() -> None:
    breaker = CircuitBreaker(1.0, max_active_backends=20)
    breaker.record(ok(FIVE_MINUTES, 4.0), 4.0)
    breaker.record(ok(EVERY_SECOND, 0.9), 5.0)
    assert breaker.check(FIVE_MINUTES, 300.0, 37) == Skip(
        "busy", "37 backends are active, the limit is 20, and it took 4s last time"
    )
    assert breaker.check(FIVE_MINUTES, 300.0, 20) is None
    assert breaker.check(FIVE_MINUTES, 300.0, None) is None
    assert breaker.check(EVERY_SECOND, 300.0, 37) is None


def test_a_discarded_query_starts_with_an_empty_record_and_the_others_keep_theirs() -> None:
    breaker = CircuitBreaker(1.0)
    for number in range(FAILURES_BEFORE_A_BREAK):
        breaker.record(failed(FIVE_MINUTES), 300.0 * number)
        breaker.record(failed(EVERY_SECOND), 300.0 * number)
    breaker.reset({"one", "unknown"})
    assert breaker.check(EVERY_SECOND, 600.0, None) is None
    assert reason(breaker.check(FIVE_MINUTES, 600.0, None)) == "breaker"
