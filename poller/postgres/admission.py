"""Admission of due queries, by the server's role, replay lag, load and facts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from poller.model.duration import format_duration
from poller.model.query import QueryDefinition
from poller.model.result import Skip
from poller.model.target import RequireStandby, Target
from poller.postgres.replay_lag import Lag
from poller.postgres.server_facts import ServerFacts, unmet_requirement

logger = logging.getLogger(__name__)

AdmissionCheck = Callable[[QueryDefinition, float, int | None], Skip | None]
"""Return why a query must wait because of its own history, or None (see `CircuitBreaker.check`)."""
HIDDEN_BACKENDS = "POLLER_MAX_ACTIVE_BACKENDS has no effect: the role cannot see other backends"
"""Message if the server does not count the active backends of other clients."""


def _never_wait(_query: QueryDefinition, _now: float, _active: int | None) -> None:
    return None


@dataclass(slots=True)
class Admission:
    """Conditions that the operator sets: the server's role, its replay lag and its load.

    `require_standby`: `true` sends nothing to a primary, `warn` logs once that the server is a primary,
    `false` logs nothing. `max_replay_lag` is in seconds; an unknown lag counts as above the limit.
    """

    require_standby: RequireStandby = "warn"
    max_replay_lag: float | None = None
    check: AdmissionCheck = _never_wait
    count_active: bool = False
    """Whether `check` needs the number of active backends."""
    strict: bool = False
    """Whether no query is sent if the role has more than read privileges."""
    excess_seconds: float = 60.0
    """Age after which an open connection reads these privileges again: a GRANT applies to open sessions."""
    report_lag: bool = True
    """Whether the lag is read even if no limit is set."""
    warned: set[str] = field(default_factory=set)
    """Servers that were logged as a primary; all targets of a process share it."""
    wording: Callable[[str], str] = str
    """Function that replaces the variables in a message by the keys of the target, if there are targets."""
    _blind: bool = False

    @classmethod
    def of(
        cls,
        target: Target,
        check: AdmissionCheck = _never_wait,
        *,
        report_lag: bool = True,
        warned: set[str] | None = None,
    ) -> Self:
        """Return the conditions that the settings of `target` describe."""
        return cls(
            target.require_standby,
            target.max_replay_lag,
            check,
            count_active=target.max_active_backends is not None,
            strict=target.strict,
            report_lag=report_lag,
            warned=set() if warned is None else warned,
            wording=target.with_keys,
        )

    @classmethod
    def unconditional(cls, target: Target) -> Self:
        """Return conditions that every server meets, for a command that only inspects `target`."""
        return cls("false", report_lag=False, wording=target.with_keys)

    @property
    def wants_lag(self) -> bool:
        """Whether each tick reads the lag."""
        return self.report_lag or self.max_replay_lag is not None

    @property
    def judges_server(self) -> bool:
        """Whether a property of the server decides if any query is sent."""
        return self.strict or self.require_standby == "true" or self.max_replay_lag is not None

    def decide(
        self, queries: Sequence[QueryDefinition], facts: ServerFacts, lag: Lag | None, now: float
    ) -> dict[str, Skip]:
        """Return the reason for each query that is not sent, by query name; `now` is in monotonic seconds."""
        if self.count_active and facts.active is None and not self._blind:
            self._blind = True
            logger.warning(self.wording(f"{HIDDEN_BACKENDS}; GRANT pg_read_all_stats to it"))
        whole = self._whole(facts, lag)
        skips: dict[str, Skip] = {}
        for query in queries:
            skip = whole or unmet_requirement(query.requires, facts) or self.check(query, now, facts.active)
            if skip is not None:
                skips[query.name] = skip
        return skips

    def _whole(self, facts: ServerFacts, lag: Lag | None) -> Skip | None:
        """Return why no query at all is sent, or None."""
        if self.strict and facts.excess:
            strict = self.wording("POLLER_STRICT")
            return Skip(
                "excess_privilege",
                f"{strict} is set and the role may do more than read: {', '.join(facts.excess)}",
            )
        address = facts.server.rpartition(" ")[0]  # without the time of its start
        if facts.standby:
            self.warned.discard(address)
        elif self.require_standby == "true":
            return Skip(
                "primary", self.wording("this server is a primary and POLLER_REQUIRE_STANDBY is true")
            )
        elif self.require_standby == "warn" and address not in self.warned:
            self.warned.add(address)
            logger.warning(
                self.wording(
                    "this server is a primary: point POLLER_DATABASE_URL at a standby, "
                    "or set POLLER_REQUIRE_STANDBY=false"
                )
            )
        if self.max_replay_lag is None or not facts.standby:
            return None
        limit = format_duration(self.max_replay_lag)
        if lag is None or lag.seconds is None:
            return Skip(
                "lag", f"replay lag is not known ({lag.why if lag else 'not reported'}), the limit is {limit}"
            )
        if lag.seconds > self.max_replay_lag:
            return Skip(
                "lag", f"replay lag is {format_duration(round(lag.seconds, 1))}, the limit is {limit}"
            )
        return None
