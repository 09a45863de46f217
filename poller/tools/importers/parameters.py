"""Parameters of query-exporter's queries, as parameters of a query file.

query-exporter writes the values into the SQL as literals; a query file binds them, and makes them attributes.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from poller.config.queries.sql_ast import parameter_columns
from poller.config.queries.sql_parameters import replace_parameters, to_placeholders
from poller.tools.importers.draft import DraftQuery
from poller.tools.importers.node import SourceNode
from poller.tools.importers.sql_projection import literal

_PARAMETER = re.compile(r":(\w+)")


def bind_parameters(draft: DraftQuery, node: SourceNode) -> bool:
    """Give the query its parameters; report and return whether they can be converted."""
    draft.sql = draft.sql.replace("\\:", ":")
    if "parameters" not in node:
        return True
    names = [
        name
        for name in dict.fromkeys(_PARAMETER.findall(draft.sql))
        if replace_parameters(draft.sql, {name: ""}) != draft.sql
    ]
    parameters = node.child("parameters").value
    lists = parameters.values() if isinstance(parameters, dict) else [parameters]
    if not lists or not all(map(_is_list_of_sets, lists)):
        message = "a set of parameters is not a mapping of names to values"
        node.report_loss("parameters", message, "write for example `[{state: queued}, {state: sent}]`")
        return False
    runs = []
    for number, values in enumerate(_parameter_sets(node), 1):
        wrong = [name for name in names if isinstance(values.get(name, []), list | dict)]
        if wrong:
            message = f"set {number} has no single value for {', '.join(wrong)}"
            node.report_loss("parameters", message, "write one value for each parameter in the SQL")
        else:
            runs.append({name: values[name] for name in names})
    if not runs:
        return False
    constant = {name: literal(runs[0][name]) for name in names if _is_constant([run[name] for run in runs])}
    draft.sql = replace_parameters(draft.sql, constant)
    if names := [name for name in names if name not in constant]:
        _bind(draft, names, {tuple(run[name] for name in names): None for run in runs})
        node.report_change("parameters", f"the metrics have the attributes {', '.join(draft.parameters[0])}")
    return True


def _bind(draft: DraftQuery, names: Sequence[str], runs: Mapping[tuple[Any, ...], None]) -> None:
    columns = parameter_columns(to_placeholders(draft.sql, names))
    renamed = [
        name if _is_free(name, draft, columns.get(name) == number) else f"{name}_parameter"
        for number, name in enumerate(names, 1)
    ]
    typed = {
        name: f":{new}{_cast(values)}"
        for name, new, values in zip(names, renamed, zip(*runs, strict=True), strict=True)
    }
    draft.sql = to_placeholders(replace_parameters(draft.sql, typed), renamed)
    draft.parameters = tuple(dict(zip(renamed, values, strict=True)) for values in runs)
    for metric in draft.metrics:
        # The parameter is the attribute, without the column.
        metric.attribute_columns = tuple(name for name in metric.attribute_columns if name not in renamed)


def _is_free(name: str, draft: DraftQuery, same: bool) -> bool:
    """Whether a parameter can keep its name; `same`: a column of that name has its value."""
    return not any(
        name in (metric.value_column, *metric.attributes) or (name in metric.attribute_columns and not same)
        for metric in draft.metrics
    )


def _is_constant(values: Sequence[Any]) -> bool:
    """Whether all values are the same NULL or special number, which a query file cannot list."""
    first = values[0]
    special = first is None or (isinstance(first, float) and not math.isfinite(first))
    return special and len(set(map(repr, values))) == 1


def _cast(values: Sequence[Any]) -> str:
    """Return the type of numbers and booleans, which query-exporter writes without quotes."""
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return "::boolean"
    if kinds == {int}:
        return "::int" if all(-(2**31) <= value < 2**31 for value in values) else "::bigint"
    return "::numeric" if kinds <= {int, float} else ""


def _is_list_of_sets(value: object) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(item, dict) for item in value)


def _parameter_sets(node: SourceNode) -> list[dict[str, Any]]:
    value = node.child("parameters").value
    if not isinstance(value, dict):
        return [item.value for item in node.items("parameters")]
    axes = [
        [{f"{axis}__{key}": item for key, item in values.items()} for values in sets]
        for axis, sets in value.items()
    ]
    return [{key: item for part in parts for key, item in part.items()} for parts in itertools.product(*axes)]
