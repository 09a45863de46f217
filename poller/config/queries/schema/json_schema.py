"""JSON Schema of query files, for completion and validation in editors."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from poller.config.queries.schema.metric import DeclaredAlert, DeclaredMetric
from poller.config.queries.schema.query import DeclaredEstimate, DeclaredQuery, DeclaredRequirements
from poller.model.duration import format_duration

Json = dict[str, Any]

_MODELS: dict[str, type[BaseModel]] = {
    "QueryDefinition": DeclaredQuery,
    "MetricDefinition": DeclaredMetric,
    "Requirements": DeclaredRequirements,
    "Estimate": DeclaredEstimate,
    "Alert": DeclaredAlert,
}
"""The models by their names in the JSON Schema."""
_NAMES = {model.__name__: name for name, model in _MODELS.items()}
_DATA = {"default", "examples", "enum", "const", "required"}
"""Keywords whose value is not a schema."""
_EXAMPLE = {
    "name": "users",
    "sql": "SELECT count(*) AS n FROM users",
    "metrics": [
        {"name": "users_total", "description": "Registered users.", "unit": "{user}", "value_column": "n"}
    ],
}


def schema() -> Json:
    """Return the JSON Schema of query files, draft 2020-12.

    It rejects mistakes that can be found without SQL, UCUM, arithmetic or other queries; `poller check` finds
    the others. It is stricter than `check` only for numbers and booleans in quotes, which `check` accepts.
    """
    generated = DeclaredQuery.model_json_schema()
    schemas = {DeclaredQuery.__name__: generated, **generated.pop("$defs")}
    definitions: Json = {name: schemas[model.__name__] for name, model in _MODELS.items()}
    for name, model in _MODELS.items():
        _complete(definitions[name], model)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Query file",
        "description": "Queries that the poller runs, and the metrics that their rows feed.",
        "type": "object",
        "properties": {
            "queries": {
                "description": "The queries of the file.",
                "type": "array",
                "items": {"$ref": "#/$defs/QueryDefinition"},
                "minItems": 1,
                "examples": [[_EXAMPLE]],
            },
            "snapshot": {
                "description": "Default of `snapshot` for the queries of the file.",
                "type": "boolean",
                "default": True,
                "examples": [False],
            },
        },
        "required": ["queries"],
        "additionalProperties": False,
        "$defs": {name: _accept_numbers(definitions[name]) for name in sorted(definitions)},
    }


def as_text() -> str:
    """Return the schema as JSON text."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _complete(definition: Json, model: type[BaseModel]) -> None:
    """Add the defaults that pydantic omits, format durations, and remove pydantic's titles."""
    del definition["title"]
    for name, field in model.model_fields.items():
        key = definition["properties"][field.alias or name]
        key.pop("title", None)
        if field.is_required():
            continue
        key.setdefault("default", {})  # default factories return empty mappings, or parts with only defaults
        if isinstance(field.default, float):
            key["default"] = format_duration(field.default)


def _accept_numbers(node: Any) -> Any:
    """Accept a number for every text without a pattern, as `check` does: `1` needs no quotes in YAML."""
    if isinstance(node, list):
        return [_accept_numbers(item) for item in node]
    if not isinstance(node, dict):
        return node
    loose = node.get("type") == "string" and not {"enum", "pattern"} & node.keys()
    inner = {key: item if key in _DATA else _accept_numbers(item) for key, item in node.items()}
    if (place := node.get("$ref")) is not None:
        inner["$ref"] = f"#/$defs/{_NAMES[place.rpartition('/')[2]]}"
    return {**inner, "type": ["string", "number"]} if loose else inner
