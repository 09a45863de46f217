"""Check of the leader election for `doctor`: whether the lock can work, and which process holds it."""

from __future__ import annotations

import contextlib

from poller.config.settings import Settings
from poller.daemon.build import open_lock
from poller.model.diagnostics import Diagnostic
from poller.model.duration import format_duration
from poller.model.errors import ConfigError
from poller.model.leader import LockError

_RULE = "election"


def examine_election(settings: Settings) -> list[Diagnostic]:
    """Return the result of the check; empty without an election. The lock is not acquired."""
    try:
        lock = open_lock(settings)
        if lock is None:
            return []
        try:
            lock.check()
        finally:
            with contextlib.suppress(LockError):
                lock.release()
    except LockError as error:
        hint = error.hint or "check the server and the login of POLLER_LEADER_ELECTION"
        return [Diagnostic("error", _RULE, f"the lock does not answer: {error}", hint)]
    except ConfigError as error:
        return [Diagnostic("error", _RULE, "; ".join(map(str, error.problems)))]
    holder = f"{lock.holder} holds the lock" if lock.holder else "the lock is free"
    after = format_duration(settings.leader_ttl)
    return [
        Diagnostic(
            "ok", _RULE, f"{lock.name}: {holder}; a lock that is not confirmed becomes free after {after}"
        )
    ]
