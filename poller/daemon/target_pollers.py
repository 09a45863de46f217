"""Pollers of all targets, replaced one by one when the configuration or a list of databases changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from poller.config.file_watcher import Fingerprint, fingerprint
from poller.config.queries.diff import Difference, compare, listed
from poller.daemon.discovery_poller import DiscoveryPoller
from poller.daemon.scheduler import PollScheduler
from poller.daemon.server_databases import MissingDatabase, ServerDatabases
from poller.daemon.shard_targets import ShardTargets
from poller.daemon.target_factory import TargetFactory
from poller.daemon.target_poller import TargetPoller
from poller.model.catalog import Configuration
from poller.model.query import QueryDefinition
from poller.model.result import GoodResult
from poller.model.target import Target
from poller.postgres.database_list import DatabaseList

logger = logging.getLogger(__name__)

_MOST_NAMES = 10
"""Maximum number of databases that one record names."""


class TargetChanges(NamedTuple):
    """Names of the targets that a new configuration adds, removes and changes."""

    added: list[str]
    removed: list[str]
    changed: list[str]

    def lines(self) -> Iterator[str]:
        """Return the changes in a few lines, of which the first is a summary; no line without changes."""
        if any(self):
            yield "targets: " + ", ".join(f"{len(names)} {kind}" for kind, names in self._asdict().items())
        for kind, names in self._asdict().items():
            if names:
                yield f"targets {kind}: {listed(names)}"


class TargetPollers:
    """The pollers of all targets, by name; iteration yields those that poll."""

    def __init__(
        self, factory: TargetFactory, scheduler: PollScheduler, own: ShardTargets | None = None
    ) -> None:
        """Poll nothing before `apply`; `own` selects the targets of this process, by default all."""
        self._factory = factory
        self._scheduler = scheduler
        self._own = own or ShardTargets(None)
        self._lock = threading.Lock()
        """Held while pollers change: by a reload or by a new list of databases."""
        self._selecting = threading.Lock()
        """Held while the connection strings are read and decide which targets are polled."""
        self._pollers: dict[str, TargetPoller] = {}
        self._servers: dict[str, ServerDatabases] = {}
        """By target; without those whose list has not been read yet."""
        self._queries: Sequence[QueryDefinition] = ()
        self._configured: Sequence[Target] = ()
        """The targets of all shards, without the databases of servers."""
        self._targets: Sequence[Target] = ()
        """Those of this process."""

    def __iter__(self) -> Iterator[TargetPoller]:
        return iter(list(self._pollers.values()))

    def __len__(self) -> int:
        return len(self._pollers)

    @property
    def only(self) -> TargetPoller | None:
        """The poller of the only database without POLLER_TARGETS; otherwise None."""
        return self._pollers.get("")

    def apply(self, configuration: Configuration, difference: Difference | None = None) -> TargetChanges:
        """Add, remove and change pollers; those whose target and queries are unchanged are not touched.

        `difference` is that of the queries to those of the last call. The databases of a server follow its
        target. Raises ConfigError if the only database of a poller without POLLER_TARGETS has an invalid
        name.
        """
        with self._selecting:
            targets = self._own.select(configuration.targets)
            with self._lock:
                self._queries = configuration.catalog.queries
                self._configured = configuration.targets
                if difference is None:
                    difference = compare([], self._queries)
                return self._apply(targets, difference)

    def apply_servers(self) -> None:
        """Poll the targets whose servers belong to this shard now, because a `url_file` has changed."""
        with self._selecting:
            targets = self._own.select(self._configured)
            with self._lock:
                if targets != self._targets:
                    changes = self._apply(targets, compare(self._queries, self._queries))
                    _log_moves(changes.added, changes.removed)

    def apply_list(self, poller: DiscoveryPoller, databases: DatabaseList) -> int:
        """Poll only the selected databases of a list; return the number of missing ones.

        A database that is not in the list is missing: it is not polled, and its data is deleted some time
        later unless it returns. The same applies to one to which the role may not connect any more, which
        does not count as missing. The data of a database with another OID is deleted, because it is another
        database.
        """
        polled = databases.polled
        with self._lock:
            target = poller.target
            if self._pollers.get(target.name) is not poller or target.databases is None:
                return 0  # a reload has removed or changed the target meanwhile
            server = self._servers.get(target.name)
            if server is None:  # delete the values of databases that left before the start
                names = {target.of_database(name).name for name in polled}
                prefix = f"{target.name}/"
                self._factory.retain(lambda name: name in names or not name.startswith(prefix))
                server = self._servers[target.name] = ServerDatabases({})
            pollers = self._pollers.copy()
            gone, new = server.gone(polled), server.new(polled)
            now = time.monotonic()
            for name in gone:
                left = pollers.pop(target.of_database(name).name)
                self._scheduler.remove(left.name)
                self._factory.withdraw(left)
                server.missing[name] = MissingDatabase(left, server.polled[name], now)
            for name in new:
                of_database = target.of_database(name, polled[name])
                returned = server.missing.pop(name, None)
                if returned is not None and returned.oid == polled[name]:
                    pollers[of_database.name] = self._replace(returned.poller, of_database)
                    continue
                old = returned.poller if returned else pollers.get(of_database.name)
                if old is not None:
                    self._delete(old)
                pollers[of_database.name] = self._open(of_database)
            server.polled = dict(polled)
            self._pollers = pollers
            for missing in server.take_expired(target.databases, now):
                self._delete(missing.poller)
            no_privilege = set(databases.no_privilege)
            if gone or new:
                refused = [name for name in gone if name in no_privilege]
                _log_changes(len(polled), new, [name for name in gone if name not in no_privilege], refused)
            return len(server.missing.keys() - no_privilege)

    def url_files(self) -> Fingerprint:
        """Return the status of all files with connection strings, also of the targets of other shards."""
        return fingerprint([target.url_file for target in self._configured if target.url_file is not None])

    def configured(self) -> int:
        """Return the number of targets of this process, without the databases of servers."""
        return len(self._targets)

    def _apply(self, targets: Sequence[Target], difference: Difference) -> TargetChanges:
        before = self._pollers.copy()
        after: dict[str, TargetPoller] = {}
        changes = TargetChanges([], [], [])
        self._targets = targets
        self._follow(targets, difference)
        try:
            for target in self._with_databases(targets):
                queries = self._queries_of(target)
                old = before.pop(target.name, None)
                if old is None:
                    after[target.name] = self._open(target)
                    changes.added.append(target.name)
                elif old.target == target:
                    after[target.name] = old
                    self._swap(old, queries, difference)
                else:
                    after[target.name] = self._replace(old, target)
                    changes.changed.append(target.name)
        except Exception:
            self._pollers = {**self._pollers, **after}  # the next call closes what was opened
            raise
        if not self._pollers:  # at the start, delete the values of targets that were removed before
            servers = {target.name for target in targets if target.databases is not None}
            self._factory.retain(lambda name: name in after or name.partition("/")[0] in servers)
        self._pollers = after  # a new object, because other threads iterate over the old one
        for name, poller in before.items():
            self._scheduler.remove(name)
            self._delete(poller)
            changes.removed.append(name)
        return changes

    def _follow(self, targets: Sequence[Target], difference: Difference) -> None:
        """Forget the databases that the new targets exclude, and those of removed and other servers."""
        declared = {target.name: target for target in targets}
        before, self._servers = self._servers, {}
        for name, server in before.items():
            old, new = self._pollers[name].target, declared.get(name)
            if new == old:
                self._servers[name] = server
                for database, missing in server.missing.items():
                    queries = self._queries_of(old.of_database(database))
                    self._swap(missing.poller, queries, difference, scheduled=False)
                continue
            for missing in server.missing.values():
                self._delete(missing.poller)
            if new is not None and new.databases is not None and _is_same_server(old, new):
                names = new.databases.select(server.polled).names
                self._servers[name] = ServerDatabases(
                    {database: server.polled[database] for database in names}
                )

    def _with_databases(self, targets: Sequence[Target]) -> Iterator[Target]:
        for target in targets:
            yield target
            if (server := self._servers.get(target.name)) is not None:
                for database, oid in server.polled.items():
                    yield target.of_database(database, oid)

    def _queries_of(self, target: Target) -> list[QueryDefinition]:
        return [query for query in self._queries if target.runs(query)]

    def _open(self, target: Target, restored: Sequence[GoodResult] | None = None) -> TargetPoller:
        poller = self._factory.open(target, self._queries_of(target), restored, self)
        try:
            self._scheduler.replace(poller, poller.ticks, poller.fresh)
        except Exception:  # for example out of threads
            self._scheduler.remove(target.name)
            self._factory.close(poller)
            raise
        return poller

    def _swap(
        self,
        poller: TargetPoller,
        queries: Sequence[QueryDefinition],
        difference: Difference,
        *,
        scheduled: bool = True,
    ) -> None:
        before, after = ({query.name for query in of} for of in (poller.queries, queries))
        dropped = (before - after) | (difference.dropped & before)
        scheduled_queries = {query.name for query in queries if query.schedule is not None}
        fresh = ((after - before) | (difference.fresh & after)) - scheduled_queries
        if tuple(queries) != poller.queries:
            poller.swap(queries, dropped)
            if scheduled:
                self._scheduler.replace(poller, poller.ticks, fresh)

    def _replace(self, old: TargetPoller, target: Target) -> TargetPoller:
        """Return a new poller; it starts with the values of the old one if they are of the same database."""
        same = _is_same_server(old.target, target) and old.target.attributes == target.attributes
        names = {query.name: query for query in self._queries_of(target)}
        good = [
            item._replace(result=item.result._replace(query=query))
            for item in (old.cycle.store.good(time.monotonic()) if same else ())
            if (query := names.get(item.result.query.name)) and query.digest == item.result.query.digest
        ]
        self._factory.close(old)
        return self._open(target, good)

    def _delete(self, poller: TargetPoller) -> None:
        """Delete all data of a target that is not scheduled any more."""
        poller.cycle.store.detach()  # a tick in progress stores nothing
        self._factory.close(poller)
        self._factory.forget(poller.name)


def _is_same_server(old: Target, new: Target) -> bool:
    return (old.url, old.url_file) == (new.url, new.url_file)


def _log_changes(polled: int, new: Sequence[str], gone: Sequence[str], refused: Sequence[str]) -> None:
    """Log the databases that are polled from now on, those that are missing, and those that are refused."""
    message = "the list of databases has changed: %d polled, %d new, %d missing%s"
    more = f", {len(refused)} to which the role may no longer connect" if refused else ""
    extra = _names(new=new, missing=gone, no_privilege=refused)
    logger.info(message, polled, len(new), len(gone), more, extra=extra)


def _log_moves(added: Sequence[str], removed: Sequence[str]) -> None:
    """Log the targets that have moved to this shard, or to another one, because their server changed."""
    message = "connection strings name other servers: %d targets added to this shard, %d removed"
    logger.info(message, len(added), len(removed), extra=_names(added=added, removed=removed))


def _names(**fields: Sequence[str]) -> dict[str, str]:
    """Return the first names of each field that is not empty, as text."""
    return {
        key: ", ".join(names[:_MOST_NAMES]) + (", ..." if len(names) > _MOST_NAMES else "")
        for key, names in fields.items()
        if names
    }
