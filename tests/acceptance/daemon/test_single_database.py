"""A poller with one database exports what it exported before it could poll several."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.receiver.decode import Point
from poller.receiver.receiver import Receiver
from tests.bed.golden import Golden
from tests.bed.polled import write
from tests.bed.postgres import Database
from tests.bed.process import Process, eventually

EXPECTED = Path(__file__).with_suffix(".txt")


def described(point: Point) -> str:
    """Return everything of a data point that does not differ between two runs."""
    attributes = {
        name: re.sub(r"\d+", "N", str(value)) if name.startswith("server.") else value
        for name, value in sorted(point.attributes.items())
    }
    resource = {
        name: value for name, value in sorted(point.resource.items()) if not name.startswith("telemetry.")
    }
    return (
        f"{point.metric} {point.kind} {point.unit} {attributes} start={bool(point.start_time_unix_nano)} "
        f"temporality={point.temporality} scope={point.scope} resource={resource} {point.description}"
    )


@pytest.mark.parametrize("level", ["query", "off"])
def test_without_targets_the_requests_are_those_of_a_poller_that_knows_none(
    database: Database,
    receiver: Receiver,
    poller_process: Callable[..., Process],
    tmp_path: Path,
    golden: Golden,
    level: str,
) -> None:
    database.execute("CREATE TABLE things (id int); INSERT INTO things VALUES (1)")
    database.replayed()
    file = write(
        tmp_path,
        {"things": "SELECT count(*) AS n FROM things", "fails": "SELECT 1/0 AS n"},
        things={"interval": "1h", "timeout": "1s"},
        fails={"interval": "1h", "timeout": "1s"},
    )
    poller_process(
        "run",
        env={
            "POLLER_DATABASE_URL": database.standby_dsn,
            "POLLER_QUERIES": file,
            "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
            "POLLER_EXPORT_INTERVAL": "500ms",
            "POLLER_INSTANCE": "the-poller",
            "POLLER_SELF_METRICS": level,
            "POLLER_TRACES": "false",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        },
    )
    assert eventually(lambda: len(receiver.requests()) >= 4)
    points = receiver.requests()[3].points()
    text = "\n".join(sorted({described(point) for point in points})) + "\n"
    golden(EXPECTED.with_suffix(f".{level}.txt"), text)
