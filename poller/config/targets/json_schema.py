"""JSON Schema of targets files, for completion and validation in editors."""

from __future__ import annotations

from pydantic import BaseModel

from poller.config.queries.schema.json_schema import JsonObject, document_schema
from poller.config.targets.schema import DeclaredDatabases, DeclaredDefaults, DeclaredTarget


def schema() -> JsonObject:
    """Return the JSON Schema of targets files, draft 2020-12.

    It rejects mistakes that can be found without other keys, other targets, connection strings and units of
    durations; `poller check` finds the others.
    """
    properties = {
        "targets": {
            "description": "The targets of the file.",
            "type": "array",
            "items": {"$ref": "#/$defs/Target"},
            "minItems": 1,
            "examples": [[{"name": "eu-1", "url": "postgresql://poller@replica:5432/app"}]],
        },
        "defaults": {
            "description": "Keys of every target of the file that does not declare them itself.",
            "$ref": "#/$defs/Defaults",
            "default": {},
            "examples": [{"connections": 2}],
        },
    }
    models: dict[str, type[BaseModel]] = {
        "Target": DeclaredTarget,
        "Defaults": DeclaredDefaults,
        "Databases": DeclaredDatabases,
    }
    return document_schema("Targets file", "Databases that the poller polls.", properties, models)
