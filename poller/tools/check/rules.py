"""Checks of every query against a server: validity and result columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from poller.config.queries.query_file import Origin, spot_in
from poller.model.casts import not_a_time
from poller.model.diagnostics import Diagnostic, Place, Severity
from poller.model.errors import PollError
from poller.model.path import PathKey
from poller.model.printable import one_line
from poller.model.query import MetricDefinition, QueryDefinition
from poller.model.rows import Column, Rows
from poller.model.text import did_you_mean, quote
from poller.polling.mapping import repeated_column, to_samples
from poller.postgres.inspect import CatalogFacts, Inspected, Inspection
from poller.postgres.inspect_relations import Type
from poller.postgres.server_facts import unmet_requirement
from poller.postgres.volatile_functions import ADVICE
from poller.tools.check.cardinality import many_values
from poller.tools.check.plans import PlanCheck
from poller.tools.check.result import CheckedQuery
from poller.tools.check.search_path import USABLE_SCHEMAS, ignored_schemas

LARGE_ROWS = 100_000
"""Row count from which a table counts as large."""

_PRIVILEGE = "42501"
_GATE = "under requires."


def check_queries(
    queries: Sequence[QueryDefinition],
    origins: Mapping[str, Origin],
    inspection: Inspection,
    large_rows: int = LARGE_ROWS,
) -> list[CheckedQuery]:
    """Prepare and plan every query on the server without running it, and check the result.

    Queries whose requirements the server does not meet are skipped. Raises PollError if the connection is
    lost.
    """
    skips = {query.name: unmet_requirement(query.requires, inspection.facts) for query in queries}
    sent = [query for query in queries if skips[query.name] is None]
    estimated = [query for query in sent if query.estimate]
    sqls = [query.sql for query in sent] + [query.estimate.sql for query in estimated if query.estimate]
    parameters = [query.parameters for query in (*sent, *estimated)]
    settings = [query.settings for query in (*sent, *estimated)]
    every = inspection.statements(sqls, parameters=parameters, settings=settings)
    inspected, estimates = every[: len(sent)], every[len(sent) :]
    sources = _sources([*sent, *estimated], sqls, every, origins, inspection)
    catalog_facts = inspection.known([*every, *sources.values()])
    names = [query.name for query in (*sent, *estimated)]
    # A refused setting would refuse the lookup for all statements.
    valid = [number for number, result in enumerate(every) if result.error is None]
    functions = inspection.volatile(
        [sqls[number] for number in valid], [settings[number] for number in valid]
    )
    volatile = {(names[number], sqls[number]): calls for number, calls in zip(valid, functions, strict=True)}
    own = dict(zip((query.name for query in sent), inspected, strict=True))
    cheap = dict(zip((query.name for query in estimated), estimates, strict=True))
    paths = any("search_path" in query.settings for query in sent)
    usable = inspection.value(USABLE_SCHEMAS) if paths else b"{}"
    checked: list[CheckedQuery] = []
    for query in queries:
        origin, skip = origins[query.name], skips[query.name]
        if skip is not None:
            message = f"is not sent to this server: {skip.detail}"
            # `requires` expects a missing table, but a missing privilege should be granted.
            severity: Severity = "warning" if skip.reason == "privilege" else "note"
            place = origin.place("requires")
            gate = Diagnostic(severity, "requires", message, subject=query.name, place=place)
            checked.append(CheckedQuery(query.name, origin.place("name"), "not_sent", diagnostics=(gate,)))
        else:
            check = _QueryCheck(
                query,
                origin,
                own[query.name],
                cheap.get(query.name),
                sources,
                catalog_facts,
                volatile,
                usable,
                large_rows,
            )
            checked.append(check.result())
    return checked


def _sources(
    queries: Sequence[QueryDefinition],
    sqls: Sequence[str],
    inspected: Sequence[Inspected],
    origins: Mapping[str, Origin],
    inspection: Inspection,
) -> dict[tuple[str, str], Inspected]:
    """Inspect the statements in the file around which the aggregation of a histogram was rejected.

    `sqls` and `inspected` belong to `queries`, of which each estimate is a second one. The result has the
    valid statements by the name of the query and the statement with the aggregation.
    """
    rejected: list[tuple[QueryDefinition, str, str]] = []
    for query, sql, result in zip(queries, sqls, inspected, strict=True):
        origin = origins[query.name]
        path = ("sql",) if sql == query.sql else ("estimate", "sql")
        if (
            result.error is not None
            and result.error.setting is None
            and origin.value("metrics", 0).get("histogram")
            and origin.written_sql(path, sql, result.error.position)[1] is None
        ):
            rejected.append((query, sql, origin.statement(*path)))
    results = inspection.statements(
        [written for _, _, written in rejected],
        parameters=[query.parameters for query, _, _ in rejected],
        settings=[query.settings for query, _, _ in rejected],
    )
    return {
        (query.name, sql): result
        for (query, sql, _), result in zip(rejected, results, strict=True)
        if result.error is None
    }


@dataclass(frozen=True, slots=True)
class _QueryCheck:
    """One query with everything that its check needs."""

    query: QueryDefinition
    origin: Origin
    own: Inspected
    cheap: Inspected | None
    sources: Mapping[tuple[str, str], Inspected]
    """Valid statements of histograms whose aggregation is not valid, see `_sources`."""
    catalog_facts: CatalogFacts
    volatile: Mapping[tuple[str, str], Sequence[str]]
    """Functions by query and statement, see `Inspection.volatile`."""
    usable_schemas: bytes
    large_rows: int

    def result(self) -> CheckedQuery:
        diagnostics = [*self._statement(("sql",), self.query.sql, self.own)]
        if self.cheap is not None and self.query.estimate is not None:
            diagnostics += self._statement(("estimate", "sql"), self.query.estimate.sql, self.cheap)
        relations = self.catalog_facts.relations
        plan = PlanCheck(self.query, self.origin, self.own, self.cheap, relations, self.large_rows)
        diagnostics += [*plan.diagnostics(), *self._search_path()]
        diagnostics.sort(key=lambda diagnostic: diagnostic.line)
        refused = any(
            diagnostic.severity == "error" and diagnostic.rule != "max-cost" for diagnostic in diagnostics
        )
        return CheckedQuery(
            self.query.name,
            self.origin.place("name"),
            "refused" if refused else "ok",
            self.own.cost,
            self.query.max_cost,
            {column.name: self._type(column).name for column in self.own.columns},
            plan.estimate_answers,
            tuple(diagnostics),
        )

    def _diagnostic(
        self, rule: str, severity: Severity, message: str, *path: PathKey, place: Place | None = None
    ) -> Diagnostic:
        place = place or self.origin.place(*path)
        return Diagnostic(severity, rule, one_line(message), subject=self.query.name, place=place)

    def _statement(self, path: tuple[PathKey, ...], sql: str, inspected: Inspected) -> Iterator[Diagnostic]:
        """Problems of one statement and its columns."""
        if inspected.error is not None:
            source = self.sources.get((self.query.name, sql))
            if source is not None and (problems := [*self._columns(path, source, in_file=True)]):
                yield from problems
                return
            error = inspected.error
            rule = "privilege" if error.sqlstate == _PRIVILEGE else "rejected"
            written, error.position = self.origin.written_sql(path, sql, error.position)
            place = (
                self.origin.in_sql(path, written, error.position)
                if error.setting is None
                else self.origin.place("settings", error.setting)
            )
            message = refusal(error, written).removeprefix(f"settings.{error.setting}: ")
            yield self._diagnostic(rule, "error", message, place=place)
            return
        for name in self.volatile[self.query.name, sql]:
            message = f"calls {name}, which is declared VOLATILE: it may write despite READ ONLY; {ADVICE}"
            yield self._diagnostic("volatile-function", "warning", f"{message}{_suffix(path)}", *path)
        yield from self._columns(path, inspected)
        yield from self._unused(path, inspected)

    def _columns(
        self, path: tuple[PathKey, ...], inspected: Inspected, *, in_file: bool = False
    ) -> Iterator[Diagnostic]:
        """Problems of the columns that feed the metrics; `in_file`: before a histogram aggregates them."""
        names = [column.name for column in inspected.columns]
        # All series of a histogram have the columns of the metric in the file.
        for number, written in enumerate(self.origin.value("metrics")):
            metric, at = self.query.metrics[number], ("metrics", number)
            if in_file:
                metric = dataclasses.replace(metric, value_column=str(written["value_column"]))
            yield from self._value(path, metric, inspected, number)
            if (column := metric.time_column) is not None:
                rule, problem = "column", self._column_problem(column, names)
                if problem is None:
                    rule, problem = (
                        "not-a-time",
                        not_a_time(column, inspected.columns[names.index(column)].oid),
                    )
                if problem is not None:
                    yield self._diagnostic(rule, "error", f"{problem}{_suffix(path)}", *at, "time_column")
            for name in metric.attribute_columns:
                for rule, severity, message in self._attribute(metric, name, inspected):
                    key = "attribute_values" if rule == "attribute-values" else "attribute_columns"
                    yield self._diagnostic(rule, severity, f"{message}{_suffix(path)}", *at, key)

    def _value(
        self, path: tuple[PathKey, ...], metric: MetricDefinition, inspected: Inspected, number: int
    ) -> Iterator[Diagnostic]:
        """Problems of the value column of one metric."""
        names = [column.name for column in inspected.columns]
        if problem := self._value_problem(metric, inspected):
            hint = did_you_mean(metric.value_column, names) if metric.value_column not in names else ""
            rule = "column" if names.count(metric.value_column) != 1 else "not-numeric"
            message = f"{problem}{hint}{_suffix(path)}"
            yield self._diagnostic(rule, "error", message, "metrics", number, "value_column")

    def _unused(self, path: tuple[PathKey, ...], inspected: Inspected) -> Iterator[Diagnostic]:
        """Columns that feed no metric, which makes rows duplicates of each other."""
        used = {name for metric in self.query.metrics for name in metric.columns}
        if not used <= {column.name for column in inspected.columns}:
            return  # a missing column may be one of the unused columns under another name
        for column in inspected.columns:
            if column.name not in used and self._type(column).name != "void":
                problem = f"column {column.name!r} feeds no metric: rows that differ only in it are rejected"
                advice = "add it to attribute_columns, or remove it from the SELECT"
                message = f"{problem} as duplicates; {advice}{_suffix(path)}"
                yield self._diagnostic("unused-column", "warning", message, *path)

    def _value_problem(self, metric: MetricDefinition, inspected: Inspected) -> str | None:
        """The message with which a poll would fail."""
        alone = dataclasses.replace(metric, attribute_columns=(), attribute_values={}, time_column=None)
        try:
            mapped = to_samples(
                dataclasses.replace(self.query, metrics=(alone,)), Rows(inspected.columns, []), at=0.0
            )
        except PollError as error:
            return error.message
        return mapped.advice

    def _column_problem(self, name: str, names: Sequence[str]) -> str | None:
        """Why the column is not exactly once in a result with the columns `names`; None if it is."""
        if names.count(name) == 1:
            return None
        if name in names:
            return repeated_column(self.query, name, names.count(name))
        missing = f"column {name!r} is missing; the result has {', '.join(names) or 'no columns'}"
        return missing + did_you_mean(name, names)

    def _attribute(
        self, metric: MetricDefinition, name: str, inspected: Inspected
    ) -> Iterator[tuple[str, Severity, str]]:
        names = [column.name for column in inspected.columns]
        if problem := self._column_problem(name, names):
            yield "column", "error", problem
            return
        column = inspected.columns[names.index(name)]
        kind = self._type(column)
        if name in self.query.parameters[0]:
            return  # its values are in the query file
        if many := many_values(column, kind):
            yield "attribute-type", "warning", many
        declared = metric.attribute_values.get(name, ())
        if kind.labels and declared:
            for value in declared:
                if value not in kind.labels:
                    message = (
                        f"{quote(value)} is not a value of {kind.name}{did_you_mean(value, kind.labels)}"
                    )
                    yield "attribute-values", "warning", message
            if missing := [label for label in kind.labels if label not in declared]:
                values = ", ".join(missing)
                message = (
                    f"{kind.name} also has {values}, and rows with undeclared values are rejected; add them"
                )
                yield "attribute-values", "warning", message

    def _type(self, column: Column) -> Type:
        return self.catalog_facts.types.get(column.oid) or Type(f"type {column.oid}", "X")

    def _search_path(self) -> Iterator[Diagnostic]:
        error = self.own.error
        refused = error is not None and error.setting == "search_path"
        path = "" if refused else self.query.settings.get("search_path", "")
        for message in ignored_schemas(path, self.usable_schemas):
            yield self._diagnostic("search-path", "warning", message, "settings", "search_path")


def _suffix(path: tuple[PathKey, ...]) -> str:
    return " (in the estimate's sql)" if path[0] == "estimate" else ""


def refusal(error: PollError, sql: str, *, in_file: bool = True) -> str:
    """The server's message, the SQLSTATE, the position in the statement, and the fix.

    Without `in_file`, the statement is in no query file, so a fix by `requires` is omitted.
    """
    where = [error.sqlstate] if error.sqlstate else []
    if error.position is not None:
        line, column = spot_in(sql, error.position)
        where.append(f"line {line}, column {column} of sql")
    message = f"{error.message} ({', '.join(where)})" if where else error.message
    return f"{message}; {error.hint}" if error.hint and (in_file or _GATE not in error.hint) else message
