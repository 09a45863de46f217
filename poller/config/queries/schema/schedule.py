"""Types of the keys `schedule` and `timezone` of a query."""

from __future__ import annotations

import re
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field

from poller.config.fields import whole
from poller.model.schedule import MAX_LENGTH, parse_schedule
from poller.model.text import did_you_mean, quote

_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,32}(?:/[A-Za-z0-9_+-]{1,32}){0,2}")
AS_TIME_ZONE = whole(_ZONE)
"""JSON Schema pattern of the name of a time zone."""
_EXPRESSION = re.compile(r"\s*(?:@[A-Za-z]+|[^\s@]\S*(?:\s+\S+){4})\s*")


def time_zone(name: str) -> str:
    """Return the name of a time zone of this system; raises ValueError."""
    try:
        if _ZONE.fullmatch(name):
            return ZoneInfo(name).key
    except (OSError, ValueError, LookupError):  # no such file, a folder, or another kind of file
        pass
    # Abbreviations such as EST are names as well, and similar to others of another offset.
    names = [zone for zone in available_timezones() if "/" in zone]
    advice = did_you_mean(name, names) or "; write a name such as Europe/Berlin"
    raise ValueError(f"{quote(name)} is not a time zone of this system{advice}")


Cron = Annotated[
    str,
    AfterValidator(parse_schedule),
    Field(json_schema_extra={"pattern": whole(_EXPRESSION), "maxLength": MAX_LENGTH}),
]
"""Expression of cron with five fields, or a macro such as `@daily`."""
TimeZone = Annotated[str, AfterValidator(time_zone), Field(json_schema_extra={"pattern": AS_TIME_ZONE})]
"""Name of a time zone in the tz database of the system."""
