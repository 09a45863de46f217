"""The operator's settings are checked before anything is sent."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import pytest

from poller.config.load_settings import load
from poller.model.query import QueryDefinition
from poller.model.result import Skip, SkipReason
from poller.model.target import RequireStandby
from poller.postgres.admission import Admission
from poller.postgres.replay_lag import Lag
from poller.postgres.server_facts import ServerFacts
from tests.bed.definitions import a_query

STANDBY = ServerFacts(True, 180000, {"t": frozenset({"a"})}, frozenset())
PRIMARY = ServerFacts(False, 180000, {"t": frozenset({"a"})}, frozenset())
FINE = Lag(0.0, 0.1, True, 1, "everything received is replayed")
QUERIES = [a_query("plain"), a_query("gated", requires={"columns": {"nowhere": []}})]


def reasons(decisions: Mapping[str, Skip]) -> dict[str, SkipReason]:
    return {name: skip.reason for name, skip in decisions.items()}


def test_allowed_queries_are_sent_unless_the_server_lacks_a_requirement() -> None:
    assert reasons(Admission().decide(QUERIES, STANDBY, FINE, 0.0)) == {"gated": "relation"}


@pytest.mark.parametrize(
    ("setting", "skipped", "warnings"), [("warn", False, 1), ("true", True, 0), ("false", False, 0)]
)
def test_a_primary_causes_a_warning_or_is_refused_or_accepted(
    setting: RequireStandby, skipped: bool, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    admission = Admission(setting)
    with caplog.at_level(logging.INFO):
        decisions = [admission.decide(QUERIES[:1], PRIMARY, FINE, 0.0) for _ in range(3)]
    assert (
        decisions
        == [
            {"plain": Skip("primary", "this server is a primary and POLLER_REQUIRE_STANDBY is true")}
            if skipped
            else {}
        ]
        * 3
    )
    assert len(caplog.records) == warnings


def test_a_primary_causes_another_warning_after_it_was_a_standby(
    caplog: pytest.LogCaptureFixture,
) -> None:
    admission = Admission("warn")
    for facts in (PRIMARY, STANDBY, PRIMARY, PRIMARY):
        admission.decide(QUERIES, facts, FINE, 0.0)
    assert [record.getMessage() for record in caplog.records] == [
        (
            "this server is a primary: point POLLER_DATABASE_URL at a standby, "
            "or set POLLER_REQUIRE_STANDBY=false"
        )
    ] * 2


@pytest.mark.parametrize(
    ("lag", "detail"),
    [
        (Lag(60.0, 60.0, True, 1, "x"), None),
        (Lag(60.1, 61.0, True, 1, "x"), "replay lag is 1m0.1s, the limit is 1m"),
        (
            Lag(None, None, True, 1, "no WAL receiver runs"),
            "replay lag is not known (no WAL receiver runs), the limit is 1m",
        ),
        (None, "replay lag is not known (not reported), the limit is 1m"),
    ],
)  # fmt: skip
def test_a_lag_above_the_limit_or_unknown_skips_every_query(lag: Lag | None, detail: str | None) -> None:
    decisions = Admission(max_replay_lag=60.0).decide(QUERIES, STANDBY, lag, 0.0)
    if detail is None:
        assert reasons(decisions) == {"gated": "relation"}
    else:
        assert {name: skip.reason for name, skip in decisions.items()} == {"plain": "lag", "gated": "lag"}
        assert str(decisions["plain"]) == detail


def test_without_a_limit_any_lag_is_accepted_and_a_primary_has_none() -> None:
    lagging = Lag(1e6, 1e6, True, 1, "x")
    assert Admission().decide(QUERIES[:1], STANDBY, lagging, 0.0) == {}
    unknown = Lag(None, None, False, 1, "x")
    assert Admission("false", max_replay_lag=1.0).decide(QUERIES[:1], PRIMARY, unknown, 0.0) == {}


def test_strict_refuses_a_role_with_more_than_read_privileges() -> None:
    mighty = ServerFacts(True, 180000, {}, frozenset(), excess=("superuser",))
    assert Admission(strict=True).decide(QUERIES[:1], mighty, FINE, 0.0) == {
        "plain": Skip(
            "excess_privilege", "POLLER_STRICT is set and the role may do more than read: superuser"
        )
    }
    assert Admission(strict=True).decide(QUERIES[:1], STANDBY, FINE, 0.0) == {}
    assert Admission().decide(QUERIES[:1], mighty, FINE, 0.0) == {}


def test_the_conditions_of_a_target_are_those_of_its_settings_and_name_its_keys() -> None:
    target = replace(
        load({"POLLER_DATABASE_URL": "host=x"}).only_target(), name="eu-1", strict=True, max_active_backends=5
    )
    mighty = ServerFacts(True, 180000, {}, frozenset(), excess=("superuser",))
    admission = Admission.of(target)
    assert admission.count_active
    assert admission.decide(QUERIES[:1], mighty, FINE, 0.0)["plain"].detail == (
        "`strict` of target eu-1 is set and the role may do more than read: superuser"
    )
    assert Admission.unconditional(target).decide(QUERIES[:1], mighty, FINE, 0.0) == {}


def test_a_query_is_delayed_only_if_nothing_else_skips_it() -> None:
    def check(query: QueryDefinition, now: float, active: int | None) -> Skip | None:
        return Skip("busy", f"{query.name} {now} {active}")

    facts = ServerFacts(True, 180000, {}, frozenset(), active=7)
    decisions = Admission(check=check).decide(QUERIES, facts, FINE, 5.0)
    assert decisions["plain"] == Skip("busy", "plain 5.0 7")
    assert decisions["gated"].reason == "relation"


def test_a_limit_without_a_count_of_backends_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    admission = Admission("false", count_active=True)
    for _ in range(3):
        admission.decide(QUERIES[:1], STANDBY, FINE, 0.0)
    assert [record.getMessage() for record in caplog.records] == [
        (
            "POLLER_MAX_ACTIVE_BACKENDS has no effect: the role cannot see other backends; "
            "GRANT pg_read_all_stats to it"
        )
    ]
