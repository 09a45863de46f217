"""A reload loads all query files or none, and logs the result."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from poller.config.file_watcher import Fingerprint, contents, fingerprint
from poller.config.queries.diff import Difference
from poller.config.queries.load import load
from poller.daemon.reload import MOST_PROBLEMS, Reload
from poller.daemon.target_pollers import TargetChanges
from poller.model.catalog import Configuration, Defaults

DEFAULTS = Defaults(interval=3600.0, timeout=1.0, max_series=10)


def text(*names: str, sql: str = "SELECT 1 AS n") -> str:
    metrics = [{"unit": "{row}", "description": "Rows.", "value_column": "n"}]
    entries = [{"name": name, "sql": sql, "metrics": [{**metrics[0], "name": name}]} for name in names]
    return json.dumps({"queries": entries})


class Bed:
    """Query files, their reload, and a record of its effects."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.swapped: list[tuple[list[str], set[str]]] = []
        self.targets = TargetChanges([], [], [])
        self.reader = InMemoryMetricReader()
        self.before_load: Callable[[], object] = lambda: None
        self.after_load: Callable[[], object] = lambda: None
        provider = MeterProvider([self.reader])
        self.reload = Reload(self.load(), self, apply=self.apply, meter=provider.get_meter("test"))

    def fingerprint(self) -> bytes:
        return contents([self.file])

    def status(self) -> Fingerprint:
        return fingerprint([self.file])

    def load(self) -> Configuration:
        self.before_load()
        catalog = load([self.file], DEFAULTS)
        self.after_load()
        return Configuration(catalog, ())

    def apply(self, configuration: Configuration, difference: Difference) -> TargetChanges:
        if difference:
            names = [query.name for query in configuration.catalog.queries]
            self.swapped.append((names, set(difference.dropped)))
        return self.targets

    def metrics(self) -> dict[str, float]:
        """Return the values of the meter, by name, and by outcome if there is an outcome."""
        data = self.reader.get_metrics_data()
        assert data is not None
        points = {
            metric.name.removeprefix("poller.config."): list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        return {
            " ".join([name, *map(str, (point.attributes or {}).values())]): point.value
            for name, members in points.items()
            for point in members
            if isinstance(point, NumberDataPoint)
        }


@pytest.fixture
def bed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Bed:
    caplog.set_level(logging.INFO, logger="poller.daemon.reload")
    file = tmp_path / "queries.yaml"
    file.write_text(text("a", "b"))
    return Bed(file)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


def test_a_valid_change_is_applied_logged_and_counted(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    started = bed.metrics()
    bed.file.write_text(text("a", "c"))
    assert bed.reload.run(requested=False) == "changed"
    assert bed.swapped == [(["a", "c"], {"b"})]
    assert messages(caplog) == [
        "INFO query files read again: 1 added, 1 removed, 0 changed, 1 unchanged",
        "INFO added: c",
        "INFO removed: b",
        "INFO new metrics: c",
        "INFO removed metrics: b",
    ]
    readings = bed.metrics()
    assert (readings["reloads ok"], readings["reload.success"]) == (1, 1)
    assert readings["reload.last_success"] > started["reload.last_success"]
    assert started["reload.success"] == 1


def test_invalid_files_change_nothing_and_every_problem_is_logged_once(
    bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
    started = bed.metrics()
    bed.file.write_text(text("a", "c", sql="DELETE FROM t"))
    assert bed.reload.run(requested=False) == "refused"
    assert bed.reload.run(requested=False) == "unchanged", "no file has changed"
    first, *problems = messages(caplog)
    assert first == "ERROR query files rejected; the running queries stay in use"
    assert [problem.partition(": ")[2] for problem in problems] == [
        f"queries[{number}].sql: is DELETE; a query may only read: write SELECT, WITH, VALUES or TABLE"
        for number in range(2)
    ]
    readings = bed.metrics()
    assert (readings["reloads failed"], readings["reload.success"]) == (1, 0)
    assert readings["reload.last_success"] == started["reload.last_success"]
    assert bed.swapped == []
    assert [len(bed.reload.problems)] == [2]

    caplog.clear()
    assert bed.reload.run(requested=True) == "refused"
    assert len(messages(caplog)) == 3, "a requested reload reports the problems again"

    bed.file.write_text(text("a", "b"))
    assert bed.reload.run(requested=False) == "unchanged"
    assert bed.metrics()["reload.success"] == 1
    assert not bed.reload.problems
    assert messages(caplog)[-1] == "INFO query files read again: nothing changed"


def test_a_touch_is_no_reload_unless_it_is_requested(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    bed.reload.run(requested=True)
    caplog.clear()
    bed.file.write_text(text("a", "b"))
    assert bed.reload.run(requested=False) == "unchanged"
    assert messages(caplog) == []
    assert bed.metrics()["reloads ok"] == 1


@pytest.mark.parametrize("written", [text("a", "b", "c"), "queries: ["], ids=["good", "bad"])
def test_files_that_change_during_the_read_are_not_loaded(
    bed: Bed, written: str, caplog: pytest.LogCaptureFixture
) -> None:
    def write() -> None:
        bed.before_load = lambda: None
        bed.file.write_text(written)

    bed.before_load = write
    assert bed.reload.run(requested=True) == "unsteady"
    assert (bed.swapped, messages(caplog)) == ([], [])
    assert "reloads ok" not in bed.metrics()
    assert bed.reload.run(requested=False) in ("changed", "refused"), "the next look reads it"


def test_a_file_that_is_rewritten_and_emptied_again_during_the_read_is_not_loaded(bed: Bed) -> None:
    def write() -> None:
        bed.before_load = lambda: None
        bed.file.write_text(text("a", "b", "c"))
        bed.after_load = lambda: bed.file.write_text("")

    bed.file.write_text("")
    bed.before_load = write
    assert bed.reload.run(requested=True) == "unsteady", "what was read is not what is there"
    assert bed.swapped == []


def test_a_thousand_problems_are_a_few_lines(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    bed.file.write_text(text(*[f"q{n}" for n in range(1000)], sql="DROP TABLE t"))
    assert bed.reload.run(requested=False) == "refused"
    assert len(messages(caplog)) == MOST_PROBLEMS + 2
    assert (
        messages(caplog)[-1] == f"ERROR and {1000 - MOST_PROBLEMS} more problems; `poller check` reports all"
    )


def test_a_missing_folder_changes_nothing(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    bed.file.unlink()
    assert bed.reload.run(requested=False) == "refused"
    assert "does not exist" in messages(caplog)[1]
    assert bed.swapped == []


def test_changed_targets_are_counted_in_the_log(bed: Bed, caplog: pytest.LogCaptureFixture) -> None:
    bed.targets = TargetChanges(["new"], ["gone", "lost"], ["moved"])
    assert bed.reload.run(requested=True) == "changed"
    assert messages(caplog) == [
        "INFO query files read again: targets: 1 added, 2 removed, 1 changed",
        "INFO targets added: new",
        "INFO targets removed: gone, lost",
        "INFO targets changed: moved",
    ]
