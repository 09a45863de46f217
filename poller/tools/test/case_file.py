"""Reader of test case files that reports every error at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pgparse
from pydantic import ValidationError

from poller.config.queries.error_messages import sentences
from poller.config.queries.files import unreadable
from poller.config.queries.query_file import FileProblem, QueryFile, read
from poller.config.queries.yaml_errors import YamlProblem
from poller.model.errors import Problem
from poller.model.files import NotRegularError, read_regular
from poller.model.path import Key
from poller.model.query import QueryDefinition
from poller.model.text import did_you_mean, kind_of, quote
from poller.tools.test.case import Case, Cases

_PASSED_OVER = {"TRANS_STMT_BEGIN", "TRANS_STMT_START", "TRANS_STMT_COMMIT"}
_OF_PSQL = re.compile(r"^\\(?:un)?restrict .*$", re.MULTILINE)
"""What pg_dump writes around a dump for psql (PostgreSQL manual, "psql", \\restrict)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement, and the line of its script that it begins on."""

    line: int
    sql: str


def steps(sql: str) -> tuple[Step, ...]:
    """The statements of `sql`. BEGIN and COMMIT are passed over: a case is one transaction as it is.

    Raises ValueError with what is wrong where it is no SQL, would end the transaction by itself, or has the
    server run a program or write a file.
    """
    text = _OF_PSQL.sub("", sql)
    if "\0" in text:
        raise ValueError("holds a NUL character; leave it out")
    try:
        statements = pgparse.parse(text)
    except pgparse.PGQueryError as error:
        line = text[: max(error.position - 1, 0)].count("\n") + 1
        message = " ".join(error.message.split())[:200]
        raise ValueError(f"is not SQL that PostgreSQL understands: {message} (line {line} of it)") from None
    except RecursionError:
        raise ValueError("is nested too deeply to be checked; write it flatter") from None
    return tuple(_steps(text.encode(), statements))


def _steps(raw: bytes, statements: list[dict[str, Any]]) -> Iterator[Step]:
    for statement in statements:
        start = statement.get("stmt_location", 0)
        length = statement.get("stmt_len")
        body = raw[start : None if length is None else start + length].decode()
        line = raw[:start].count(b"\n") + 1 + body[: len(body) - len(body.lstrip())].count("\n")
        said = f"holds {' '.join(body.split())[:40]} (line {line} of it)"
        if why := _refused_copy(statement["stmt"].get("CopyStmt")):
            raise ValueError(f"{said}; {why}")
        transaction = statement["stmt"].get("TransactionStmt")
        if transaction is None:
            yield Step(line, body.strip())
        elif transaction["kind"] not in _PASSED_OVER:
            raise ValueError(f"{said}; a case is rolled back as a whole, so leave it out")


def _refused_copy(copy: dict[str, Any] | None) -> str | None:
    """Why a COPY cannot be part of a fixture, and what to write instead."""
    if copy is None or (copy.get("is_from") and copy.get("filename") and not copy.get("is_program")):
        return None
    if copy.get("is_from"):
        return (
            "no program is run for a case, and nothing is typed in; write the rows below `rows:` or `files:`"
        )
    return "a case makes rows and writes no file, which nobody would roll back; leave it out"


_MAX_TEXT_BYTES = 64 << 20
"""Of one file of rows or SQL."""
_EXAMPLE = "write `cases:` and a list of cases below it"


@dataclass(frozen=True, slots=True)
class Fixture:
    """What is there before the query is asked."""

    schema: tuple[tuple[str, Step], ...]
    """Each statement, and the place of its script."""
    rows: tuple[tuple[str, str, str], ...]
    """A place, a table, and its rows as CSV with a header."""
    script: tuple[tuple[str, Step], ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """A case with all that it names at hand."""

    path: Path
    line: int
    case: Case
    query: QueryDefinition
    fixture: Fixture

    @property
    def place(self) -> str:
        return f"{self.path}:{self.line}"


class Reading:
    """One file of cases, as it is read; what is wrong is in `found`."""

    def __init__(self, number: int, path: Path, queries: Sequence[QueryDefinition]) -> None:
        self.found: list[FileProblem] = []
        self._file = QueryFile(number, path, read(path))
        self._queries = {query.name: query for query in queries}

    def trials(self) -> list[Trial]:
        cases = self._cases()
        if cases is None:
            return []
        schema = self._schema(cases)
        self._twins(cases.cases)
        made = (self._trial(index, case, schema) for index, case in enumerate(cases.cases))
        return [trial for trial in made if trial is not None]

    def _cases(self) -> Cases | None:
        document = self._file.document
        if isinstance(document, str):
            self.found.append(FileProblem((self._file.number, 0), Problem(str(self._file.path), document)))
            return None
        empty = document.root is None and all(flaw.message.startswith("is empty") for flaw in document.flaws)
        flaws = [YamlProblem(1, f"is empty; {_EXAMPLE}")] if empty else document.flaws
        self.found += map(self._file.yaml_problem, flaws)
        data = document.data
        if document.root is None or self.found:
            return None
        if not isinstance(data, dict):
            self._say((), f"is {kind_of(data)}, not a mapping; {_EXAMPLE}")
            return None
        try:
            return Cases.model_validate(data)
        except ValidationError as error:
            for path, what in sentences(error, Cases, data):
                self._say(path, what)
            return None

    def _schema(self, cases: Cases) -> tuple[tuple[str, Step], ...]:
        from_file: tuple[tuple[str, Step], ...] = ()
        if cases.schema_file is not None and (text := self._text(("schema_file",), cases.schema_file)):
            path = self._file.path.parent / cases.schema_file
            from_file = self._steps(("schema_file",), text, str(path))
        return from_file + self._steps(("schema",), cases.schema_sql)

    def _twins(self, cases: Sequence[Case]) -> None:
        names: dict[str, int] = {}
        for index, case in enumerate(cases):
            first = names.setdefault(case.name, index)
            if first != index:
                where = self._file.place(("cases", first, "name"))
                self._say(
                    ("cases", index, "name"), f"{quote(case.name)} is also the case at {where}; rename one"
                )

    def _trial(self, index: int, case: Case, schema: tuple[tuple[str, Step], ...]) -> Trial | None:
        at = ("cases", index)
        query = self._query(at, case)
        fixture = Fixture(schema, tuple(self._rows(at, case)), self._steps((*at, "sql"), case.sql))
        if query is None:
            return None
        if case.estimate and query.estimate is None:
            self._say(
                (*at, "estimate"), f"{query.name} has none; leave it out, or write the query's estimate"
            )
        self._expectations(at, case, query)
        return Trial(self._file.path, self._file.line(at), case, query, fixture)

    def _query(self, at: tuple[Key, ...], case: Case) -> QueryDefinition | None:
        if case.query is None and len(self._queries) == 1:
            return next(iter(self._queries.values()))
        known = ", ".join(self._queries)
        if case.query is None:
            self._say(
                at, f"names no query, and the query file has several; write `query:` with one of {known}"
            )
        elif case.query not in self._queries:
            meant = did_you_mean(case.query, self._queries) or ";"
            self._say(
                (*at, "query"),
                f"{quote(case.query)} is no query of the file beside{meant} there are: {known}",
            )
        return self._queries.get(case.query or "")

    def _expectations(self, at: tuple[Key, ...], case: Case, query: QueryDefinition) -> None:
        fed = list(dict.fromkeys(metric.name for metric in query.metrics))
        seen: dict[object, int] = {}
        for index, one in enumerate(case.expect or ()):
            here = (*at, "expect", index)
            if one.metric is None and len(fed) > 1:
                self._say(
                    here, f"names no metric, and {query.name} feeds several; write one of {', '.join(fed)}"
                )
            elif one.metric is not None and one.metric not in fed:
                meant = did_you_mean(one.metric, fed) or ";"
                what = f"{quote(one.metric)} is not fed by {query.name}{meant} it feeds {', '.join(fed)}"
                self._say((*here, "metric"), what)
            key = (one.metric or fed[0], frozenset((name, str(v)) for name, v in one.attributes.items()))
            if seen.setdefault(key, index) != index:
                self._say(here, f"is the series of expect[{seen[key]}] again; keep one")

    def _rows(self, at: tuple[Key, ...], case: Case) -> Iterator[tuple[str, str, str]]:
        for key, given in (("rows", case.rows), ("files", case.files)):
            for table, text in given.items():
                path = (*at, key, table)
                csv = self._text(path, text) if key == "files" else text
                if csv is None:
                    continue
                if not csv.strip():
                    self._say(path, "is empty; write the names of the columns, and a line for each row")
                else:
                    yield f"{self._file.place(path)}: {key}.{table}", table, csv

    def _steps(
        self, path: tuple[Key, ...], sql: str, file: str | None = None
    ) -> tuple[tuple[str, Step], ...]:
        place = file or f"{self._file.place(path)}: {path[-1]}"
        try:
            return tuple((place, step) for step in steps(sql))
        except ValueError as error:
            self._say(path, f"{file}: {error}" if file else str(error))
            return ()

    def _text(self, path: tuple[Key, ...], name: str) -> str | None:
        """What the file `name` beside this one holds."""
        file = self._file.path.parent / name
        try:
            return read_regular(file, _MAX_TEXT_BYTES).decode("utf-8-sig")
        except NotRegularError:
            self._say(path, f"{quote(str(file))} is not a regular file; write another")
        except UnicodeDecodeError:
            self._say(path, f"{quote(str(file))} is not UTF-8; save it as UTF-8")
        except (OSError, ValueError) as error:
            self._say(
                path, f"{quote(str(file))} {unreadable(error)}; write a path from the folder of this file"
            )
        return None

    def _say(self, path: Sequence[Key], what: str) -> None:
        self.found.append(self._file.problem(path, what))
