"""A query selects targets by their tags and names."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from poller.config.targets.schema import DeclaredTarget
from poller.model.target import SYSTEM_DATABASES, Databases, Target
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


DATABASES = st.sets(st.text(alphabet="ab_*?[]\n'ä", max_size=3) | st.sampled_from(sorted(SYSTEM_DATABASES)))
PATTERNS = st.lists(st.sampled_from(["*", "a*", "?", "b", "rdsadmin", "*admin", "[ab]", "[[]", "\n*"]))


@given(names=DATABASES, include=PATTERNS, exclude=PATTERNS, limit=st.integers(1, 5))
def test_a_database_is_selected_by_include_unless_exclude_matches_and_the_first_by_name_within_the_limit(
    names: set[str], include: list[str], exclude: list[str], limit: int
) -> None:
    selected = Databases(include=tuple(include), exclude=tuple(exclude), limit=limit).select(names)
    assert list(selected.names) == sorted(selected.names)
    assert len(selected.names) <= limit
    assert selected.over_limit == 0 or len(selected.names) == limit
    assert len(selected.names) + selected.excluded + selected.over_limit == len(names)
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
    assert Databases().select([name, "users"]) == (("users",), 1, 0)
    assert Databases(include=("*", name)).select([name]).names == (name,)
    assert Databases(include=(name,), exclude=(name,)).select([name]).names == ()
