"""Units are checked against UCUM, and an invalid unit is rejected with the correct unit."""

from __future__ import annotations

import pytest

from poller.model.units import unit_problem

IN_BRACES = "is not a UCUM unit; for a count of things write the thing in braces:"
ANY = "is not a UCUM unit; write one like 'By', 's', '%', '1' or '{message}'"


@pytest.mark.parametrize(
    "unit",
    [
        "",
        "1",
        "%",
        "s",
        "ms",
        "us",
        "min",
        "h",
        "d",
        "By",
        "kBy",
        "KiBy",
        "GiBy",
        "bit",
        "Cel",
        "Hz",
        "{message}",
        "{one-time key}",
        "By/s",
        "{request}/s",
        "1/s",
        "Mbit/s",
        "By{payload}",
        "{a/b}/s",
        "{0}",
    ],
)
def test_a_unit_of_ucum_is_accepted(unit: str) -> None:
    assert unit_problem(unit) is None


@pytest.mark.parametrize(
    ("unit", "message"),
    {
        "bytes": "'bytes' is not a UCUM unit; write 'By'",
        "B": "'B' is not a UCUM unit; write 'By'",
        "KB": "'KB' is not a UCUM unit; write 'kBy'",
        "GIB": "'GIB' is not a UCUM unit; write 'GiBy'",
        "Seconds": "'Seconds' is not a UCUM unit; write 's'",
        "S": "'S' is not a UCUM unit; write 's'",
        "MS": "'MS' is not a UCUM unit; write 'ms'",
        "percent": "'percent' is not a UCUM unit; write '%'",
        "ratio": "'ratio' is not a UCUM unit; write '1'",
        "message": f"'message' {IN_BRACES} '{{message}}'",
        "Messages": f"'Messages' {IN_BRACES} '{{message}}'",
        "queries": f"'queries' {IN_BRACES} '{{query}}'",
        "status": f"'status' {IN_BRACES} '{{status}}'",
        "active users": f"'active users' {IN_BRACES} '{{active_user}}'",
        "messages/s": f"'messages/s' {ANY}",
        "{}": f"'{{}}' {ANY}",
        "{ a}": f"'{{ a}}' {ANY}",
        "{a}{b}": f"'{{a}}{{b}}' {ANY}",
        "{größe}": f"'{{größe}}' {ANY}",
        "{message": f"'{{message' {ANY}",
        "/s": f"'/s' {ANY}",
        "s/": f"'s/' {ANY}",
        "s//s": f"'s//s' {ANY}",
        "10^3": f"'10^3' {ANY}",
        "x" * 64: "has 64 characters; OpenTelemetry allows 63",
    }.items(),
)
def test_any_other_unit_is_rejected_with_the_correct_unit(unit: str, message: str) -> None:
    assert unit_problem(unit) == message
