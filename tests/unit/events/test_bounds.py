"""Caches are bounded, and contain nothing of objects that no longer exist."""

from __future__ import annotations

import asyncio
import math

from opentelemetry.metrics import NoOpMeterProvider

from poller.events import Component, EventMetrics
from poller.events.health import Health
from poller.model.redaction import LONGEST_BEGINNING, _Memory
from poller.model.secrets import MASK


def test_attributes_of_at_most_ten_thousand_requests_are_cached() -> None:
    metrics = EventMetrics(NoOpMeterProvider())
    for number in range(10_050):
        metrics.http_request("GET", f"/v1/{number}", 200, 0.1)
    assert len(metrics._requests) == len(metrics._routes) == 10_000  # noqa: SLF001
    # A method that a client invented takes no place either.
    few = EventMetrics(NoOpMeterProvider())
    few.http_request("BREW", "/v1", 200, 0.1)
    assert not few._requests  # noqa: SLF001


def test_the_newest_thousand_secrets_are_masked() -> None:
    memory = _Memory()
    memory.add(f"first-secret-{number}-" for number in range(500))
    memory.add(f"second-secret-{number}-" for number in range(1000))
    assert memory.mask("first-secret-0-") == "first-secret-0-"
    assert memory.mask("first-secret-499-") == "first-secret-499-"
    assert memory.mask("second-secret-0-") == memory.mask("second-secret-999-") == MASK


def test_a_cut_leaves_no_part_of_a_secret_of_any_length() -> None:
    short, long = "begins-so", "begins-so" + "Z" * 10_000
    memory = _Memory()
    memory.add([short, long])
    for at in range(LONGEST_BEGINNING - len(long) - 2, LONGEST_BEGINNING + 3, 997):
        masked = memory.mask_beginning("x" * at + long + "y" * 20_000)
        assert "Z" not in masked
        assert "begins" not in masked
    assert memory.mask_beginning(f"{long} {short}") == f"{MASK} {MASK}"


def test_masked_forms_of_at_most_ten_thousand_values_are_cached() -> None:
    memory = _Memory()
    memory.add(["swordfish-"])
    for number in range(10_050):
        memory.mask_value(f"name {number}")
    memory.mask_value("x" * 101)
    assert 0 < len(memory._masked) <= 10_000  # noqa: SLF001
    assert not any(len(text) > 100 for text in memory._masked)  # noqa: SLF001


class RecordedHealth(EventMetrics):
    """Records the period for which each health value is valid."""

    def health_checked(self, component: Component, ok: bool, valid_for: float = math.inf) -> None:
        self.recorded = component, ok, valid_for


def test_a_health_value_lives_three_intervals() -> None:
    async def run() -> None:
        metrics = RecordedHealth(NoOpMeterProvider())
        health = Health(metrics, interval=7)
        health.register("database", lambda: None)
        await health.check()
        assert metrics.recorded == ("database", True, 21)

    asyncio.run(run())
