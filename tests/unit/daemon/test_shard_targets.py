"""The targets of a shard follow their servers, as far as these are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from poller.daemon.shard_targets import ShardTargets
from poller.model.shards import Shard, owner_of
from poller.model.target import Target
from poller.postgres.conninfo import server_of
from tests.bed.definitions import a_target

COUNT = 3


def target(name: str, url: str = "", file: Path | None = None) -> Target:
    return a_target(name, url, url_file=file)


def owners(*targets: Target) -> dict[str, list[int]]:
    """Return the shards that poll each target."""
    result: dict[str, list[int]] = {item.name: [] for item in targets}
    for index in range(COUNT):
        for item in ShardTargets(Shard(index, COUNT)).select(targets):
            result[item.name].append(index)
    return result


def host_of(shard: int) -> str:
    """Return a host whose server belongs to a shard."""
    return next(name for number in range(99) if owner_of(f"{(name := f'host{number}')}:5432", COUNT) == shard)


def test_all_targets_of_a_server_belong_to_one_shard_whatever_their_user_password_and_database() -> None:
    urls = [
        "postgresql://replica-1/app",
        "postgresql://poller:secret@replica-1:5432/other",
        "host=replica-1 port=5432 user=x password=y dbname=z sslmode=require",
    ]
    shards = owners(*(target(str(number), url) for number, url in enumerate(urls)))
    assert list(shards.values()) == [[owner_of("replica-1:5432", COUNT)]] * 3


def test_each_target_belongs_to_one_shard_in_any_order() -> None:
    targets = [target(f"t{number}", f"postgresql://replica-{number}/app") for number in range(40)]
    shards = owners(*targets)
    assert {len(indices) for indices in shards.values()} == {1}
    assert {index for (index,) in shards.values()} == set(range(COUNT))
    assert owners(*reversed(targets)) == shards
    assert owners(*targets[5:9]) == {item.name: shards[item.name] for item in targets[5:9]}


def test_without_a_shard_all_targets_are_polled() -> None:
    targets = [target("a", "postgresql://replica-1/app"), target("b", file=Path("/missing"))]
    assert ShardTargets(None).select(targets) == targets


def test_the_server_of_libpq_decides_if_the_connection_string_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGHOST", "replica-7")
    monkeypatch.setenv("PGPORT", "6000")
    assert server_of("dbname=app") == "replica-7:6000"
    assert server_of("postgresql://replica-1/app") == "replica-1:6000"
    assert owners(target("a", "dbname=app")) == owners(target("a", "postgresql://replica-7:6000/app"))


def test_a_target_whose_file_cannot_be_read_at_the_start_belongs_to_one_shard(tmp_path: Path) -> None:
    """So that one of them reports it as down, instead of none."""
    (tmp_path / "invalid").write_text("no connection string")
    shards = owners(target("a", file=tmp_path / "missing"), target("b", file=tmp_path / "invalid"))
    assert [len(indices) for indices in shards.values()] == [1, 1]


def test_a_target_whose_file_becomes_unreadable_stays_with_its_server(tmp_path: Path) -> None:
    file = tmp_path / "url"
    for index in range(COUNT):
        file.write_text(f"postgresql://{host_of(index)}/app")
        own = ShardTargets(Shard(index, COUNT))
        a = target("a", file=file)
        assert own.select([a]) == [a]
        file.unlink()
        assert own.select([a]) == [a]
        file.write_text("half of a connect")
        assert own.select([a]) == [a]


def test_a_target_whose_file_names_another_server_moves(tmp_path: Path) -> None:
    file = tmp_path / "url"
    a = target("a", file=file)
    shards = [ShardTargets(Shard(index, COUNT)) for index in range(COUNT)]
    for index in (0, 2, 1):
        file.write_text(f"postgresql://poller:secret@{host_of(index)}/app")
        assert [bool(own.select([a])) for own in shards] == [index == other for other in range(COUNT)]
