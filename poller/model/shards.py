"""Shards: several pollers with the same targets, each of which polls a fixed part of the servers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

MAX_SHARDS = 1000
SHARD = r"[0-9]{1,9}(/[0-9]{1,9})?"
"""Pattern of POLLER_SHARD."""
_MOST_SERVERS = 20_000
"""Maximum number of servers whose shard is remembered."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` shards; `index` counts from 0."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def read(cls, text: str, count: int | None) -> Shard:
        """Return the shard of `2/5`, or of `2` and a count of 5.

        If the index is not below the count, the number of shards is about to change. Then the shard polls
        what it would poll as the last one, so that no server is without a poller meanwhile.
        """
        index, _, of = text.partition("/")
        return cls(int(index), max(int(of or count or 0), int(index) + 1))

    def owns(self, server: str) -> bool:
        """Return whether this shard polls the targets of `server`."""
        return owner_of(server, self.count) == self.index


@lru_cache(_MOST_SERVERS)
def owner_of(server: str, count: int) -> int:
    """Return the index of the shard that polls the targets of `server`.

    Rendezvous hashing: each shard has a hash together with the server, and the largest one decides. So an
    added shard takes its share from all others, a removed one leaves its share to all others, and no server
    moves between the rest. Versions of the poller must agree on the result, so it must never change.
    """
    name = server.encode(errors="surrogateescape")
    return max(range(count), key=lambda index: blake2b(b"%d %s" % (index, name), digest_size=16).digest())
