"""POLLER_LEADER_ELECTION: what it accepts, and that no message or view repeats its password."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller.config.load_settings import load
from poller.model.errors import ConfigError

TARGETS = {"POLLER_TARGETS": "targets.yaml"}


def problems(**environ: str) -> list[str]:
    with pytest.raises(ConfigError) as failure:
        load(environ)
    return [str(problem) for problem in failure.value.problems]


@pytest.mark.parametrize(
    "election", ["postgresql://elections/app", "postgres://u:p@elections:5433/app?sslmode=require"]
)
def test_a_server_is_a_libpq_uri(election: str) -> None:
    settings = load({**TARGETS, "POLLER_LEADER_ELECTION": election})
    assert settings.leader_election is not None
    assert (settings.leader_election.reveal(), settings.lease_name) == (election, None)
    assert settings.leader_ttl == 30.0


def test_a_lease_is_named_after_a_prefix() -> None:
    settings = load({**TARGETS, "POLLER_LEADER_ELECTION": " kubernetes:poller.a-1 "})
    assert settings.lease_name == "poller.a-1"
    assert settings.text_of("leader_election") == "kubernetes:poller.a-1"


def test_the_password_is_masked_in_the_list_of_settings() -> None:
    settings = load({**TARGETS, "POLLER_LEADER_ELECTION": "postgresql://u:sekret@elections/app"})
    assert settings.text_of("leader_election") == "postgresql://u:***@elections/app"
    assert "sekret" not in repr(settings)


@pytest.mark.parametrize(
    "election", ["sekret", "host=elections password=sekret", "mysql://u:sekret@h", "kubernetes:sekret_A"]
)
def test_another_text_is_an_error_that_does_not_repeat_it(election: str) -> None:
    (problem,) = problems(**TARGETS, POLLER_LEADER_ELECTION=election)
    assert problem.startswith("POLLER_LEADER_ELECTION: ")
    assert "write one like" in problem
    assert "sekret" not in problem


@pytest.mark.parametrize("lease", ["", "-a", "a-", "A", "a..b", "a/b", "a" * 254])
def test_a_name_that_kubernetes_rejects_is_an_error(lease: str) -> None:
    assert "no valid name of a Lease" in problems(**TARGETS, POLLER_LEADER_ELECTION=f"kubernetes:{lease}")[0]


def test_every_problem_is_reported_at_once() -> None:
    reported = problems(
        POLLER_LEADER_ELECTION="x", POLLER_LEADER_TTL="1s", POLLER_DATABASE_URL="postgresql:///"
    )
    assert [problem.partition(":")[0] for problem in reported] == [
        "POLLER_LEADER_TTL",
        "POLLER_LEADER_ELECTION",
        "POLLER_LEADER_ELECTION",
    ]
    assert "needs POLLER_TARGETS" in reported[2]


def test_a_file_may_contain_it(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://u:sekret@elections/app\n")
    settings = load({**TARGETS, "POLLER_LEADER_ELECTION_FILE": str(tmp_path / "url")})
    assert settings.election_file == tmp_path / "url"
    assert "sekret" not in settings.text_of("leader_election")
