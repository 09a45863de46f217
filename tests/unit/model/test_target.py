"""A query selects targets by their tags and names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.config.settings import SETTINGS
from poller.config.targets.schema import OF_SETTINGS, DeclaredTarget
from poller.model.diagnostics import Diagnostic
from poller.model.target import SYSTEM_DATABASES, Databases, Target, can_match
from tests.bed.definitions import a_query

NAMES = st.from_regex(r"[a-c][0-9]?", fullmatch=True)


SELECTORS = st.lists(st.builds(str.__add__, st.sampled_from(["", "!", "name:", "!name:"]), NAMES))


def a_target(name: str, tags: Sequence[str] = ()) -> Target:
    return DeclaredTarget.model_validate({"name": name, "url": "host=h", "tags": list(tags)}).definition()


@given(name=NAMES, tags=st.lists(NAMES), selectors=SELECTORS)
def test_selectors_do_not_depend_on_their_order_and_a_negation_always_excludes(
    name: str, tags: list[str], selectors: list[str]
) -> None:
    target = a_target(name, tags)

    def selects(chosen: Sequence[str]) -> bool:
        return target.selects(a_query(targets=list(chosen)))

    assert selects(selectors) == selects(selectors[::-1]) == selects([*selectors, *selectors])
    for selector in selectors:
        text = selector.removeprefix("!")
        assert not selects([text, f"!{text}"])
        assert selects([text]) != selects([f"!{text}"])
        assert not (selects([*selectors, f"!{text}"]) and selects([text]))
    positive = [selector for selector in selectors if not selector.startswith("!")]
    if len(positive) == len(selectors) > 0:
        assert selects(selectors) == any(selects([selector]) for selector in selectors)


def test_a_tag_selects_no_name_and_a_pattern_no_tag() -> None:
    target = a_target("eu-1", ["messaging"])
    assert target.selects(a_query())
    assert target.selects(a_query(targets=["messaging"]))
    assert target.selects(a_query(targets=["name:eu-*"]))
    assert not target.selects(a_query(targets=["eu-1"]))
    assert not target.selects(a_query(targets=["name:messaging"]))


IN_FILE = DeclaredTarget.model_validate({"name": "eu-1", "url_file": "eu-1.url"}).definition()


@pytest.mark.parametrize(
    ("message", "of_target"),
    [
        ("raise POLLER_CONNECT_TIMEOUT", "raise `connect_timeout` of target eu-1"),
        ("POLLER_STRICT is set", "`strict` of target eu-1 is set"),
        (
            "point POLLER_DATABASE_URL at a standby, or set POLLER_REQUIRE_STANDBY=false",
            "point `url` at a standby, or set `require_standby: false` of target eu-1",
        ),
        (
            "set one in POLLER_DATABASE_URL_FILE, PGPASSFILE or POLLER_PASSWORD_COMMAND",
            "set one in `url_file`, PGPASSFILE or `password_command` of target eu-1",
        ),
        ("raise POLLER_MAX_RESULT_SIZE", "raise POLLER_MAX_RESULT_SIZE"),
    ],
)
def test_a_message_about_a_target_has_the_keys_of_its_file_instead_of_variables(
    message: str, of_target: str
) -> None:
    target = a_target("eu-1")
    assert target.with_keys(message) == of_target
    assert replace(target, name="").with_keys(message) == message
    assert IN_FILE.with_keys(message) == of_target.replace("`url`", "`url_file`")
    assert target.of_database("t_042").with_keys(message) == of_target


def test_every_setting_that_a_target_overrides_is_replaced_by_its_key() -> None:
    for name in (*OF_SETTINGS, "password_command"):
        assert a_target("eu-1").with_keys(SETTINGS[name].variables[0]) == f"`{name}` of target eu-1"


def test_a_diagnostic_of_a_target_has_the_target_and_its_keys_in_message_and_advice() -> None:
    diagnostic = Diagnostic(
        "error", "standby", "POLLER_REQUIRE_STANDBY is true", "correct POLLER_DATABASE_URL"
    )
    of_target = IN_FILE.of_diagnostic(diagnostic)
    assert of_target.target == "eu-1"
    assert of_target.message == "`require_standby` of target eu-1 is true"
    assert of_target.advice == "correct `url_file` of target eu-1"


@given(prefix=st.text("ab/", max_size=3), pattern=st.text("ab/*?[]!", max_size=4))
def test_a_pattern_can_match_a_prefix_if_and_only_if_it_matches_a_longer_text(
    prefix: str, pattern: str
) -> None:
    more = ("".join(letters) for length in range(1, 5) for letters in product("ab/*?[]!", repeat=length))
    assert can_match(pattern, prefix) == any(fnmatchcase(prefix + text, pattern) for text in more)


DATABASES = st.sets(st.text(alphabet="ab_*?[]\n'ä", max_size=3) | st.sampled_from(sorted(SYSTEM_DATABASES)))
PATTERNS = st.lists(st.sampled_from(["*", "a*", "?", "b", "rdsadmin", "*admin", "[ab]", "[[]", "\n*"]))


@given(names=DATABASES, include=PATTERNS, exclude=PATTERNS, limit=st.integers(1, 5))
def test_a_database_is_selected_by_include_unless_exclude_matches_and_the_first_by_name_within_the_limit(
    names: set[str], include: list[str], exclude: list[str], limit: int
) -> None:
    selected = Databases(include=tuple(include), exclude=tuple(exclude), limit=limit).select(names)
    assert list(selected.names) == sorted(selected.names)
    assert len(selected.names) <= limit
    assert not selected.over_limit or len(selected.names) == limit
    assert sorted(selected.names + selected.excluded + selected.over_limit) == sorted(names)
    everything = Databases(include=tuple(include), exclude=tuple(exclude), limit=1000).select(names)
    assert everything.names[:limit] == selected.names
    for name in names:
        single = {
            pattern: Databases(include=(pattern,)).select([name]).names == (name,)
            for pattern in [*include, *exclude]
        }
        if name not in SYSTEM_DATABASES:
            included = any(single[pattern] for pattern in include)
            excluded = any(single[pattern] for pattern in exclude)
            assert (name in everything.names) == (included and not excluded)


@given(name=st.sampled_from(sorted(SYSTEM_DATABASES)))
def test_a_system_database_of_a_cloud_provider_is_selected_only_by_its_literal_name(name: str) -> None:
    assert Databases().select([name, "users"]) == (("users",), (name,), ())
    assert Databases(include=("*", name)).select([name]).names == (name,)
    assert Databases(include=(name,), exclude=(name,)).select([name]).names == ()
