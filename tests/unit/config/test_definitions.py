"""Definitions of queries, metrics and targets: validated, with durations as in a file, and immutable."""

from __future__ import annotations

from dataclasses import MISSING, FrozenInstanceError, fields
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from poller.config.fields import MisfitError, Part
from poller.config.queries.schema.alert import DeclaredAlert
from poller.config.queries.schema.estimate import DeclaredEstimate
from poller.config.queries.schema.metric import DeclaredMetric
from poller.config.queries.schema.query import DeclaredQuery
from poller.config.queries.schema.requirements import DeclaredRequirements
from poller.config.settings import SETTINGS
from poller.config.targets.schema import DeclaredDatabases, DeclaredTarget
from poller.model.duration import format_duration, parse_duration
from poller.model.errors import PollError
from poller.model.query import NO_PARAMETERS, Alert, Estimate, MetricDefinition, QueryDefinition, Requirements
from poller.model.result import PollResult
from poller.model.target import Databases, Target

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

METRIC: dict[str, Any] = {"name": "n", "description": "N.", "unit": "1", "value_column": "n"}
QUERY: dict[str, Any] = {"name": "q", "sql": "SELECT 1 AS n", "metrics": [METRIC]}
NOT_A_NAME = (
    "'5' is not a metric name; write lower-case letters, digits, _ and ., starting with a letter, at most 255"
)
INSTEAD = "write one like 30s, 5m or 1h30m"


def refusals(model: type[DeclaredMetric | DeclaredQuery | DeclaredRequirements], **keys: Any) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(keys)
    return [str(error_of_key["ctx"]["error"]) for error_of_key in caught.value.errors()]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30s", 30),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        (" 90 s ", 90),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("1d", 86400),
        ("90", 90),
        (90, 90),
        (0.5, 0.5),
        ("0.5", 0.5),
        (-5, -5),
    ],
)
def test_a_duration_is_read_as_seconds(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("often", f"'often' is not a duration; {INSTEAD}"),
        ("12:30:00", f"'12:30:00' is not a duration; {INSTEAD}"),
        ("5 minutes", f"'5 minutes' is not a duration; {INSTEAD}"),
        ("1 0s", f"'1 0s' is not a duration; {INSTEAD}"),
        ("5M", f"'5M' is not a duration; {INSTEAD}"),
        ("٣s", f"'٣s' is not a duration; {INSTEAD}"),
        ("9" * 400, f"'{'9' * 57}...' is not a duration; {INSTEAD}"),
        (True, f"true is not a duration; {INSTEAD}"),
        (float("nan"), f"nan is not a duration; {INSTEAD}"),
        (float("inf"), f"inf is not a duration; {INSTEAD}"),
        (10**400, f"a number of more than 60 digits is not a duration; {INSTEAD}"),
        ([5], f"a list is not a duration; {INSTEAD}"),
        ({"m": 5}, f"a mapping is not a duration; {INSTEAD}"),
        (None, f"is empty; {INSTEAD}"),
        ("", f"is empty; {INSTEAD}"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_an_invalid_duration_is_rejected_with_an_example(written: object, message: str) -> None:
    with pytest.raises(ValueError, match=r"duration|empty") as caught:
        parse_duration(written)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (300, "5m"),
        (5400, "1h30m"),
        (0.25, "250ms"),
        (0.001, "1ms"),
        (0, "0s"),
        (1, "1s"),
        (90.5, "1m30.5s"),
        (86400, "24h"),
        (172800, "2d"),
        (-5, "-5s"),
        (60, "1m"),
    ],
)
def test_seconds_are_formatted_as_in_a_query_file(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=10**6))
def test_a_formatted_duration_is_parsed_as_the_same_duration(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"name": "5"},
            NOT_A_NAME,
        ),
        (
            {"name": "poller.polls"},
            "'poller.polls' begins with poller., which the poller reserves; rename it",
        ),
        ({"description": " "}, "is blank; write a sentence that explains the number"),
        ({"unit": "bytes"}, "'bytes' is not a UCUM unit; write 'By'"),
        ({"attribute_columns": ["n"]}, "column 'n' is also the value_column; keep one of the two"),
        ({"attribute_columns": ["a", "a"]}, "column 'a' is listed twice; keep one"),
        (
            {"attribute_columns": ["a.b", "a_b"]},
            "'a.b' and 'a_b' become the same label in Prometheus; rename one",
        ),
        (
            {"attribute_columns": ["a"], "attributes": {"a": 1}},
            "'a' is also in attribute_columns; keep one of the two",
        ),
        (
            {"attribute_columns": ["a.b"], "attributes": {"a_b": 1}},
            "'a.b' and 'a_b' become the same label in Prometheus; rename one",
        ),
        ({"attributes": {"a": float("nan")}}, "is nan, which cannot be exported; write a text"),
        ({"attributes": {"a": 2**63}}, "is an integer beyond 64 bits; write it in quotes"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_metric_that_could_not_be_exported_is_rejected(keys: dict[str, Any], message: str) -> None:
    assert refusals(DeclaredMetric, **METRIC | keys) == [message]


def test_static_attributes_keep_their_types() -> None:
    written = {"text": "1", "whole": 1, "real": 1.0, "truth": True, "least": -(2**63)}
    metric = DeclaredMetric.model_validate(METRIC | {"attributes": written})
    assert [(value, type(value)) for value in metric.attributes.values()] == [
        (value, type(value)) for value in written.values()
    ]


def test_a_unit_written_as_a_number_is_a_unit() -> None:
    assert DeclaredMetric.model_validate(METRIC | {"unit": 1}).unit == "1"


@pytest.mark.parametrize("version", [">=14", ">= 14, <18", "==15.4"])
def test_a_version_range_is_accepted(version: str) -> None:
    assert DeclaredRequirements(server_version=version).server_version == version


@pytest.mark.parametrize("version", ["14", ">=", "~=14", ">=14 <18", "v14"])
def test_an_invalid_version_range_is_rejected(version: str) -> None:
    assert refusals(DeclaredRequirements, server_version=version) == [
        f"{version!r} is not a version range; write one like >=14 or >=14,<18"
    ]


def test_contradictory_limits_are_all_reported_with_their_keys() -> None:
    with pytest.raises(ValidationError) as caught:
        DeclaredQuery.model_validate(
            QUERY | {"interval": "10s", "timeout": "20s", "max_age": "5s", "group": ""}
        )
    misfits = [item["ctx"]["error"] for item in caught.value.errors() if "error" in item.get("ctx", {})]
    assert all(isinstance(misfit, MisfitError) for misfit in misfits)
    assert [misfit.keys for misfit in misfits] == [("interval", "timeout"), ("max_age", "interval")]
    assert [str(misfit) for misfit in misfits] == [
        "interval 10s is shorter than timeout 20s; write an interval of at least 20s, or a shorter timeout",
        (
            "max_age 5s is shorter than interval 10s, so values would expire before the next poll; "
            "write at least 10s"
        ),
    ]


@pytest.mark.parametrize(
    ("declared", "definition"),
    [
        (DeclaredQuery, QueryDefinition),
        (DeclaredMetric, MetricDefinition),
        (DeclaredRequirements, Requirements),
        (DeclaredEstimate, Estimate),
        (DeclaredAlert, Alert),
        (DeclaredDatabases, Databases),
        (DeclaredTarget, Target),
    ],
)
def test_every_declared_key_is_in_the_definition_with_the_same_default(
    declared: type[Part], definition: type[DataclassInstance]
) -> None:
    """There are two of each, because the daemon must load neither pydantic nor the texts of the schema."""
    # Discovery sets the database and its OID.
    discovered = ("database", "oid") if definition is Target else ()
    definition_fields = {
        field.name: field for field in fields(definition) if field.compare and field.name not in discovered
    }
    # A schedule includes its time zone, and a histogram becomes metrics.
    without = ("timezone", "histogram")
    declared_fields = {name: field for name, field in declared.model_fields.items() if name not in without}
    # Each target has identity and defaults from two models, in another order.
    assert set(definition_fields) == set(declared_fields)
    for name, field in declared_fields.items():
        if definition is Target and name in SETTINGS:
            continue  # the default is that of the setting
        default = MISSING if field.default is PydanticUndefined else field.default
        if name == "parameters":
            default = NO_PARAMETERS
        assert definition_fields[name].default == default, name
        assert (definition_fields[name].default_factory is MISSING) == (field.default_factory is None), name


def test_a_definition_cannot_be_changed() -> None:
    query = DeclaredQuery.model_validate(QUERY)
    with pytest.raises(ValidationError):
        query.interval = 1.0
    with pytest.raises(FrozenInstanceError):
        query.definition().interval = 1.0  # type: ignore[misc]


def test_a_result_contains_the_kind_of_its_error() -> None:
    query = DeclaredQuery.model_validate(QUERY)
    failed = PollResult(query.definition(), 0.0, 0.0, "failed", error=PollError("timeout", "took too long"))
    assert failed.error_type == "timeout"
    assert PollResult(query.definition(), 0.0, 0.0, "ok").error_type is None
