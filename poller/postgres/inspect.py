"""Inspection of statements without running them: result columns and the planner's plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from poller.model.duration import format_duration
from poller.model.errors import OverBudgetError, PollError
from poller.model.query import NO_PARAMETERS, Parameters, QueryDefinition
from poller.model.rows import Column
from poller.postgres.inspect_relations import (
    Relation,
    Type,
    known_query,
    most_similar,
    names_query,
    read_known,
)
from poller.postgres.pipeline import Reply, Statement
from poller.postgres.plan import Plan, plan_query, read_plan
from poller.postgres.replica import CONFLICT_RETRY, TRIES_TOGETHER
from poller.postgres.snapshot import Snapshot, SnapshotOpener
from poller.postgres.volatile_functions import read_volatile, volatile_query

T = TypeVar("T")

_NAME = re.compile(r'(?:"[^"]*"|[\w$])+(?:\.(?:"[^"]*"|[\w$])+)?')
_SYNTAX = "42601"
_NO_RELATION = "42P01"


@dataclass(frozen=True, slots=True)
class Inspected:
    """The inspection of one statement: either its columns and plan, or the server's error."""

    columns: tuple[Column, ...] = ()
    plan: Plan | None = None
    """None if the statement has no plan (SHOW) or the server rejects it."""
    error: PollError | None = None

    @property
    def cost(self) -> float | None:
        """The planner's cost: 1 is one sequentially read page; None without a plan."""
        return self.plan.cost if self.plan else None


@dataclass(frozen=True, slots=True)
class CatalogFacts:
    """Catalogue facts about the types and relations that some statements use."""

    types: Mapping[int, Type]
    """By OID."""
    relations: Mapping[tuple[str, str], Relation]
    """By schema and name."""


class Inspection:
    """One read-only transaction for inspecting statements, with the same limits as a poll."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._pipeline = snapshot.pipeline
        self._statements = snapshot.statements
        self.facts = snapshot.facts
        self.lag = snapshot.lag

    def statements(
        self,
        sqls: Sequence[str],
        *,
        parameters: Sequence[Parameters] | None = None,
        settings: Sequence[Mapping[str, str]] | None = None,
    ) -> list[Inspected]:
        """Prepare and plan each of `sqls`, in one round trip; a rejected statement has its error.

        `parameters` and `settings` (of PostgreSQL) are those of each statement, by default none.
        Raises PollError if the connection is lost or the round trip takes too long. It has a limit because
        the planner runs STABLE and IMMUTABLE functions, and the snapshot must not live that long.
        """
        count = len(sqls)
        each = zip(sqls, parameters or [NO_PARAMETERS] * count, settings or [{}] * count, strict=True)
        statements = [sent for sql, values, own in each for sent in self._statements_for(sql, values, own)]
        try:
            replies = list(self._pipeline.send(statements, self._statements.budget)) if statements else []
        except OverBudgetError:
            longest = format_duration(self._statements.budget)
            message = f"the server took longer than {longest} to plan the statements"
            raise PollError("timeout", message, hint="check fewer queries at once") from None
        inspected = [_inspected(*replies[at : at + 2]) for at in range(0, len(replies), 2)]
        self._advise(sqls, inspected)
        return inspected

    def _advise(self, sqls: Sequence[str], inspected: Sequence[Inspected]) -> None:
        """Add a hint with a similar name to each "relation does not exist" error, in one more round trip."""
        missing = [
            (result.error, name_at(sql, result.error.position))
            for sql, result in zip(sqls, inspected, strict=True)
            if result.error and result.error.sqlstate == _NO_RELATION and result.error.position
        ]
        names = self.value(names_query()) if missing else b""
        for error, name in missing:
            if similar := most_similar(name, names):
                error.hint = f"did you mean {similar!r}?"

    def known(self, inspected: Sequence[Inspected]) -> CatalogFacts:
        """Return the types of all columns and the scanned relations; raises PollError."""
        oids = {column.oid for result in inspected for column in result.columns}
        names = {scan.relation for result in inspected if result.plan for scan in result.plan.scans}
        types, relations = read_known(self.value(known_query(oids, names)))
        return CatalogFacts(types, relations)

    def volatile(
        self, sqls: Sequence[str], settings: Sequence[Mapping[str, str]] | None = None
    ) -> list[list[str]]:
        """Return, for each of `sqls`, the volatile functions that it may call, except harmless ones.

        `settings` has the PostgreSQL settings of each, by default none: names are looked up along its
        search_path. Raises PollError.
        """
        by_path: dict[str | None, list[int]] = {}
        for number in range(len(sqls)):
            by_path.setdefault(settings[number].get("search_path") if settings else None, []).append(number)
        volatile: list[list[str]] = [[] for _ in sqls]
        for path, numbers in by_path.items():
            query = volatile_query([sqls[number] for number in numbers], self._pipeline.charset)
            functions = read_volatile(self.value(query, {} if path is None else {"search_path": path}))
            for at, number in enumerate(numbers):
                volatile[number] = functions.get(at, [])
        return volatile

    def value(self, sql: str, settings: Mapping[str, str] = MappingProxyType({})) -> bytes:
        """Return the single JSON value of one of the poller's own statements; raises PollError."""
        (reply,) = self._pipeline.send([self._statements.own_statement(sql, settings=settings)])
        return reply.value()

    def _statements_for(
        self, sql: str, parameters: Parameters, settings: Mapping[str, str]
    ) -> tuple[Statement, Statement]:
        statement = partial(self._statements.own_statement, parameters=parameters, settings=settings)
        return statement(sql)._replace(describe=True), statement(plan_query(sql, verbose=True))


def inspect(
    opener: SnapshotOpener,
    act: Callable[[Inspection], T],
    queries: Sequence[QueryDefinition] = (),
    *,
    privileges: bool = False,
) -> T:
    """Return the result of `act` in a transaction that begins as a poll's.

    `facts` holds what the `queries` require; with `privileges`, also the role's privileges beyond reading.
    After a recovery conflict, `act` is called again in a new transaction, at most TRIES_TOGETHER times in
    total. Raises PollError.
    """
    for attempt in range(TRIES_TOGETHER - 1):
        try:
            return _inspect_once(opener, act, queries, privileges=privileges)
        except PollError as error:
            if error.kind != "conflict" or opener.cancel_token.wait(CONFLICT_RETRY.pause(attempt)):
                raise
    return _inspect_once(opener, act, queries, privileges=privileges)


def _inspect_once(
    opener: SnapshotOpener,
    act: Callable[[Inspection], T],
    queries: Sequence[QueryDefinition],
    *,
    privileges: bool,
) -> T:
    snapshot = opener.open(queries, budget=opener.limits.longest_snapshot, privileges=privileges)
    try:
        result = act(Inspection(snapshot))
        list(snapshot.pipeline.send([snapshot.statements.rollback()]))
    except BaseException:
        opener.connection.close()
        raise
    return result


def _inspected(described: Reply, planned: Reply) -> Inspected:
    if described.error is not None or described.rows is None:
        return Inspected(error=described.error)
    columns = described.rows.columns
    if planned.rows is not None:
        return Inspected(columns, read_plan(planned.rows))
    # SHOW can be prepared, but has no plan.
    unplanned = planned.error is not None and planned.error.sqlstate == _SYNTAX
    return Inspected(columns, error=None if unplanned else planned.error)


def name_at(sql: str, position: int) -> str:
    """Return the name that begins at character `position` (from 1) of `sql`, without its quotes."""
    hit = _NAME.match(sql, position - 1)
    return hit[0].replace('"', "") if hit else ""
