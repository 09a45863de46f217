"""Checks of a query's plan: cost above the limit, estimate, and reads of whole tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from poller.config.queries.query_file import Origin
from poller.config.queries.sql_ast import compared_columns, counts_a_whole_relation, identifier
from poller.model.diagnostics import Diagnostic, Severity
from poller.model.path import PathKey
from poller.model.printable import one_line
from poller.model.query import QueryDefinition
from poller.model.text import as_yaml
from poller.postgres.inspect import Inspected
from poller.postgres.inspect_relations import Relation
from poller.postgres.plan import Scan
from poller.postgres.sql_text import literal

_FEW_ROWS = 0.1
"""Fraction of a table below which an index is useful."""


@dataclass(frozen=True, slots=True)
class PlanCheck:
    """The plans of one query and its estimate on a server."""

    query: QueryDefinition
    origin: Origin
    own: Inspected
    cheap: Inspected | None
    """The statement of the estimate."""
    relations: Mapping[tuple[str, str], Relation]
    large_rows: int
    """Row count from which a table counts as large."""

    @property
    def estimate_answers(self) -> bool:
        """Whether the estimate runs on this server instead of the exact query."""
        estimate = self.query.estimate
        return estimate is not None and (self.own.cost or 0.0) > self.query.exact_limit

    def diagnostics(self) -> Iterator[Diagnostic]:
        """Return the problems of the plans."""
        if self.cheap is not None:
            yield from self._estimate(self.cheap)
        yield from self._cost()
        yield from self._scans()

    def _diagnostic(self, rule: str, severity: Severity, message: str, *path: PathKey) -> Diagnostic:
        place = self.origin.place(*path)
        return Diagnostic(severity, rule, one_line(message), subject=self.query.name, place=place)

    def _estimate(self, cheap: Inspected) -> Iterator[Diagnostic]:
        estimate = self.query.estimate
        if estimate is None or self.own.cost is None:
            return
        if cheap.cost is not None and cheap.cost >= self.own.cost:
            problem = f"costs {cheap.cost:,.0f}, not less than the exact query's {self.own.cost:,.0f}"
            yield self._diagnostic(
                "estimate", "warning", f"{problem}; remove the estimate", "estimate", "sql"
            )
        elif self.estimate_answers:
            limit = self.query.exact_limit
            key: tuple[PathKey, ...] = (
                ("estimate", "above_cost") if limit == estimate.above_cost else ("max_cost",)
            )
            message = (
                f"the estimate is used on this server, because the exact query's cost {self.own.cost:,.0f} "
                f"exceeds {key[-1]} {limit:,.0f}"
            )
            yield self._diagnostic("estimate", "note", message, *key)

    def _cost(self) -> Iterator[Diagnostic]:
        sent, path = (
            (self.cheap, ("estimate", "sql"))
            if self.estimate_answers and self.cheap is not None
            else (self.own, ("sql",))
        )
        limit = self.query.max_cost
        if sent.cost is not None and limit is not None and sent.cost > limit:
            problem = (
                f"the planner's cost {sent.cost:,.0f} is above max_cost {limit:,.0f}, so no poll runs it"
            )
            advice = "make it cheaper" + (", or add an estimate" if self.query.estimate is None else "")
            yield self._diagnostic("max-cost", "error", f"{problem}; {advice}", *path)

    def _scans(self) -> Iterator[Diagnostic]:
        if self.estimate_answers or self.own.plan is None:
            return
        for scan in dict.fromkeys(self.own.plan.scans):
            relation = self.relations.get(scan.relation)
            if relation is None:
                continue
            if relation.rows is None:
                name = relation.quoted
                message = f"{name} was never analysed, so the cost is unreliable; run ANALYZE {name}"
                yield self._diagnostic("statistics", "note", message, "sql")
            elif relation.rows >= self.large_rows:
                yield self._scan(scan, relation.quoted, relation.rows, relation.indexed)

    def _scan(self, scan: Scan, name: str, rows: float, indexed: Mapping[str, str]) -> Diagnostic:
        reads = f"reads all of {name}, {rows:,.0f} rows"
        columns = [column for column in compared_columns(scan.condition) if column not in indexed]
        if columns and scan.rows < _FEW_ROWS * rows:
            index = f"CREATE INDEX CONCURRENTLY ON {name} ({identifier(columns[0])})"
            message = f"{reads}, to find {scan.rows:,.0f}; create an index: {index}"
            return self._diagnostic("missing-index", "warning", message, "sql")
        if counts_a_whole_relation(self.query.sql) and self.query.estimate is None:
            column = identifier(self.own.columns[0].name)
            # -1 means that the table was never analysed: NULL, which no metric exports.
            count = f"nullif(reltuples, -1)::bigint AS {column}"
            sql = f"SELECT {count} FROM pg_class WHERE oid = {literal(name)}::regclass"
            estimate = as_yaml({"sql": sql, "above_cost": _rounded(self.own.cost or 0.0)})
            message = f"{reads}; add an estimate: {estimate}"
            return self._diagnostic("sequential-scan", "warning", message, "sql")
        advice = "use a longer interval" + (", or add an estimate" if self.query.estimate is None else "")
        return self._diagnostic("sequential-scan", "warning", f"{reads}; {advice}", "sql")


def _rounded(cost: float) -> int:
    """A round number below `cost`."""
    if cost <= 1:
        return 1
    power = 10 ** int(math.log10(cost))
    return max(1, int(cost / 2 // power * power) or power // 2)
