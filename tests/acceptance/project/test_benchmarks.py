"""The benchmarks work at the smallest sizes, and the hot path does not exceed the committed baseline."""

from __future__ import annotations

import json

import pytest

from tests.bed.postgres import Site
from tests.benchmarks import hotpath, query_costs
from tests.benchmarks.__main__ import OURS, measure
from tests.benchmarks.results import Results


@pytest.mark.timeout(600)  # it starts a dozen processes in sequence
def test_every_figure_is_produced_without_the_peers() -> None:
    """Missing peers are skipped, because a test must not download them."""
    results = Results()
    measure(results, rounds=1, polls=1, scale=0.0001, trivial=[2], series=3, long=1, others=False, idle=1.0)
    report = results.as_json()
    figures = report["figures"]
    assert isinstance(figures, dict)
    assert json.loads(json.dumps(report)) == report
    for load in ("2 trivial", "4 state", "3 series"):
        for figure in ("CPU per poll and export (ms)", "wall per poll and export (ms)", "RSS (MB)"):
            assert figures[figure][load][OURS]["median"] > 0, (figure, load)
    assert figures["round trips per poll"]["2 trivial"][OURS]["median"] > 0
    assert figures["statements per poll"]["2 trivial"][OURS]["median"] > 2
    assert figures["connections opened, all in all"]["2 trivial"][OURS]["median"] > 0
    assert figures["wall per poll and export (ms)"]["2 trivial, a link of 20 ms"][OURS]["least"] > 20
    assert {"cold start to the first value (s)", "bytes of an export", "threads"} <= figures.keys()
    assert figures["server CPU of a tick, connection kept (ms)"]["2 trivial"][OURS]["median"] > 0
    assert figures["idle, CPU per day (s)"]["4 state, every 5 min"].keys() == {
        f"{OURS}, grpc",
        f"{OURS}, http",
    }
    assert {"poller --help", "poller health"} == figures["CPU of a command (ms)"].keys()
    assert f"| {OURS} |" in results.as_markdown(OURS)


def test_medians_and_ratios_are_printed() -> None:
    results = Results()
    results.add("CPU (ms)", "10 trivial", "ours", 2.0, 1.0, 3.0)
    results.add("CPU (ms)", "10 trivial", "theirs", 30.0, 10.0, 20.0)
    results.add("CPU (ms)", "20 trivial", "theirs", 5.0)
    results.add("CPU (ms)", "20 trivial", "ours")
    assert json.loads(json.dumps(results.as_json()))["figures"]["CPU (ms)"]["20 trivial"].keys() == {"theirs"}
    assert results.as_markdown("ours").splitlines() == [
        "| | ours | theirs |",
        "|---|---|---|",
        "| CPU (ms), 10 trivial | 2 (1-3) | 20.0 (10.0-30.0) x10.0 |",
        "| CPU (ms), 20 trivial | - | 5 |",
    ]


@pytest.mark.postgres
def test_the_exact_and_estimated_cost_of_each_query_is_printed() -> None:
    costs = query_costs.measured([100, 1000])
    assert {"users", "pending_messages", "attachments", "attachments_bytes"} <= costs.keys()
    assert costs["users"].exact[1000].value == costs["users"].estimated[1000].value == 1000
    assert all(cost.exact[1000].pages > 0 for cost in costs.values())
    assert "10,000 (extrapolated)" in query_costs.as_markdown(costs)


@pytest.mark.parametrize("name", hotpath.baseline())
def test_the_hot_path_does_no_more_than_it_did(name: str, counts: dict[str, float]) -> None:
    """If more work is needed, `python -m tests.benchmarks.hotpath DSN --write` writes a new baseline."""
    assert counts[name] <= hotpath.MARGIN * hotpath.baseline()[name]


@pytest.fixture(scope="module")
def counts(site: Site) -> dict[str, float]:
    return hotpath.counted(site.primary)
