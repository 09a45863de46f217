"""Each event is recorded under its name with the exact count, and never fails a server."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from opentelemetry.metrics import get_meter_provider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader

from poller.events import EventMetrics, PoolState
from poller.events.testing import Recorder
from tests.bed import event_calls
from tests.bed.event_calls import EVENT_CALLS, Do
from tests.bed.process import ROOT

pytest_plugins = ["poller.events.fixtures"]


def values(recorder: Recorder) -> dict[str, float]:
    """Return every series that is not zero; for a duration, its count."""
    totals = {}
    for item in recorder.series():
        value = (
            item.count if item.metric.endswith("duration_seconds") and item.count is not None else item.value
        )
        if value:
            name = re.sub(r" \S+( in \d+)?$", "", str(item))
            totals[name.removeprefix("obscura_")] = value
    return totals


@pytest.mark.parametrize(
    ("do", "expected"), EVENT_CALLS, ids=[next(iter(expected)) for _, expected in EVENT_CALLS]
)
def test_an_event_is_recorded_under_its_name(do: Do, expected: dict[str, float]) -> None:
    recorder = Recorder(generation="v0.9.4")
    do(recorder.metrics)
    recorder.assert_declared()

    assert values(recorder) == expected


def test_every_method_and_every_metric_was_tested() -> None:
    recorder = Recorder(generation="v0.9.4")
    for do, _ in EVENT_CALLS:
        do(recorder.metrics)
    document = Recorder()
    for do, _ in EVENT_CALLS:
        do(document.metrics)

    for item in (recorder, document):
        declared = {metric.name for metric in item.metrics.metrics.values()}
        assert {series.metric for series in item.series()} == declared
    methods = {name for name in vars(EventMetrics) if not name.startswith("_")}
    source = Path(event_calls.__file__).read_text(encoding="utf-8")
    assert {name for name in methods if not re.search(rf"\b(?:m|metrics)\.{name}\(", source)} == set()


def test_instruments_are_exported_as_declared() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    metrics = EventMetrics(provider, namespace="acme")
    for do, _ in EVENT_CALLS:
        do(metrics)
    data = reader.get_metrics_data()
    provider.shutdown()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    exported = {metric.name: metric for metric in scope.metrics}

    assert scope.scope.name == "poller.events"
    for metric in metrics.metrics.values():
        assert metric.name.startswith("acme_")
        instrument = exported[metric.name]
        assert (instrument.unit, instrument.description) == (metric.unit, metric.description)
        for point in instrument.data.data_points:
            if isinstance(point, HistogramDataPoint):
                assert tuple(point.explicit_bounds) == metric.boundaries


def test_series_with_declared_attributes_begin_at_zero(event_recorder: Recorder) -> None:
    """Prometheus sees no increase in a series that begins at 1."""
    assert event_recorder.value("keys_takeovers_total") == 0
    assert event_recorder.value("rate_limit_decisions_total", status="throttled") == 0
    assert event_recorder.value("websocket_active_connections") == 0
    assert event_recorder.value("health_status", component="database") is None
    assert event_recorder.value("http_requests_total") is None


# --- sessions and pools -------------------------------------------------------------------------------


def test_a_connection_is_open_exactly_while_its_session_lasts(event_recorder: Recorder) -> None:
    metrics = event_recorder.metrics
    with metrics.websocket_session(), metrics.websocket_session():
        event_recorder.assert_value("websocket_active_connections", 2)
        event_recorder.assert_count("websocket_session_duration_seconds", 0)
    with suppress(ZeroDivisionError), metrics.websocket_session():
        1 / 0  # noqa: B018 - it raises

    event_recorder.assert_value("websocket_active_connections", 0)
    event_recorder.assert_count("websocket_session_duration_seconds", 3)
    assert event_recorder.total("websocket_session_duration_seconds") > 0


def test_a_session_that_is_cancelled_ends(event_recorder: Recorder) -> None:
    inside = asyncio.Event()

    async def serve() -> None:
        with event_recorder.metrics.websocket_session():
            inside.set()
            await asyncio.Event().wait()

    async def main() -> None:
        tasks = [asyncio.create_task(serve()) for _ in range(3)]
        await inside.wait()
        event_recorder.assert_value("websocket_active_connections", 3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    event_recorder.assert_value("websocket_active_connections", 0)
    event_recorder.assert_count("websocket_session_duration_seconds", 3)


def test_a_session_in_an_abandoned_generator_ends(event_recorder: Recorder) -> None:
    @contextmanager
    def connected() -> Iterator[None]:
        with event_recorder.metrics.websocket_session():
            yield

    connection = connected()
    connection.__enter__()
    event_recorder.assert_value("websocket_active_connections", 1)
    del connection
    event_recorder.assert_value("websocket_active_connections", 0)


def test_events_of_many_threads_are_all_counted(event_recorder: Recorder) -> None:
    def work() -> None:
        for _ in range(1000):
            event_recorder.metrics.message_sent()
            event_recorder.metrics.http_request("POST", "/v1/messages", 201, 0.01)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    event_recorder.assert_total("messages_sent_total", 8000, status="success")
    event_recorder.assert_total("http_requests_total", 8000, route="/v1/messages")
    event_recorder.assert_count("http_request_duration_seconds", 8000)


def test_pools_are_summed_until_their_watch_ends(event_recorder: Recorder) -> None:
    first = event_recorder.metrics.watch_db_pool(lambda: PoolState(1, 4, 0))
    second = event_recorder.metrics.watch_db_pool(lambda: PoolState(5, 0, 2))
    event_recorder.assert_value("db_pool_active_connections", 6)
    event_recorder.assert_value("db_pool_idle_connections", 4)
    event_recorder.assert_value("db_pool_waiting_requests", 2)
    first()
    event_recorder.assert_value("db_pool_active_connections", 5)
    second()
    event_recorder.assert_value("db_pool_active_connections", None)


# --- undeclared values --------------------------------------------------------------------------------


def test_a_value_that_is_not_declared_is_counted_as_other_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder()
    for word in ("sucess", "sucess", "203.0.113.7"):
        recorder.metrics.message_sent(word)  # type: ignore[arg-type]
    recorder.metrics.rate_limit_decided("ada@example.org")  # type: ignore[arg-type]

    recorder.assert_total("messages_sent_total", 3, status="_OTHER")
    assert [record.getMessage() for record in caplog.records] == [
        "'sucess' is not declared for the attribute 'status'; write one of success, failure",
        "a value is not declared for the attribute 'status'; write one of allowed, throttled",
    ]
    with pytest.raises(
        AssertionError, match=r"undeclared values.*\n  messages_sent_total\{status=_OTHER\} 3\n"
    ):
        recorder.assert_declared()


def test_an_undeclared_component_is_not_exported(caplog: pytest.LogCaptureFixture) -> None:
    """A gauge for several unknown components would only contain the last one."""
    recorder = Recorder()
    recorder.metrics.health_checked("cache", ok=False)  # type: ignore[arg-type]
    recorder.metrics.health_checked("mail", ok=True)  # type: ignore[arg-type]
    assert recorder.value("health_status") is None
    assert "'cache' is not declared" in caplog.text


def test_an_event_without_a_name_in_the_generation_is_not_exported(event_recorder: Recorder) -> None:
    event_recorder.metrics.logged_in()
    event_recorder.metrics.notification_received("PreKeyLow")
    names = {metric.name for metric in event_recorder.metrics.metrics.values()}
    assert {series.metric for series in event_recorder.series()} <= names


def test_invented_methods_create_a_single_series(event_recorder: Recorder) -> None:
    for number in range(100):
        event_recorder.metrics.http_request(f"X{number}", "unmatched", 405, 0.1)
    event_recorder.assert_value("http_requests_total", 100, method="_OTHER")


# --- requirements -------------------------------------------------------------------------------------

HEAVY = {
    *("apscheduler", "grpc", "google", "pgparse", "psycopg", "pydantic", "pydantic_settings", "requests"),
    *("rich", "typer", "yaml", "opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto"),
}
TRY_EVERYTHING = """
import json, sys
from poller.events import *
from poller.events import EventMetrics, PoolState
m = EventMetrics()
m.message_sent()
m.attachment_uploaded(5)
m.http_request("GET", "/", 200, 0.1)
m.watch_db_pool(lambda: PoolState(1, 2, 3))
m.health_checked("database", True)
with m.websocket_session():
    pass
import poller.events._privacy.patterns
print(json.dumps(sorted(name for name in sys.modules)))
"""


def test_importing_it_loads_none_of_the_daemons_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", TRY_EVERYTHING], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert "opentelemetry.metrics" in loaded
    assert HEAVY & loaded == set()
    assert {name for name in loaded if re.match(r"poller\.(?!events)", name)} == set()


def test_it_needs_only_opentelemetrys_api(tmp_path: Path) -> None:
    """The interpreter has only this package and the packages of `pip install opentelemetry-api`."""
    for name in ("opentelemetry-api", "typing-extensions"):
        for file in importlib.metadata.files(name) or ():
            target = tmp_path / file
            if ".." not in file.parts and target.suffix != ".pyc":
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), target)
    shutil.copytree(ROOT / "poller" / "events", tmp_path / "poller" / "events")
    shutil.copy(ROOT / "poller" / "__init__.py", tmp_path / "poller")
    # -I and -S: no site-packages, no variables, no working directory.
    code = f"import sys; sys.path.append({str(tmp_path)!r}){TRY_EVERYTHING}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "poller.events.metrics" in json.loads(done.stdout)
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import opentelemetry.sdk"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert "No module named 'opentelemetry.sdk'" in done.stderr


def test_instruments_made_before_the_sdk_is_set_up_record_afterwards() -> None:
    """A server's modules create their metrics at import; the provider is set later."""
    code = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from poller.events import EventMetrics
events = EventMetrics()
events.message_sent()
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
events.message_sent("failure")
exported = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
print([(metric.name, point.attributes, point.value) for metric in exported
       for point in metric.data.data_points])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[('messages_sent_total', {'status': 'failure'}, 1)]"


def test_the_global_provider_is_not_changed() -> None:
    before = get_meter_provider()
    EventMetrics()
    assert get_meter_provider() is before


def test_misuse_is_an_error_to_the_type_checker() -> None:
    """The file marks each line with an error; an unnecessary ignore would be an error itself."""
    file = Path(__file__).with_name("misuse.py")
    assert file.read_text(encoding="utf-8").count("# type: ignore[") > 20
    done = subprocess.run([sys.executable, "-m", "mypy", str(file)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout
