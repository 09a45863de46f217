"""Checks of every query against a server: validity, result columns and cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from poller.config.queries.locate import Origin
from poller.config.queries.sql_ast import compared_columns, counts_a_whole_relation, identifier
from poller.model.diagnostics import Diagnostic, Level, Rule
from poller.model.errors import Place, PollError
from poller.model.path import Key
from poller.model.printable import one_line
from poller.model.query import MetricDefinition, QueryDefinition
from poller.model.rows import Column, Rows
from poller.model.text import as_yaml, did_you_mean, quote
from poller.polling.mapping import to_samples
from poller.postgres.inspect import CatalogFacts, Inspected, Inspection, Scan
from poller.postgres.inspect_relations import Type
from poller.postgres.server_facts import unmet
from poller.postgres.sql_text import literal
from poller.postgres.volatile_functions import ADVICE
from poller.tools.check.cardinality import many_values
from poller.tools.check.rejection import refusal
from poller.tools.check.result import CheckedQuery

LARGE_ROWS = 100_000
"""Rows from which on a table counts as large."""

_PRIVILEGE = "42501"
_FEW_ROWS = 0.1
"""Share of a table below which an index is worth its keep."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a query is worth a word."""

    max_cost: float = math.inf
    """The planner's cost above which a query is an error."""
    large_rows: int = LARGE_ROWS


def judge(
    queries: Sequence[QueryDefinition],
    origins: Mapping[str, Origin],
    inspection: Inspection,
    limits: Limits,
) -> list[CheckedQuery]:
    """Have every query prepared and planned, and judge it; nothing is run.

    What its requirements keep from this server is not shown to it. Raises PollError where the connection is
    lost.
    """
    skips = {query.name: unmet(query.requires, inspection.facts) for query in queries}
    asked = [query for query in queries if skips[query.name] is None]
    estimated = [query for query in asked if query.estimate]
    looked = inspection.statements([query.sql for query in asked])
    estimates = inspection.statements([query.estimate.sql for query in estimated if query.estimate])
    known = inspection.known([*looked, *estimates])
    sqls = [query.sql for query in asked] + [query.estimate.sql for query in estimated if query.estimate]
    volatile = dict(zip(sqls, inspection.volatile(sqls), strict=True))
    own = dict(zip((query.name for query in asked), looked, strict=True))
    cheap = dict(zip((query.name for query in estimated), estimates, strict=True))
    judged: list[CheckedQuery] = []
    for query in queries:
        origin, skip = origins[query.name], skips[query.name]
        if skip is not None:
            what = f"is not sent to this server: {skip.detail}"
            # A missing table is foreseen; a missing right is for somebody to grant.
            level: Level = "warning" if skip.reason == "privilege" else "note"
            gate = Diagnostic("requires", level, what, origin.place("requires"), query=query.name)
            judged.append(CheckedQuery(query.name, origin.place("name"), "not_sent", complaints=(gate,)))
        else:
            case = _Case(query, origin, own[query.name], cheap.get(query.name), known, volatile, limits)
            judged.append(case.judged())
    return judged


@dataclass(frozen=True, slots=True)
class _Case:
    """One query before its judge."""

    query: QueryDefinition
    origin: Origin
    own: Inspected
    cheap: Inspected | None
    known: CatalogFacts
    volatile: Mapping[str, Sequence[str]]
    """Functions by statement, see `Inspection.volatile`."""
    limits: Limits

    def judged(self) -> CheckedQuery:
        complaints = [*self._statement(("sql",), self.query.sql, self.own)]
        if self.cheap is not None and self.query.estimate is not None:
            complaints += self._statement(("estimate", "sql"), self.query.estimate.sql, self.cheap)
            complaints += self._estimate(self.cheap)
        complaints += [*self._cost(), *self._scans()]
        complaints.sort(key=lambda one: one.place.line or 0 if one.place else 0)
        refused = any(one.level == "error" and one.rule != "max-cost" for one in complaints)
        return CheckedQuery(
            self.query.name,
            self.origin.place("name"),
            "refused" if refused else "ok",
            self.own.cost,
            {column.name: self._type(column).name for column in self.own.columns},
            self._estimate_answers,
            tuple(complaints),
        )

    @property
    def _estimate_answers(self) -> bool:
        estimate = self.query.estimate
        return estimate is not None and (self.own.cost or 0.0) > estimate.above_cost

    def _say(self, rule: Rule, level: Level, what: str, *path: Key, place: Place | None = None) -> Diagnostic:
        return Diagnostic(
            rule, level, one_line(what), place or self.origin.place(*path), query=self.query.name
        )

    def _statement(self, path: tuple[Key, ...], sql: str, inspected: Inspected) -> Iterator[Diagnostic]:
        """What is wrong with one statement and its columns."""
        if inspected.error is not None:
            error = inspected.error
            rule: Rule = "privilege" if error.sqlstate == _PRIVILEGE else "rejected"
            place = self.origin.in_sql(path, sql, error.position)
            yield self._say(rule, "error", refusal(error, sql), place=place)
            return
        for name in self.volatile[sql]:
            what = f"calls {name}, which is declared VOLATILE: it may write in spite of READ ONLY; {ADVICE}"
            yield self._say("volatile-function", "warning", f"{what}{_of(path)}", *path)
        names = [column.name for column in inspected.columns]
        for number, metric in enumerate(self.query.metrics):
            at: tuple[Key, ...] = ("metrics", number)
            if problem := self._value_problem(metric, inspected):
                meant = did_you_mean(metric.value_column, names) if metric.value_column not in names else ""
                rule = "column" if names.count(metric.value_column) != 1 else "not-numeric"
                yield self._say(rule, "error", f"{problem}{meant}{_of(path)}", *at, "value_column")
            for name in metric.attribute_columns:
                for rule, level, what in self._attribute(metric, name, inspected):
                    key = "attribute_values" if rule == "attribute-values" else "attribute_columns"
                    yield self._say(rule, level, f"{what}{_of(path)}", *at, key)
        yield from self._unused(path, inspected)

    def _unused(self, path: tuple[Key, ...], inspected: Inspected) -> Iterator[Diagnostic]:
        """Columns that were forgotten, which is why rows are duplicates of each other."""
        wanted = {name for one in self.query.metrics for name in (one.value_column, *one.attribute_columns)}
        if not wanted <= {column.name for column in inspected.columns}:
            return  # one of those that are left may be meant by what is missing
        for column in inspected.columns:
            if column.name not in wanted and self._type(column).name != "void":
                what = f"column {column.name!r} feeds no metric: rows that differ only by it are"
                advice = "add it to attribute_columns, or leave it out of the SELECT"
                told = f"{what} refused as duplicates; {advice}{_of(path)}"
                yield self._say("unused-column", "warning", told, *path)

    def _value_problem(self, metric: MetricDefinition, inspected: Inspected) -> str | None:
        """In the very words of a poll that would fail."""
        alone = dataclasses.replace(metric, attribute_columns=(), attribute_values={})
        try:
            mapped = to_samples(
                dataclasses.replace(self.query, metrics=(alone,)), Rows(inspected.columns, [])
            )
        except PollError as error:
            return error.message
        return mapped.advice

    def _attribute(
        self, metric: MetricDefinition, name: str, inspected: Inspected
    ) -> Iterator[tuple[Rule, Level, str]]:
        names = [column.name for column in inspected.columns]
        if names.count(name) != 1:
            if name in names:
                what = f"column {name!r} comes {names.count(name)} times; rename all but one with AS"
            else:
                what = f"column {name!r} is missing; the result has {', '.join(names) or 'no columns'}"
            yield "column", "error", what + ("" if name in names else did_you_mean(name, names))
            return
        column = inspected.columns[names.index(name)]
        kind = self._type(column)
        if many := many_values(column, kind):
            yield "attribute-type", "warning", many
        declared = metric.attribute_values.get(name, ())
        if kind.labels and declared:
            for value in declared:
                if value not in kind.labels:
                    what = f"{quote(value)} is no value of {kind.name}{did_you_mean(value, kind.labels)}"
                    yield "attribute-values", "warning", what
            if missing := [label for label in kind.labels if label not in declared]:
                what = f"{kind.name} has {', '.join(missing)} too, and rows with it are refused; list it"
                yield "attribute-values", "warning", what

    def _type(self, column: Column) -> Type:
        return self.known.types.get(column.oid) or Type(f"type {column.oid}", "X")

    def _estimate(self, cheap: Inspected) -> Iterator[Diagnostic]:
        estimate = self.query.estimate
        if estimate is None or self.own.cost is None:
            return
        if cheap.cost is not None and cheap.cost >= self.own.cost:
            what = f"costs {cheap.cost:,.0f}, no less than the exact {self.own.cost:,.0f}; leave it out here"
            yield self._say("estimate", "warning", what, "estimate", "sql")
        elif self._estimate_answers:
            exact, limit = f"{self.own.cost:,.0f}", f"{estimate.above_cost:,.0f}"
            what = f"answers on this server: the exact cost {exact} is above {limit}"
            yield self._say("estimate", "note", what, "estimate", "above_cost")

    def _cost(self) -> Iterator[Diagnostic]:
        sent, path = (
            (self.cheap, ("estimate", "sql"))
            if self._estimate_answers and self.cheap is not None
            else (self.own, ("sql",))
        )
        if sent.cost is not None and sent.cost > self.limits.max_cost:
            what = f"the planner's cost {sent.cost:,.0f} is above the limit {self.limits.max_cost:,.0f}"
            advice = "make it cheaper" + (", or give it an estimate" if self.query.estimate is None else "")
            yield self._say("max-cost", "error", f"{what}; {advice}", *path)

    def _scans(self) -> Iterator[Diagnostic]:
        if self._estimate_answers or self.own.plan is None:
            return
        for scan in dict.fromkeys(self.own.plan.scans):
            relation = self.known.relations.get(scan.relation)
            if relation is None:
                continue
            if relation.rows is None:
                name = relation.quoted
                what = f"{name} was never analysed, so its cost is a guess; run ANALYZE {name}"
                yield self._say("statistics", "note", what, "sql")
            elif relation.rows >= self.limits.large_rows:
                yield self._scan(scan, relation.quoted, relation.rows, relation.indexed)

    def _scan(self, scan: Scan, name: str, rows: float, indexed: Mapping[str, str]) -> Diagnostic:
        reads = f"reads all of {name}, {rows:,.0f} rows"
        columns = [column for column in compared_columns(scan.condition) if column not in indexed]
        if columns and scan.rows < _FEW_ROWS * rows:
            index = f"CREATE INDEX CONCURRENTLY ON {name} ({identifier(columns[0])})"
            what = f"{reads}, to find {scan.rows:,.0f}; an index would: {index}"
            return self._say("missing-index", "warning", what, "sql")
        if counts_a_whole_relation(self.query.sql) and self.query.estimate is None:
            column = identifier(self.own.columns[0].name)
            # -1 means that the table was never analysed: NULL, which no metric exports.
            count = f"nullif(reltuples, -1)::bigint AS {column}"
            sql = f"SELECT {count} FROM pg_class WHERE oid = {literal(name)}::regclass"
            estimate = as_yaml({"sql": sql, "above_cost": _rounded(self.own.cost or 0.0)})
            what = f"{reads}; give it an estimate: {estimate}"
            return self._say("sequential-scan", "warning", what, "sql")
        advice = "make its interval longer" + (
            ", or give it an estimate" if self.query.estimate is None else ""
        )
        what = f"{reads}; {advice}"
        return self._say("sequential-scan", "warning", what, "sql")


def _of(path: tuple[Key, ...]) -> str:
    return " (in the estimate's sql)" if path[0] == "estimate" else ""


def _rounded(cost: float) -> int:
    """A round number below `cost`, so that this cost is above it."""
    if cost <= 1:
        return 1
    power = 10 ** int(math.log10(cost))
    return max(1, int(cost / 2 // power * power) or power // 2)
