"""Closed attributes of a metric: undeclared values are rejected, and missing ones are filled with 0."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping

from poller.model.numbers import NotTellableError
from poller.model.query import AttributeValue, MetricDefinition
from poller.model.series import Key, key_of


class Closed:
    """The closed attributes of one metric, and what one result showed of the open ones beside them."""

    def __init__(self, metric: MetricDefinition) -> None:
        self._values = metric.attribute_values
        self._all_closed = set(metric.attribute_columns) == set(self._values)
        # Where no attribute is open, every set is known before the first row.
        self._open: dict[Key, None] = {(): None} if self._values and self._all_closed else {}

    def see(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Take note of one row's attributes.

        Raises NotTellableError (`undeclared_value`) where one has a value that is not declared for it, or is
        NULL.
        """
        if not self._values:
            return
        for name, values in self._values.items():
            if attributes.get(name) not in values:
                raise NotTellableError("undeclared_value")
        self._open[self._open_part(attributes)] = None

    def missing(self, seen: Collection[Key]) -> Iterator[dict[str, AttributeValue]]:
        """The declared sets that no row had, for each set of open attributes that one had.

        `seen` are the keys of all rows that `see` let pass; one that was refused for its value is among them,
        as there is a row and 0 would not be true.
        """
        names = list(self._values)
        for open_part in self._open:
            for combination in itertools.product(*self._values.values()):
                attributes = {**dict(open_part), **dict(zip(names, combination, strict=True))}
                if key_of(attributes) not in seen:
                    yield attributes

    def count_missing(self, seen: Collection[Key]) -> int:
        """How many these are, however many."""
        if not self._values:
            return 0
        return len(self._open) * math.prod(map(len, self._values.values())) - len(seen)

    def _open_part(self, attributes: Mapping[str, AttributeValue]) -> Key:
        return key_of({name: value for name, value in attributes.items() if name not in self._values})
