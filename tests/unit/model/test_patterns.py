"""Patterns of `--target` select targets by name."""

from __future__ import annotations

import pytest

from poller.model.errors import ConfigError
from poller.model.patterns import select_targets
from poller.model.text import list_names

NAMES = ["eu-1", "eu-2", "us-1", "tenants/t_1"]


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        ([], set(NAMES)),
        (["eu-*"], {"eu-1", "eu-2"}),
        (["us-?", "eu-2"], {"us-1", "eu-2"}),
        (["tenants/*"], {"tenants/t_1"}),
    ],
)
def test_patterns_select_targets(patterns: list[str], selected: set[str]) -> None:
    assert select_targets(patterns, NAMES) == selected


def test_a_name_with_characters_of_patterns_selects_itself() -> None:
    assert select_targets(["tenants/t[1]"], ["tenants/t[1]"]) == {"tenants/t[1]"}


def test_every_pattern_without_a_target_is_reported_with_a_suggestion() -> None:
    with pytest.raises(ConfigError) as caught:
        select_targets(["eu-1", "eu-11", "asia"], NAMES)
    assert [str(problem) for problem in caught.value.problems] == [
        "--target: 'eu-11' matches no target; did you mean 'eu-1'?",
        "--target: 'asia' matches no target; there are: eu-1, eu-2, tenants/t_1, us-1",
    ]


def test_of_many_names_the_first_are_listed() -> None:
    assert list_names(f"t{n:02}" for n in range(30)).endswith("t08, t09 and 20 more")
