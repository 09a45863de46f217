"""JSON Schema of query files, for completion and validation in editors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from poller.config.queries.schema.alert import DeclaredAlert
from poller.config.queries.schema.estimate import DeclaredEstimate
from poller.config.queries.schema.metric import DeclaredMetric
from poller.config.queries.schema.query import DeclaredQuery
from poller.config.queries.schema.requirements import DeclaredRequirements
from poller.model.duration import format_duration

JsonObject = dict[str, Any]

_MODELS: dict[str, type[BaseModel]] = {
    "QueryDefinition": DeclaredQuery,
    "MetricDefinition": DeclaredMetric,
    "Requirements": DeclaredRequirements,
    "Estimate": DeclaredEstimate,
    "Alert": DeclaredAlert,
}
"""The models by their names in the JSON Schema."""
_DATA = {"default", "examples", "enum", "const", "required"}
"""Keywords whose value is not a schema."""
_EXAMPLE = {
    "name": "users",
    "sql": "SELECT count(*) AS n FROM users",
    "metrics": [
        {"name": "users_total", "description": "Registered users.", "unit": "{user}", "value_column": "n"}
    ],
}


def schema() -> JsonObject:
    """Return the JSON Schema of query files, draft 2020-12.

    It rejects mistakes that can be found without SQL, UCUM, arithmetic or other queries; `poller check` finds
    the others. It is stricter than `check` only for numbers and booleans in quotes, which `check` accepts.
    """
    properties = {
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
    }
    description = "Queries that the poller runs, and the metrics that their rows feed."
    return document_schema("Query file", description, properties, _MODELS)


def as_text(document: JsonObject) -> str:
    """Return a schema as JSON text."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def document_schema(
    title: str, description: str, properties: JsonObject, models: Mapping[str, type[BaseModel]]
) -> JsonObject:
    """Return the JSON Schema of a file whose first property is required.

    `models` has the models of its parts by their names in the JSON Schema; the first contains the others.
    """
    names = {model.__name__: name for name, model in models.items()}
    definitions: JsonObject = {}
    for model in models.values():
        generated = model.model_json_schema()
        definitions |= {names[model.__name__]: generated}
        definitions |= {names[name]: part for name, part in generated.pop("$defs", {}).items()}
    for name, model in models.items():
        _complete(definitions[name], model)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": description,
        "type": "object",
        "properties": properties,
        "required": list(properties)[:1],
        "additionalProperties": False,
        "$defs": {name: _accept_numbers(definitions[name], names) for name in sorted(definitions)},
    }


def _complete(definition: JsonObject, model: type[BaseModel]) -> None:
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


def _accept_numbers(node: Any, names: Mapping[str, str]) -> Any:
    """Accept a number for every text without a pattern, as `check` does: `1` needs no quotes in YAML."""
    if isinstance(node, list):
        return [_accept_numbers(item, names) for item in node]
    if not isinstance(node, dict):
        return node
    loose = node.get("type") == "string" and not {"enum", "pattern"} & node.keys()
    inner = {key: item if key in _DATA else _accept_numbers(item, names) for key, item in node.items()}
    if (place := node.get("$ref")) is not None:
        inner["$ref"] = f"#/$defs/{names[place.rpartition('/')[2]]}"
    return {**inner, "type": ["string", "number"]} if loose else inner
