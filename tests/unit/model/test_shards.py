"""Shards: each server has exactly one, and a changed number of shards moves as few servers as possible."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.model.shards import Shard, owner_of

servers = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
counts = st.integers(1, 40)


@given(server=servers, count=counts)
def test_each_server_belongs_to_exactly_one_shard(server: str, count: int) -> None:
    owners = [index for index in range(count) if Shard(index, count).owns(server)]
    assert owners == [owner_of(server, count)]


@given(server=servers, count=counts)
def test_an_added_shard_takes_servers_and_none_moves_between_the_others(server: str, count: int) -> None:
    assert owner_of(server, count + 1) in (owner_of(server, count), count)


@given(server=servers, count=counts, removed=st.integers(1, 5))
def test_only_the_servers_of_removed_shards_move(server: str, count: int, removed: int) -> None:
    before = owner_of(server, count + removed)
    assert before >= count or owner_of(server, count) == before


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_an_added_shard_takes_about_its_share(count: int) -> None:
    names = [f"replica-{number}:5432" for number in range(4000)]
    moved = sum(owner_of(name, count) != owner_of(name, count + 1) for name in names)
    assert 0.8 < moved / (len(names) / (count + 1)) < 1.2


@pytest.mark.parametrize("count", [2, 3, 7])
def test_all_shards_have_about_as_many_servers(count: int) -> None:
    owners = [owner_of(f"replica-{number}:5432", count) for number in range(4000)]
    assert all(0.85 < owners.count(index) / (4000 / count) < 1.15 for index in range(count))


def test_the_shard_of_a_server_is_the_same_in_every_version_and_process() -> None:
    """If this fails, an upgrade would move servers between shards: do not change the values."""
    known = {
        "replica-1:5432": [0, 1, 2, 2],
        "replica-2:5432": [0, 1, 1, 1],
        "/run/postgresql:5433": [0, 1, 1, 1],
        "a:5432,b:5432": [0, 1, 1, 3],
        "ü:5432": [0, 1, 1, 3],
    }
    assert {name: [owner_of(name, count) for count in (1, 2, 3, 5)] for name in known} == known
    code = f"from poller.model.shards import owner_of; print([owner_of(name, 5) for name in {list(known)!r}])"
    seeds = {
        subprocess.check_output([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, text=True)
        for seed in ("1", "2")
    }
    assert seeds == {f"{[owners[-1] for owners in known.values()]}\n"}


def test_a_shard_beyond_the_count_polls_as_if_it_were_the_last() -> None:
    """While the number of shards changes, the servers of a removed shard have a poller until it stops."""
    assert Shard.read("5", 5) == Shard.read("5", 6) == Shard(5, 6)
    assert Shard.read("7", 5) == Shard(7, 8)


def test_a_shard_is_written_as_index_and_count() -> None:
    assert (Shard.read("2/5", None), Shard.read("2", 5)) == (Shard(2, 5), Shard(2, 5))
    assert str(Shard(2, 5)) == "2/5"
