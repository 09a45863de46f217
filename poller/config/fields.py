"""Base model of the parts of query and targets files: strict keys and conversion to a definition."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from poller.model.duration import DURATION, SECONDS_ALONE, parse_duration
from poller.model.text import value_text


class MisfitError(ValueError):
    """Two keys of one definition contradict each other; `keys` names them, the likeliest mistake first."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


class ProblemsError(ValueError):
    """Several problems of one key; each is a ValueError or a MisfitError."""

    def __init__(self, problems: Sequence[ValueError]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


_MOST_PROBLEMS = 20


def raise_all(problems: Iterable[ValueError]) -> None:
    """Raise ProblemsError if there are problems, so that a validator reports more than its first one."""
    remaining = iter(problems)
    if listed := list(itertools.islice(remaining, _MOST_PROBLEMS)):
        if next(remaining, None) is not None:
            listed.append(ValueError("has more problems; correct these first"))
        raise ProblemsError(listed)


@dataclass(frozen=True, slots=True)
class AlsoText:
    """Annotation for the JSON Schema of a number that may also be written as a text of this pattern."""

    pattern: str

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [handler(core), {"type": "string", "pattern": self.pattern}]}


def whole(pattern: re.Pattern[str], unless: str = "") -> str:
    """Return a JSON Schema pattern that matches a whole text, unless it begins with `unless`."""
    return f"^{f'(?!{unless})' if unless else ''}(?:{pattern.pattern})$"


ENDLESS = 1e300
"""Limit of the numbers in a query file, far below the largest double, so that sums stay finite."""
AS_DURATION = AlsoText(rf"^\s*(?:{DURATION.pattern}|{SECONDS_ALONE.pattern.removeprefix('-?')})\s*$")
Duration = Annotated[float, BeforeValidator(parse_duration), AS_DURATION]
"""Seconds; written `30s`, `5m`, `1h30m` or as a number of seconds."""


def _not_a_boolean(value: object) -> object:
    # pydantic would read true as 1; the text gets its message for a text that is no number.
    return value_text(value) if isinstance(value, bool) else value


NOT_A_BOOLEAN = BeforeValidator(_not_a_boolean)
"""Annotation of a number, of which true and false are none."""


class Part(BaseModel):
    """Base model: immutable, and unknown keys are rejected."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", coerce_numbers_to_str=True, hide_input_in_errors=True
    )

    def parts(self) -> dict[str, Any]:
        """Return every key with its value; inner parts are converted to definitions."""
        return {name: _converted(getattr(self, name)) for name in type(self).model_fields}

    def definition(self) -> object:
        """Return the definition that the poller uses."""
        raise NotImplementedError


def _converted(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_converted, value))
    return value.definition() if isinstance(value, Part) else value
