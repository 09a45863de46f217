"""A Prometheus and a VictoriaMetrics for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.daemon.test_leader_election import start_candidate  # noqa: F401  # a fixture
from tests.acceptance.project.test_alerts import rules  # noqa: F401  # a fixture
from tests.bed.cleanup import closing_all
from tests.ecosystem.backends import RULES, Backend, Collector, Prometheus, VictoriaMetrics


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """Prometheus as in the documentation: with a window for late samples."""
    backend = Prometheus(tmp_path / "prometheus", out_of_order="24h")
    yield backend
    backend.stop()


@pytest.fixture
def start_prometheus(tmp_path: Path) -> Iterator[Callable[..., Prometheus]]:
    """Start Prometheus with the arguments of `Prometheus`, without the folder."""
    folders = (tmp_path / f"prometheus-{number}" for number in count())
    with closing_all(lambda **keywords: Prometheus(next(folders), **keywords), Prometheus.stop) as start:
        yield start


@pytest.fixture
def victoriametrics(tmp_path: Path) -> Iterator[VictoriaMetrics]:
    backend = VictoriaMetrics(tmp_path / "victoriametrics")
    yield backend
    backend.stop()


@pytest.fixture(params=["prometheus", "victoriametrics"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Each of the two backends; Prometheus has the generated rules."""
    backend: Backend
    if request.param == "prometheus":
        backend = Prometheus(tmp_path / "prometheus", rules=RULES)
    else:
        backend = VictoriaMetrics(tmp_path / "victoriametrics")
    yield backend
    backend.stop()


@pytest.fixture
def start_collector(tmp_path: Path) -> Iterator[Callable[..., Collector]]:
    """Start collectors with the arguments of `Collector`, without the folder."""
    folders = (tmp_path / f"collector-{number}" for number in count())

    def create(*arguments: Any, **keywords: Any) -> Collector:
        return Collector(next(folders), *arguments, **keywords)

    with closing_all(create, Collector.stop) as start:
        yield start
