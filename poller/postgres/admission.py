"""Admission of due queries, by the server's role, replay lag, load and facts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from poller.model.duration import format_duration
from poller.model.query import QueryDefinition
from poller.model.result import Skip
from poller.postgres.replay_lag import Lag
from poller.postgres.server_facts import ServerFacts, unmet

logger = logging.getLogger(__name__)

RequireStandby = Literal["warn", "true", "false"]
Hold = Callable[[QueryDefinition, float, int | None], Skip | None]
"""Says whether a query has to wait for its own doings: `Restraint.hold` is the one that does it for real."""


@dataclass(slots=True)
class Admission:
    """What an operator allows: on which kind of server, how far behind, how busy.

    `require_standby`: `true` sends nothing to a primary, `warn` says once that it is one, `false` is silent.
    `max_replay_lag` is in seconds; a lag that is not known counts as too much, because it may be any.
    """

    require_standby: RequireStandby = "warn"
    max_replay_lag: float | None = None
    hold: Hold = lambda _query, _now, _active: None
    count_active: bool = False
    """Whether `hold` wants to know how many backends are active."""
    strict: bool = False
    """Whether nothing is sent with a role that may do more than read."""
    excess_seconds: float = 60.0
    """After which a kept connection looks at that again: a GRANT takes effect in open sessions."""
    report_lag: bool = True
    """Whether the lag is looked at even if nothing limits it."""
    _warned: bool = False
    _blind: bool = False

    @property
    def wants_lag(self) -> bool:
        """Whether each tick looks at the lag."""
        return self.report_lag or self.max_replay_lag is not None

    @property
    def judges_server(self) -> bool:
        """Whether what is true of one server decides if any query is sent."""
        return self.strict or self.require_standby == "true" or self.max_replay_lag is not None

    def decide(
        self, queries: Sequence[QueryDefinition], facts: ServerFacts, lag: Lag | None, now: float
    ) -> dict[str, Skip]:
        """Why each query that is not sent is not sent, by its name; `now` is in seconds, monotonic."""
        if self.count_active and facts.active is None and not self._blind:
            self._blind = True
            logger.warning(
                "POLLER_MAX_ACTIVE_BACKENDS has no effect: the role cannot see other backends; "
                "GRANT pg_read_all_stats to it"
            )
        whole = self._whole(facts, lag)
        told: dict[str, Skip] = {}
        for query in queries:
            skip = whole or unmet(query.requires, facts) or self.hold(query, now, facts.active)
            if skip is not None:
                told[query.name] = skip
        return told

    def _whole(self, facts: ServerFacts, lag: Lag | None) -> Skip | None:
        """Why nothing at all is sent."""
        if self.strict and facts.excess:
            return Skip(
                "excess_privilege",
                f"POLLER_STRICT is set and the role may do more than read: {', '.join(facts.excess)}",
            )
        if facts.standby:
            self._warned = False
        elif self.require_standby == "true":
            return Skip("primary", "this server is a primary and POLLER_REQUIRE_STANDBY is true")
        elif self.require_standby == "warn" and not self._warned:
            self._warned = True
            logger.warning(
                "this server is a primary: point POLLER_DATABASE_URL at a standby, "
                "or set POLLER_REQUIRE_STANDBY=false"
            )
        if self.max_replay_lag is None or not facts.standby:
            return None
        limit = format_duration(self.max_replay_lag)
        if lag is None or lag.seconds is None:
            return Skip(
                "lag", f"replay lag is not known ({lag.why if lag else 'not told'}), the limit is {limit}"
            )
        if lag.seconds > self.max_replay_lag:
            return Skip(
                "lag", f"replay lag is {format_duration(round(lag.seconds, 1))}, the limit is {limit}"
            )
        return None
