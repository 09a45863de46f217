"""A query may change PostgreSQL settings that weaken no safeguard, within bounds."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from poller.config.queries.schema.server_settings import ALLOWED, AS_SERVER_SETTINGS, setting_value
from poller.postgres.transaction import TransactionLimits, TransactionStatements
from tests.bed.definitions import a_query
from tests.bed.process import ROOT

NAMES = st.sampled_from(sorted(ALLOWED))
SCALARS = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(-10, 2**70),
    st.floats(),
    st.sampled_from(["on", "off", "auto", "1GB", "1025MB", "64kB", "63kB", "0.3", "1e3", "UTC", "a, b", ""]),
    st.text(max_size=12),
    st.lists(st.integers(), max_size=1),
)


def accepted(name: str, value: object) -> str | None:
    try:
        return setting_value(name, value)
    except ValueError:
        return None


@given(NAMES, SCALARS)
def test_the_schema_accepts_every_accepted_value(name: str, value: Any) -> None:
    """Except numbers in quotes."""
    text = accepted(name, value)
    if text is None or (isinstance(value, str) and ALLOWED[name].json.get("type") in ("number", "integer")):
        return
    assert not [*Draft202012Validator(AS_SERVER_SETTINGS).iter_errors({name: value})]
    assert re.fullmatch(r"[^\0-\x1f\x7f]+", text)


@given(st.text(max_size=60), SCALARS)
def test_no_other_name_is_accepted(name: str, value: Any) -> None:
    if name not in ALLOWED:
        with pytest.raises(ValueError, match="; "):
            setting_value(name, value)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        (
            "work_mem",
            ["64kB", 64, "1GB", "1024 MB", 1048576],
            ["63kB", 63, "1025MB", 1048577, "1TB", "1gb", "-1"],
        ),
        ("effective_cache_size", ["8kB", 1, "16TB"], [0, "7kB", "17TB"]),
        ("hash_mem_multiplier", [1, 1.5, "4"], [0.9, 4.1, "x"]),
        ("max_parallel_workers_per_gather", [0, 8, 4.0], [-1, 9, 1.5]),
        ("jit_above_cost", [-1, 1e10, 1e-5], [-2, 1e11, float("nan"), float("inf")]),
        ("jit", [True, False, "on", "off"], ["yes", 1, None]),
        ("plan_cache_mode", ["auto"], ["AUTO", True]),
        ("search_path", ["tenant_a", '"A b", public', "$user"], ["", "a\nb", "x" * 1025, True, None, ["a"]]),
        ("TimeZone", ["UTC", "Europe/Berlin"], ["", False, 2, "Mars", "<+02>-2", "../UTC", "Europe"]),
    ],
)
def test_the_bounds_of_a_setting(name: str, good: list[object], bad: list[object]) -> None:
    assert [value for value in good if accepted(name, value) is None] == []
    assert [value for value in bad if accepted(name, value) is not None] == []


def test_no_setting_that_the_poller_sets_is_allowed() -> None:
    statements = TransactionStatements(TransactionLimits(1.0), 10.0)
    opening = " ".join(
        part for statement in statements.opening("SELECT 1") for part in (*statement.preceding, statement.sql)
    )
    own = set(re.findall(r"set_config\('(\w+)'", opening)) | set(re.findall(r"SET LOCAL (\w+)", opening))
    assert len(own) > 12
    assert not own & ALLOWED.keys()


def test_every_allowed_setting_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "query-file.md").read_text(encoding="utf-8")
    _, _, section = page.partition("\n## Settings\n")
    names = set(re.findall(r"`([\w.]+)`", section.partition("\n## ")[0]))
    assert [name for name in ALLOWED if name not in names and not name.startswith("enable_")] == []


def test_the_digest_depends_on_the_settings_and_is_unchanged_without_them() -> None:
    plain, path = a_query(), a_query(settings={"search_path": "a"})
    assert (
        plain.digest == a_query(settings={}).digest != path.digest != a_query(settings={"jit": "off"}).digest
    )
