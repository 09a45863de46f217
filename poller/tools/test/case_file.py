"""Reader of test case files that reports every error at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pgparse
from pydantic import ValidationError

from poller.config.error_messages import sentences
from poller.config.queries.files import unreadable
from poller.config.yaml_file import YamlFile, read
from poller.model.diagnostics import Diagnostic
from poller.model.files import NotRegularError, read_regular
from poller.model.path import PathKey
from poller.model.query import QueryDefinition
from poller.model.text import did_you_mean, quote
from poller.tools.test.case import Case, Cases

_SKIPPED = {"TRANS_STMT_BEGIN", "TRANS_STMT_START", "TRANS_STMT_COMMIT"}
_OF_PSQL = re.compile(r"^\\(?:un)?restrict .*$", re.MULTILINE)
"""Commands that pg_dump writes into a dump for psql (PostgreSQL manual, "psql", \\restrict)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement, and the line of the script on which it begins."""

    line: int
    sql: str


def steps(sql: str) -> tuple[Step, ...]:
    """The statements of `sql`, except BEGIN and COMMIT, because a case always runs in one transaction.

    Raises ValueError with the problem if the text is not SQL, ends the transaction, or makes the server run a
    program or write a file.
    """
    text = _OF_PSQL.sub("", sql)
    if "\0" in text:
        raise ValueError("contains a NUL character; remove it")
    try:
        statements = pgparse.parse(text)
    except pgparse.PGQueryError as error:
        line = text[: max(error.position - 1, 0)].count("\n") + 1
        message = " ".join(error.message.split())[:200]
        raise ValueError(f"is not valid SQL: {message} (line {line} of the script)") from None
    except RecursionError:
        raise ValueError("is nested too deeply to check; reduce the nesting") from None
    return tuple(_steps(text.encode(), statements))


def _steps(raw: bytes, statements: list[dict[str, Any]]) -> Iterator[Step]:
    for statement in statements:
        start = statement.get("stmt_location", 0)
        length = statement.get("stmt_len")
        body = raw[start : None if length is None else start + length].decode()
        line = raw[:start].count(b"\n") + 1 + body[: len(body) - len(body.lstrip())].count("\n")
        excerpt = f"contains {' '.join(body.split())[:40]} (line {line} of the script)"
        if problem := _copy_problem(statement["stmt"].get("CopyStmt")):
            raise ValueError(f"{excerpt}; {problem}")
        transaction = statement["stmt"].get("TransactionStmt")
        if transaction is None:
            yield Step(line, body.strip())
        elif transaction["kind"] not in _SKIPPED:
            raise ValueError(f"{excerpt}; each case is rolled back as a whole, so remove it")


def _copy_problem(copy: dict[str, Any] | None) -> str | None:
    """Why a COPY cannot be part of a fixture, and what to write instead; None if it can."""
    if copy is None or (copy.get("is_from") and copy.get("filename") and not copy.get("is_program")):
        return None
    if copy.get("is_from"):
        return "a case runs no program and has no standard input; write the rows below `rows:` or `files:`"
    return "a case writes no file, because a rollback would not remove it; remove this statement"


_MAX_TEXT_BYTES = 64 << 20
"""Maximum size of a file with rows or SQL."""
_EXAMPLE = "write `cases:` and a list of cases below it"


@dataclass(frozen=True, slots=True)
class Fixture:
    """Schema and rows that exist before the query runs."""

    schema: tuple[tuple[str, Step], ...]
    """Statements, each with the place of its script."""
    rows: tuple[tuple[str, str, str], ...]
    """Rows of each table: the place, the table, and the CSV text with a header."""
    script: tuple[tuple[str, Step], ...]


@dataclass(frozen=True, slots=True)
class LoadedCase:
    """A test case with its query and its fixture loaded."""

    path: Path
    line: int
    case: Case
    query: QueryDefinition
    fixture: Fixture

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"


class CaseReader:
    """Reader of one test case file; collects every error in `problems`."""

    def __init__(self, path: Path, queries: Sequence[QueryDefinition]) -> None:
        self.problems: list[Diagnostic] = []
        self._file = YamlFile(path, read(path))
        self._queries = {query.name: query for query in queries}

    def loaded_cases(self) -> list[LoadedCase]:
        cases = self._cases()
        if cases is None:
            return []
        schema = self._schema(cases)
        self._check_names(cases.cases)
        loaded_cases = (self._load_case(index, case, schema) for index, case in enumerate(cases.cases))
        return [loaded_case for loaded_case in loaded_cases if loaded_case is not None]

    def _cases(self) -> Cases | None:
        self.problems += self._file.mapping_problems(_EXAMPLE)
        if self.problems:
            return None
        data = self._file.data
        try:
            return Cases.model_validate(data)
        except ValidationError as error:
            for path, message in sentences(error, Cases, data):
                self._report(path, message)
            return None

    def _schema(self, cases: Cases) -> tuple[tuple[str, Step], ...]:
        from_file: tuple[tuple[str, Step], ...] = ()
        if cases.schema_file is not None and (text := self._text(("schema_file",), cases.schema_file)):
            path = self._file.path.parent / cases.schema_file
            from_file = self._steps(("schema_file",), text, str(path))
        return from_file + self._steps(("schema",), cases.schema_sql)

    def _check_names(self, cases: Sequence[Case]) -> None:
        names: dict[str, int] = {}
        for index, case in enumerate(cases):
            first = names.setdefault(case.name, index)
            if first != index:
                where = self._file.where(("cases", first, "name"))
                self._report(
                    ("cases", index, "name"),
                    f"{quote(case.name)} is also the name of the case at {where}; rename one of them",
                )

    def _load_case(self, index: int, case: Case, schema: tuple[tuple[str, Step], ...]) -> LoadedCase | None:
        at = ("cases", index)
        query = self._query(at, case)
        fixture = Fixture(schema, tuple(self._rows(at, case)), self._steps((*at, "sql"), case.sql))
        if query is None:
            return None
        if case.estimate and query.estimate is None:
            self._report(
                (*at, "estimate"),
                f"{query.name} has no estimate; remove this key, or add an estimate to the query",
            )
        self._expectations(at, case, query)
        return LoadedCase(self._file.path, self._file.line(at), case, query, fixture)

    def _query(self, at: tuple[PathKey, ...], case: Case) -> QueryDefinition | None:
        if case.query is None and len(self._queries) == 1:
            return next(iter(self._queries.values()))
        names = ", ".join(self._queries)
        if case.query is None:
            self._report(
                at, f"names no query, but the query file has several; write `query:` with one of {names}"
            )
        elif case.query not in self._queries:
            hint = did_you_mean(case.query, self._queries) or ";"
            self._report(
                (*at, "query"),
                f"{quote(case.query)} is not in the query file{hint} its queries are: {names}",
            )
        return self._queries.get(case.query or "")

    def _expectations(self, at: tuple[PathKey, ...], case: Case, query: QueryDefinition) -> None:
        fed = list(dict.fromkeys(metric.name for metric in query.metrics))
        series: dict[object, int] = {}
        for index, expected in enumerate(case.expect or ()):
            here = (*at, "expect", index)
            if expected.metric is None and len(fed) > 1:
                self._report(
                    here, f"names no metric, but {query.name} feeds several; write one of {', '.join(fed)}"
                )
            elif expected.metric is not None and expected.metric not in fed:
                hint = did_you_mean(expected.metric, fed) or ";"
                name = quote(expected.metric)
                message = f"{name} is not fed by {query.name}{hint} it feeds {', '.join(fed)}"
                self._report((*here, "metric"), message)
            attributes = frozenset((name, str(value)) for name, value in expected.attributes.items())
            key = (expected.metric or fed[0], attributes)
            if series.setdefault(key, index) != index:
                self._report(here, f"is the same series as expect[{series[key]}]; remove one of them")

    def _rows(self, at: tuple[PathKey, ...], case: Case) -> Iterator[tuple[str, str, str]]:
        for key, tables in (("rows", case.rows), ("files", case.files)):
            for table, text in tables.items():
                path = (*at, key, table)
                csv = self._text(path, text) if key == "files" else text
                if csv is None:
                    continue
                if not csv.strip():
                    self._report(
                        path, "is empty; write a line with the names of the columns, and a line for each row"
                    )
                else:
                    yield f"{self._file.where(path)}: {key}.{table}", table, csv

    def _steps(
        self, path: tuple[PathKey, ...], sql: str, file: str | None = None
    ) -> tuple[tuple[str, Step], ...]:
        place = file or f"{self._file.where(path)}: {path[-1]}"
        try:
            return tuple((place, step) for step in steps(sql))
        except ValueError as error:
            self._report(path, f"{file}: {error}" if file else str(error))
            return ()

    def _text(self, path: tuple[PathKey, ...], name: str) -> str | None:
        """The content of the file `name`, a path relative to the folder of this file."""
        file = self._file.path.parent / name
        try:
            return read_regular(file, _MAX_TEXT_BYTES).decode("utf-8-sig")
        except NotRegularError:
            self._report(path, f"{quote(str(file))} is not a regular file; write the path of a regular file")
        except UnicodeDecodeError:
            self._report(path, f"{quote(str(file))} is not UTF-8; save it as UTF-8")
        except (OSError, ValueError) as error:
            self._report(
                path,
                f"{quote(str(file))} {unreadable(error)}; write a path relative to the folder of this file",
            )
        return None

    def _report(self, path: Sequence[PathKey], message: str) -> None:
        self.problems.append(self._file.problem(path, message))
