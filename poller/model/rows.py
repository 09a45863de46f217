"""Rows of a result up to a limit, in a stated order, with the sum or count of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from poller.model.numbers import NUMBERS, NotRepresentableError, Number, add, parse

Row = tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a result: its name, and the OID of its type in `pg_type`."""

    name: str
    oid: int


@dataclass(frozen=True, slots=True)
class Limit:
    """Maximum number of rows, their order, and the columns summed over the omitted rows."""

    rows: int
    order: tuple[str, ...] = ()
    """Columns whose text (NULL first) sorts the rows before the cut; empty: order of arrival."""
    fold: tuple[str, ...] = ()
    """Columns whose values are summed over the omitted rows."""


@dataclass(slots=True)
class OmittedSum:
    """One column's sum over the omitted rows."""

    total: Number = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """Number of values that are not in the sum, by reason: `null`, `nan`, `infinite`, `not_a_number`."""

    def take(self, raw: bytes | None, oid: int) -> None:
        """Add one value."""
        if raw is None:
            self.rejected["null"] += 1
            return
        try:
            self.total = add(self.total, parse(raw, oid))
        except NotRepresentableError as error:
            self.rejected[str(error)] += 1


class Rows(NamedTuple):
    """A result of the server: every value as the server's text, NULL as None."""

    columns: tuple[Column, ...]
    values: list[Row]
    beyond: int = 0
    """Number of rows beyond the limit, which were received and discarded."""
    folded: Mapping[str, OmittedSum] = MappingProxyType({})
    """The sums over these rows, by column, if requested."""


class RowCollector:
    """Collects rows as they arrive, and never holds more than twice the limit and one chunk."""

    def __init__(self, limit: Limit, columns: tuple[Column, ...]) -> None:
        self._limit = limit
        self._columns = columns
        self._rows: list[Row] = []
        self._beyond = 0
        self._order: list[int] = []
        self._folded: dict[str, tuple[int, OmittedSum]] = {}
        if limit.order or limit.fold:
            at = {column.name: position for position, column in enumerate(columns)}
            self._order = [at[name] for name in limit.order if name in at]
            for name in limit.fold:
                if name in at and columns[at[name]].oid in NUMBERS:
                    self._folded[name] = at[name], OmittedSum()

    def take(self, rows: Iterable[Row]) -> None:
        """Add one chunk of rows."""
        self._rows.extend(rows)
        if len(self._rows) >= 2 * self._limit.rows:
            self._cut()

    def rows(self) -> Rows:
        """Return the rows within the limit, and the counts and sums of the omitted rows."""
        self._cut()
        folded = {name: sums for name, (_, sums) in self._folded.items()} if self._beyond else {}
        return Rows(self._columns, self._rows, self._beyond, folded)

    def _cut(self) -> None:
        if len(self._rows) <= self._limit.rows:
            return
        if self._order:
            self._rows.sort(key=lambda row: [(row[at] is not None, row[at] or b"") for at in self._order])
        for row in self._rows[self._limit.rows :]:
            for position, sums in self._folded.values():
                sums.take(row[position], self._columns[position].oid)
        self._beyond += len(self._rows) - self._limit.rows
        del self._rows[self._limit.rows :]
