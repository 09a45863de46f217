"""Closed attributes of a metric: undeclared values are rejected, and missing ones are filled with 0."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping

from poller.model.numbers import NotRepresentableError
from poller.model.query import NO_PARAMETERS, AttributeValue, MetricDefinition, Parameters
from poller.model.series import Key, key_of


class EnumeratedAttributes:
    """The closed attributes of one metric, and the values of its open attributes in one result."""

    def __init__(self, metric: MetricDefinition, parameters: Parameters = NO_PARAMETERS) -> None:
        self._values = metric.attribute_values
        known = {*self._values, *parameters[0]}
        # If no attribute is open, every set is known before the first row.
        self._open: dict[Key, None] = {}
        if self._values and known == set(metric.attribute_columns):
            self._open = dict.fromkeys(map(key_of, parameters))

    def see(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Record one row's attributes.

        Raises NotRepresentableError (`undeclared_value`) if a closed attribute is NULL or has an undeclared
        value.
        """
        if not self._values:
            return
        for name, values in self._values.items():
            if attributes.get(name) not in values:
                raise NotRepresentableError("undeclared_value")
        self._open[self._open_part(attributes)] = None

    def missing(self, present: Collection[Key]) -> Iterator[dict[str, AttributeValue]]:
        """Yield the declared sets without a row, for each set of open attributes that has a row.

        `seen` has the keys of all rows that `see` accepted, also of rows whose value was rejected later:
        these rows exist, so a 0 would be wrong.
        """
        names = list(self._values)
        for open_part in self._open:
            for combination in itertools.product(*self._values.values()):
                attributes = {**dict(open_part), **dict(zip(names, combination, strict=True))}
                if key_of(attributes) not in present:
                    yield attributes

    def count_missing(self, present: Collection[Key]) -> int:
        """Return the number of missing sets, without producing them."""
        if not self._values:
            return 0
        return len(self._open) * math.prod(map(len, self._values.values())) - len(present)

    def _open_part(self, attributes: Mapping[str, AttributeValue]) -> Key:
        return key_of({name: value for name, value in attributes.items() if name not in self._values})
