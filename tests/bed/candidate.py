"""Daemons that take part in an election, each with a receiver of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from poller.receiver.decode import Point
from poller.receiver.receiver import Receiver
from tests.bed.process import Process, eventually

TARGET = "only"


class Candidate:
    """A daemon that polls the target of `write_target`, and the receiver of its exports."""

    def __init__(
        self, name: str, folder: Path, start: Callable[..., Process], election: str, **settings: str
    ) -> None:
        """Start `poller run` with `start`, which gets its arguments and `env`."""
        self.receiver = Receiver()
        self.receiver.start()
        self.process = start(
            "run",
            env={
                "POLLER_INSTANCE": name,
                "POLLER_TARGETS": str(folder / "targets.yaml"),
                "POLLER_QUERIES": str(folder / "queries.yaml"),
                "POLLER_OTLP_ENDPOINT": self.receiver.grpc_endpoint,
                "POLLER_EXPORT_INTERVAL": "200ms",
                "POLLER_LEADER_ELECTION": election,
                "POLLER_STATE_DIR": str(folder / name),
                **settings,
            },
        )

    def line(self, pattern: str, after: int = 0) -> None:
        self.process.wait_for_line(pattern, after=after)

    def points(self) -> list[Point]:
        """Return the data points of the target that this process has exported."""
        return [p for p in self.receiver.points("n") if p.resource.get("service.instance.id") == TARGET]

    def polls(self, seconds: float = 60.0) -> bool:
        """Wait until this process exports a value that it has not exported before."""
        before = len(self.points())
        return eventually(lambda: len(self.points()) > before, seconds)

    def close(self) -> None:
        self.process.close()
        self.receiver.stop()


def write_target(folder: Path, dsn: str) -> None:
    """Write a targets file with one target and a query file with one query, which runs every second."""
    metric = {"name": "n", "unit": "{row}", "description": "Rows.", "value_column": "n"}
    query = {"name": "q", "sql": "SELECT 1 AS n", "interval": "1s", "timeout": "900ms", "metrics": [metric]}
    (folder / "queries.yaml").write_text(json.dumps({"queries": [query]}), encoding="utf-8")
    (folder / "only.url").write_text(dsn, encoding="utf-8")
    target = {"name": TARGET, "url_file": "only.url", "require_standby": "false"}
    (folder / "targets.yaml").write_text(json.dumps({"targets": [target]}), encoding="utf-8")


def election_url(dsn: str) -> str:
    """Return a connection string as a URL, which POLLER_LEADER_ELECTION requires."""
    return "postgresql:///?" + "&".join(f"{name}={value}" for name, value in conninfo_to_dict(dsn).items())
