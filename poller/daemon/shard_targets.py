"""Selection of the targets that a shard polls, by their servers."""

from __future__ import annotations

from collections.abc import Sequence

from poller.model.shards import Shard
from poller.model.target import Target
from poller.postgres.conninfo import server_of_target


class ShardTargets:
    """The targets of one shard; without a shard, all targets.

    All targets of a server belong to the same shard. A target whose connection string cannot be read stays
    with its last known server. If none is known, its name counts as its server, so that one of the shards
    reports the target as down.
    """

    def __init__(self, shard: Shard | None) -> None:
        self.shard = shard
        self._servers: dict[str, str] = {}
        """Last known server of each target, by name."""

    def select(self, targets: Sequence[Target]) -> list[Target]:
        """Return the targets of the shard, in their order; reads their connection strings."""
        shard = self.shard
        if shard is None:
            return list(targets)
        self._servers = {target.name: self._server_of(target) for target in targets}
        return [target for target in targets if shard.owns(self._servers[target.name])]

    def _server_of(self, target: Target) -> str:
        return server_of_target(target) or self._servers.get(target.name) or f"target {target.name}"
