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
"""By the name that the schema has for them."""
_NAMES = {model.__name__: name for name, model in _MODELS.items()}
_DATA = {"default", "examples", "enum", "const", "required"}
"""Keywords whose value is no schema."""
_EXAMPLE = {
    "name": "users",
    "sql": "SELECT count(*) AS n FROM users",
    "metrics": [
        {"name": "users_total", "description": "Registered users.", "unit": "{user}", "value_column": "n"}
    ],
}


def schema() -> Json:
    """What a query file may hold, in JSON Schema, draft 2020-12.

    It refuses what can be seen without SQL, UCUM, arithmetic or another query; `poller check` finds the rest.
    It is stricter only where numbers and truth values stand in quotes, which `check` takes for them.
    """
    told = DeclaredQuery.model_json_schema()
    found = {DeclaredQuery.__name__: told, **told.pop("$defs")}
    definitions: Json = {name: found[model.__name__] for name, model in _MODELS.items()}
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
                "description": "What `snapshot` is for those queries of the file that do not say it.",
                "type": "boolean",
                "default": True,
                "examples": [False],
            },
        },
        "required": ["queries"],
        "additionalProperties": False,
        "$defs": {name: _as_yaml_is(definitions[name]) for name in sorted(definitions)},
    }


def as_text() -> str:
    """The schema as the text of a file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _complete(told: Json, model: type[BaseModel]) -> None:
    """Add the defaults that pydantic leaves out, say durations as people do, and take out its titles."""
    del told["title"]
    for name, field in model.model_fields.items():
        key = told["properties"][field.alias or name]
        key.pop("title", None)
        if field.is_required():
            continue
        key.setdefault("default", {})  # what is made anew for each is an empty mapping or made of defaults
        if isinstance(field.default, float):
            key["default"] = format_duration(field.default)


def _as_yaml_is(told: Any) -> Any:
    """With a number wherever any text may stand: in YAML `1` needs no quotes, and `check` asks for none."""
    if isinstance(told, list):
        return [_as_yaml_is(one) for one in told]
    if not isinstance(told, dict):
        return told
    loose = told.get("type") == "string" and not {"enum", "pattern"} & told.keys()
    inner = {key: one if key in _DATA else _as_yaml_is(one) for key, one in told.items()}
    if (place := told.get("$ref")) is not None:
        inner["$ref"] = f"#/$defs/{_NAMES[place.rpartition('/')[2]]}"
    return {**inner, "type": ["string", "number"]} if loose else inner
