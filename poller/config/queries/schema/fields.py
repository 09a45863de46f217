"""Base model of all parts of a query file: strict keys and conversion to a definition."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from poller.model.duration import DURATION, SECONDS_ALONE, parse_duration


class MisfitError(ValueError):
    """Two keys of one definition do not fit together; `keys` are those to look at, the likeliest first."""

    def __init__(self, what: str, *keys: str) -> None:
        super().__init__(what)
        self.keys = keys


@dataclass(frozen=True, slots=True)
class AlsoText:
    """A number that may be written as a text of this pattern, as JSON Schema is told."""

    pattern: str

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [handler(core), {"type": "string", "pattern": self.pattern}]}


def whole(pattern: re.Pattern[str], unless: str = "") -> str:
    """A pattern for a JSON Schema: one that a text fits as a whole, and does not begin with `unless`."""
    return f"^{f'(?!{unless})' if unless else ''}(?:{pattern.pattern})$"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    AlsoText(rf"^\s*(?:{DURATION.pattern}|{SECONDS_ALONE.pattern.removeprefix('-?')})\s*$"),
]
"""Seconds; written `30s`, `5m`, `1h30m` or as a number of seconds."""


class Part(BaseModel):
    """What all of them have in common: frozen, and an unknown key is a mistake."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", coerce_numbers_to_str=True, hide_input_in_errors=True
    )

    def parts(self) -> dict[str, Any]:
        """Every key and its value, the parts in it as the definitions that they make."""
        return {name: _made(getattr(self, name)) for name in type(self).model_fields}

    def definition(self) -> object:
        """What the poller runs of it."""
        raise NotImplementedError


def _made(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_made, value))
    return value.definition() if isinstance(value, Part) else value
