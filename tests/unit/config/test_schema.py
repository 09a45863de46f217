"""The JSON Schema accepts every valid query file, rejects most invalid ones, and describes every key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from poller.config.queries.files import holds_cases
from poller.config.queries.load import load
from poller.config.queries.schema.json_schema import as_text, schema
from poller.config.yaml_file import read
from poller.model.catalog import Defaults
from tests.bed.documentation import all_blocks
from tests.bed.process import ROOT, Process
from tests.unit.config.test_catalog import CATALOGS, MISTAKES

Start = Callable[..., Process]

SHIPPED = sorted(
    file
    for file in [*(ROOT / "queries").rglob("*.yaml"), *(ROOT / "deploy").rglob("queries/*.yaml")]
    if not holds_cases(file)
)
GOOD = [*sorted(CATALOGS.glob("valid-*.yaml")), *SHIPPED]

NOT_YAML: set[str] = {
    # The file contains no data for a schema, or the parser drops the mistake.
    "alias-bomb", "alias-recursive", "alias-unknown", "control-character", "duplicate-key", "indentation",
    "key-not-a-word", "merge-text", "merge-twice", "nested-too-deep", "not-utf8", "nul-escape",
    "several-documents", "syntax", "tab", "tag", "unquoted-percent", "unquoted-star", "unquoted-version",
}  # fmt: skip
OF_TWO_PLACES: set[str] = {
    # A key contradicts another, or a query contradicts another.
    "alert-twice", "attribute-column-is-value", "attribute-in-both", "attribute-labels-equal",
    "attribute-values-of-no-column", "attribute-values-too-many", "histogram-rows",
    "interval-under-timeout", "max-age-short",
    "metric-fed-twice", "metric-names-translate-equal", "metric-type-differs",
    "metric-unit-becomes-suffix", "metric-unit-differs", "query-twice", "timeout-over-default-interval",
}  # fmt: skip
OF_A_LANGUAGE: set[str] = {
    # SQL statements, units in UCUM, and the values of cron.
    "overflow-without-order", "parameters-attributes", "parameters-sql", "schedule-days", "sql-comment",
    "sql-explain", "sql-into", "sql-locks", "sql-parameter", "sql-several", "sql-syntax", "sql-writes",
    "sql-writes-in-with", "unit-unknown", "unit-word",
}  # fmt: skip
OF_SIZE: set[str] = {
    # Limits of durations with units, and numbers that JSON does not support.
    "attribute-value-huge", "attribute-value-infinite", "interval-long", "interval-short",
}  # fmt: skip
ONLY_CHECK_SEES = NOT_YAML | OF_TWO_PLACES | OF_A_LANGUAGE | OF_SIZE


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(schema())


def data_of(path: Path) -> Any:
    document = read(path)
    assert not isinstance(document, str), document
    return document.data


def errors(validator: Draft202012Validator, data: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(data)]


def test_the_schema_is_a_valid_json_schema() -> None:
    Draft202012Validator.check_schema(schema())


def test_the_packaged_file_is_current() -> None:
    """`poller schema --write poller/queries.schema.json` writes it."""
    assert (ROOT / "poller" / "queries.schema.json").read_text(encoding="utf-8") == as_text(schema())


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_every_valid_file_is_accepted(path: Path, validator: Draft202012Validator) -> None:
    assert errors(validator, data_of(path)) == []


def test_every_query_file_of_the_readme_is_valid(validator: Draft202012Validator, tmp_path: Path) -> None:
    for _, name, text in all_blocks("file"):
        if name.endswith((".yaml", ".yml")) and "queries:" in text:
            file = tmp_path / name.replace("/", "-")
            file.write_text(text, encoding="utf-8")
            assert errors(validator, data_of(file)) == [], name
            load([file], Defaults(300.0, 30.0, 1000))


@pytest.mark.parametrize("reason", sorted(set(MISTAKES) - ONLY_CHECK_SEES))
def test_an_invalid_file_is_rejected(reason: str, validator: Draft202012Validator) -> None:
    assert errors(validator, data_of(CATALOGS / f"invalid-{reason}.yaml"))


@pytest.mark.parametrize("reason", sorted(ONLY_CHECK_SEES - NOT_YAML))
def test_every_listed_mistake_needs_check(reason: str, validator: Draft202012Validator) -> None:
    assert errors(validator, data_of(CATALOGS / f"invalid-{reason}.yaml")) == []


def keys(document_schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield every key of a file: its path, its definition in the schema, and whether it is required."""
    for where, part in {"": document_schema, **document_schema["$defs"]}.items():
        for key, definition in part["properties"].items():
            yield f"{where}.{key}", definition, key in part.get("required", ())


def test_every_key_is_described_and_has_an_example_and_a_default_unless_it_is_required() -> None:
    document_schema = schema()
    for path, definition, required in keys(document_schema):
        assert re.search(r"\w.*\.$", definition.get("description", "")), path
        assert definition.get("examples"), path
        assert ("default" in definition) is not required, path
        alone = Draft202012Validator({"$defs": document_schema["$defs"], **definition})
        for example in [*definition["examples"], *([] if required else [definition["default"]])]:
            assert errors(alone, example) == [], path
    assert len(list(keys(document_schema))) > 35


METRIC = {"name": "n", "description": "N.", "unit": 1, "value_column": "n"}


@pytest.mark.parametrize(
    ("key", "accepted", "rejected"),
    [
        (
            "interval",
            [300, 1.5, "5m", "1h 30m", "90", " 2 d "],
            [0.5, 90000, "soon", "5 minutes", "-5s", True],
        ),
        ("timeout", ["250ms", 30], ["", "fast", 0]),
        ("max_series", [1, 1000, 1e3], [0, 1.5, 2_000_000, True]),
        ("name", ["a", "a.b-c_1"], ["A", "1a", "", 5, "a b"]),
        ("snapshot", [True, False], ["yes", 1]),
        ("group", ["x", 5], ["", None]),
        (
            "schedule",
            ["15 3 * * *", "@daily", " */5 8-17  * jan mon-fri ", None],
            ["", "5m", "1 2 3 4", 5, []],
        ),
    ],
)
def test_values_are_accepted_or_rejected(
    key: str, accepted: list[object], rejected: list[object], validator: Draft202012Validator
) -> None:
    query = {"name": "q", "sql": "SELECT 1 AS n", "metrics": [METRIC]}
    for value in accepted:
        assert errors(validator, {"queries": [{**query, key: value}]}) == [], value
    for value in rejected:
        assert errors(validator, {"queries": [{**query, key: value}]}), value


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_file_names_the_schema_for_editors(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    led = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert led, first
    assert (path.parent / led[1]).resolve() == ROOT / "poller" / "queries.schema.json"


def test_the_command_prints_it_or_writes_it(poller_process: Start, tmp_path: Path) -> None:
    printed = poller_process("schema")
    assert printed.wait() == 0, printed
    assert json.loads(printed.stdout) == schema()
    written = poller_process("schema", "--write", str(tmp_path / "s.json"))
    assert (written.wait(), written.stdout) == (0, "")
    assert (tmp_path / "s.json").read_text(encoding="utf-8") == as_text(schema())
    nowhere = poller_process("schema", "--write", str(tmp_path / "no" / "s.json"))
    assert nowhere.wait() == 2
    assert "cannot be written: No such file or directory; write another file" in nowhere.stderr
