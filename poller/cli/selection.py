"""Targets that a command selects: declared ones, and the databases that servers list."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from poller.cli.database import admission_of
from poller.cli.targets import exclusion, for_each
from poller.config.settings import Settings
from poller.daemon.build import open_replica
from poller.daemon.shard_targets import ShardTargets
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError, PollError
from poller.model.patterns import matches_any, no_target
from poller.model.result import PollResult
from poller.model.target import Target, can_match
from poller.model.text import quote
from poller.polling.poll import to_result
from poller.postgres.cancellation import CancelToken
from poller.postgres.database_list import DatabaseList, list_query, read_list
from poller.postgres.replica import Replica


class Discovery(NamedTuple):
    """One look at the list of databases of a server."""

    target: Target
    result: PollResult
    """Result of the query for the list."""
    databases: DatabaseList | None = None
    """None if the list cannot be read."""

    @property
    def reason(self) -> str:
        """Why the list cannot be read."""
        return f"the list of databases cannot be read: {self.result.error or self.result.skipped}"

    @property
    def unreachable(self) -> PollError | None:
        """The error if nothing could be sent to the server."""
        error = self.result.error
        return error if error is not None and error.unsent else None


class Selection(NamedTuple):
    """The selected targets, and the lists of databases that were read to find them."""

    targets: Sequence[Target]
    """In the order of the targets file, the databases of a server after its target."""
    discoveries: Mapping[str, Discovery]
    """By name of the server's target."""

    def failed(self, name: str) -> Discovery | None:
        """Return the failed look at the list of the target `name`, if there is one."""
        discovery = self.discoveries.get(name)
        return None if discovery is None or discovery.databases is not None else discovery


def select_targets(
    settings: Settings,
    patterns: Sequence[str] | None,
    targets: Sequence[Target],
    read: Callable[[Target], Discovery],
    workers: int,
) -> Selection:
    """Return the targets, also those of discovered databases, that match any of `patterns`.

    Without patterns, return those of the shard of POLLER_SHARD, or all.

    `read` connects to a server and reads its list, on at most `workers` servers at the same time. It is
    called only for servers of which `patterns` can match a database. A server whose list cannot be read is
    among the targets, so that the caller reports its failure. Raises ConfigError for patterns that match no
    target.
    """
    if not patterns:
        targets = ShardTargets(settings.own_shard).select(targets)
    servers = [
        target
        for target in targets
        if target.databases is not None
        and (not patterns or any(can_match(pattern, f"{target.name}/") for pattern in patterns))
    ]
    read_lists = for_each(servers, workers, read, _skip, _unavailable) if servers else []
    discoveries = {discovery.target.name: discovery for discovery in read_lists}
    everything = [*_with_databases(targets, discoveries)]
    if not patterns:
        return Selection(everything, discoveries)
    names = [target.name for target in everything]
    selected: set[str] = set()
    problems = []
    for pattern in patterns:
        matching = {name for name in names if matches_any(name, [pattern])}
        unread = {
            name
            for name, discovery in discoveries.items()
            if discovery.databases is None and can_match(pattern, f"{name}/")
        }
        selected |= matching | unread
        if not matching and not unread:
            server, slash, _ = pattern.partition("/")
            databases = [name for name in names if slash and name.startswith(f"{server}/")]
            message = _reason(pattern, discoveries.values()) or no_target(pattern, databases or names)
            problems.append(invalid("--target", message))
    if problems:
        raise ConfigError(problems)
    return Selection([target for target in everything if target.name in selected], discoveries)


def reader(settings: Settings, cancel_token: CancelToken) -> Callable[[Target], Discovery]:
    """Return the function that reads a server's list under the conditions of a poll."""

    def read(target: Target) -> Discovery:
        # The list has no history that could postpone it while the server is busy.
        admission = admission_of(replace(target, max_active_backends=None))
        replica = open_replica(settings, target, admission, cancel_token=cancel_token)
        try:
            return discover(target, replica)
        finally:
            replica.close()

    return read


def discover(target: Target, replica: Replica) -> Discovery:
    """Read the list of databases of a target that has `databases`. Raises nothing."""
    assert target.databases is not None  # noqa: S101 # by the caller
    (answer,) = replica.fetch([list_query(target.databases.refresh)])
    databases = None if answer.rows is None else read_list(answer.rows, target.databases)
    return Discovery(target, to_result(answer), databases)


def _skip(target: Target, error: PollError) -> Discovery:
    assert target.databases is not None  # noqa: S101 # by the caller
    query = list_query(target.databases.refresh)
    return Discovery(target, PollResult(query, time.time(), 0.0, "failed", error=error))


def _unavailable(discovery: Discovery) -> PollError | None:
    error = discovery.unreachable
    return error if error is not None and error.server_wide else None


def _with_databases(targets: Sequence[Target], discoveries: Mapping[str, Discovery]) -> Iterable[Target]:
    for target in targets:
        yield target
        discovery = discoveries.get(target.name)
        if discovery is not None and discovery.databases is not None:
            for name, oid in discovery.databases.polled.items():
                yield target.of_database(name, oid)


def _reason(pattern: str, discoveries: Iterable[Discovery]) -> str | None:
    """Return why a database that `pattern` matches is not polled; None if it matches none."""
    for target, _, databases in discoveries:
        if databases is None or target.databases is None:
            continue
        reasons = (
            (databases.excluded, exclusion(target)),
            (
                databases.over_limit,
                f"is above the limit of {target.databases.limit}; raise `databases.limit`, or exclude others",
            ),
            (databases.no_privilege, "refuses the role; grant it CONNECT on the database"),
        )
        for names, reason in reasons:
            name = next((name for name in names if matches_any(f"{target.name}/{name}", [pattern])), None)
            if name is not None:
                full = f"{target.name}/{name}"
                subject = "it" if full == pattern else quote(full)
                return f"{quote(pattern)} matches no target: {subject} {reason}"
    return None
