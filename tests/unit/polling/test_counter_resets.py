"""A sum keeps its start time; a decrease, a gap and the loss of the state file start another sequence."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics.export import AggregationTemporality, Sum

from poller.config.queries.load import load
from poller.model.catalog import Defaults
from poller.model.result import Sample, UnbrokenSequence
from poller.polling.instruments import CatalogInstruments, Frame
from poller.polling.state_file import StateFile
from poller.polling.state_row import StateRow, checksum_of
from poller.polling.store import ResultStore
from poller.receiver.decode import Point
from poller.receiver.receiver import Receiver
from tests.bed.definitions import a_metric, a_query, a_result
from tests.bed.messaging import MessagingServer
from tests.bed.process import ROOT, Process, eventually

Start = Callable[..., Process]
Values = Mapping[str, float]
Exported = dict[str, tuple[int, int, float]]
"""Start time, time and value of each series."""

SENT = a_metric("sent", type="counter", unit="{message}", attribute_columns=("kind",))
OPEN = a_metric("open", type="updowncounter", unit="{session}", attribute_columns=("kind",))
COUNTERS = a_query("a", metrics=(SENT,))
SESSIONS = a_query("b", metrics=(OPEN,))


class Life:
    """The steps of a daemon: it polls, exports, and is killed."""

    def __init__(self, folder: Path, query: str = "a") -> None:
        self.query = COUNTERS if query == "a" else SESSIONS
        self.file = StateFile(folder)
        self.memory = self.file.of("", "db")
        self.store = ResultStore([self.query])
        self.now = 1
        self.server = "a:5432"
        self.database = "app"
        self.instruments = self.new_instruments()
        self.moments: dict[int, int] = {}
        """`now` of each export, by the time of its data points."""

    def new_instruments(self, *, starts: bool = True) -> CatalogInstruments:
        return CatalogInstruments("1.2.3", starts=starts)

    def frame(self) -> Frame:
        return Frame(self.query.metrics, self.store.current(0.0))

    def poll(self, **values: float) -> None:
        self.now += 1
        samples = (Sample(self.query.metrics[0].name, value, {"kind": k}) for k, value in values.items())
        place = {"server": self.server, "database": self.database}
        self.store.put([a_result(self.query, *samples, at=float(self.now), **place)], 0.0)
        self.memory.add(list(self.store.good(0.0)))

    def export(self) -> Exported:
        self.now += 1
        exported: Exported = {}
        for metric in self.instruments.collect(self.frame()):
            for point in metric.data.data_points:
                at = self.moments.setdefault(point.time_unix_nano, self.now)
                start = self.moments[point.start_time_unix_nano]
                exported[str((point.attributes or {})["kind"])] = start, at, point.value  # type: ignore[union-attr]
        return exported

    def die(self) -> None:
        self.file.close()
        self.store = ResultStore([self.query], self.memory.load([self.query], 0.0, float(self.now)))
        self.instruments = self.new_instruments()


def starts(life: Life) -> dict[str, int]:
    return {kind: start for kind, (start, _, _) in life.export().items()}


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path)


@pytest.mark.parametrize(("query", "monotonic"), [(COUNTERS, True), (SESSIONS, False)])
def test_a_sum_is_cumulative_and_monotonic_if_it_only_grows(query: object, monotonic: bool) -> None:
    life = Life(Path(), "a" if query is COUNTERS else "b")
    life.store.put([a_result(life.query, Sample(life.query.metrics[0].name, 7, {"kind": "x"}))], 0.0)
    (metric,) = life.instruments.collect(life.frame())
    assert isinstance(metric.data, Sum)
    assert metric.data.is_monotonic is monotonic
    assert metric.data.aggregation_temporality == AggregationTemporality.CUMULATIVE
    assert [point.value for point in metric.data.data_points] == [7]


def test_the_first_point_has_no_duration_because_the_database_does_not_record_the_start(life: Life) -> None:
    life.poll(x=500)
    start, time, value = life.export()["x"]
    assert (start, value) == (time, 500)
    life.poll(x=500)
    again = life.export()["x"]
    assert (again[0], again[2]) == (start, 500)
    assert again[1] > start


def test_a_decrease_resets_only_that_series_and_its_value_is_exported_unchanged(life: Life) -> None:
    life.poll(x=500, y=7)
    before = life.export()
    life.poll(x=3, y=8)
    after = life.export()
    start, time, value = after["x"]
    assert (start, value) == (time, 3)
    assert after["y"][0] == before["y"][0]


def test_a_series_that_was_absent_starts_again(life: Life) -> None:
    life.poll(x=500, y=7)
    before = starts(life)
    life.poll(y=7)
    life.poll(x=501, y=7)
    after = starts(life)
    assert after["x"] > before["x"]
    assert after["y"] == before["y"]


def test_every_sum_starts_again_at_another_server(life: Life) -> None:
    """A counter with a larger value there did not grow by the difference."""
    life.poll(x=500)
    before = starts(life)
    life.server = "b:5432"
    life.poll(x=600)
    start, time, value = life.export()["x"]
    assert (start, value) == (time, 600)
    assert start > before["x"]
    life.poll(x=700)
    life.die()
    life.poll(x=800)
    assert starts(life) == {"x": start}
    life.die()
    life.server = "a:5432"
    life.poll(x=900)
    assert starts(life) == {"x": life.now}


def test_every_sum_starts_again_in_another_database_of_the_same_server(life: Life) -> None:
    life.poll(x=500)
    before = starts(life)
    life.database = "other"
    life.poll(x=600)
    start, time, value = life.export()["x"]
    assert (start, value) == (time, 600)
    assert start > before["x"]


def test_an_up_down_counter_may_decrease(tmp_path: Path) -> None:
    life = Life(tmp_path, "b")
    life.poll(x=5)
    start = starts(life)
    life.poll(x=-5)
    assert starts(life) == start


def test_a_failed_poll_breaks_nothing(life: Life) -> None:
    life.poll(x=5)
    start = starts(life)
    life.store.put([a_result(COUNTERS, outcome="failed")], 0.0)
    life.poll(x=6)
    assert starts(life) == start


def test_sums_in_the_state_file_continue_after_a_restart(life: Life) -> None:
    life.poll(x=5, y=5)
    start = starts(life)
    life.poll(x=6, y=6)  # now the start is known and therefore stored
    life.die()
    assert starts(life) == start
    life.poll(x=7, y=1)
    after = starts(life)
    assert (after["x"], after["y"]) == (start["x"], life.now)


def test_without_a_state_file_sums_start_again_after_a_restart(life: Life, tmp_path: Path) -> None:
    life.poll(x=5)
    start = starts(life)
    life.file.close()
    (tmp_path / "values.db").unlink()
    life.die()
    life.poll(x=6)
    assert starts(life)["x"] == life.now > start["x"]


def test_values_stored_before_their_first_export_start_again(life: Life, tmp_path: Path) -> None:
    life.poll(x=5)  # not exported, so that no start is stored
    assert b'["sent",5,{"kind":"x"}]' in (tmp_path / "values.db").read_bytes()
    life.die()
    assert starts(life) == {"x": life.now}


@pytest.mark.parametrize("start", ["-1", "0", "1.5", "true", "null", '"x"', str(2**64)])
def test_an_invalid_start_time_is_not_restored(life: Life, tmp_path: Path, start: str) -> None:
    life.poll(x=5)
    life.file.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "values.db", isolation_level=None)) as db:
        row = StateRow(*db.execute("SELECT * FROM value").fetchone())
        row = row._replace(body=row.body.replace(b'{"kind":"x"}]', f'{{"kind":"x"}},{start}]'.encode()))
        db.execute("UPDATE value SET checksum = ?, body = ?", (checksum_of(row), row.body))
    life.die()
    assert life.export() == {}


def test_a_clock_set_back_starts_another_sequence_because_no_point_may_precede_its_start() -> None:
    sequence = UnbrokenSequence()
    assert [sequence.begun(at) for at in (1000, 1001, 11, 12)] == [1000, 1000, 11, 11]


def test_a_single_poll_has_no_start_time(life: Life) -> None:
    life.poll(x=5)
    (metric,) = life.new_instruments(starts=False).collect(life.frame())
    assert [point.start_time_unix_nano for point in metric.data.data_points] == [0]


numbers = st.one_of(st.integers(0, 2**63 - 1), st.floats(0, 1e300), st.integers(0, 3))
BRIEF = settings(max_examples=40)  # every step writes a file to the disk
polls = st.dictionaries(st.sampled_from("xyz"), numbers)


@pytest.mark.slow
@BRIEF
@given(st.lists(st.one_of(polls, st.sampled_from(["export", "die"])), max_size=30))
def test_with_the_same_start_a_counter_never_decreases_and_its_first_point_has_no_duration(
    tmp_path_factory: pytest.TempPathFactory, steps: list[dict[str, float] | str]
) -> None:
    life = Life(tmp_path_factory.mktemp("life"))
    polled: Values = {}
    exported: list[Exported] = []
    for step in steps:
        if isinstance(step, dict):
            life.poll(**step)
            polled = step
        elif step == "die":
            life.die()
        else:
            exported.append(life.export())
            values = {kind: value for kind, (_, _, value) in exported[-1].items()}
            assert values == polled, "every value must be a value of the database"
    for kind in "xyz":
        points = [exported_series[kind] for exported_series in exported if kind in exported_series]
        by_start: dict[int, list[tuple[int, int, float]]] = {}
        for point in points:
            by_start.setdefault(point[0], []).append(point)
        for start, stretch in by_start.items():
            assert stretch[0][1] == start
            assert all(earlier[2] <= later[2] for earlier, later in pairwise(stretch))
            at = points.index(stretch[0])
            assert points[at : at + len(stretch)] == stretch, "no sequence goes on after another began"


@pytest.mark.slow
@BRIEF
@given(st.lists(st.one_of(numbers, st.just("die")), min_size=1, max_size=20))
def test_a_counter_that_only_grows_keeps_its_start(
    tmp_path_factory: pytest.TempPathFactory, steps: list[float | str]
) -> None:
    life = Life(tmp_path_factory.mktemp("life"))
    value: float = 0
    life.poll(x=value)
    begun = starts(life)
    life.poll(x=value)
    for step in steps:
        if isinstance(step, str):
            life.die()
        else:
            value = max(value, step)
            life.poll(x=value)
        assert starts(life) == begun


def test_a_counter_on_the_standby_is_reset_and_outlives_the_daemon(
    server: MessagingServer, receiver: Receiver, poller_process: Start, tmp_path: Path
) -> None:
    server.execute("CREATE TABLE statistics AS SELECT 'mail' AS kind, 500::bigint AS sent, 3 AS open")
    server.replayed()
    file = tmp_path / "sent.yaml"
    file.write_text(QUERIES)
    env = {
        "POLLER_DATABASE_URL": server.standby_dsn,
        "POLLER_QUERIES": str(file),
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        "POLLER_EXPORT_INTERVAL": "200ms",
        "POLLER_STATE_DIR": str(tmp_path / "state"),
    }

    def counted(value: float) -> Point:
        """Wait for the first point with this value."""

        def with_value(points: list[Point]) -> list[Point]:
            return [point for point in points if point.metric == "messages.sent" and point.value == value]

        return receiver.wait_for(with_value, 120)[0]

    def set_to(sent: float, opened: int) -> None:
        server.execute(f"UPDATE statistics SET sent = {sent}, open = {opened}")

    first = poller_process("run", env=env)
    begun = counted(500)
    assert (begun.kind, begun.monotonic, begun.temporality) == ("sum", True, "cumulative")
    assert begun.start_time_unix_nano == begun.time_unix_nano
    set_to(800, 2)
    assert counted(800).start_time_unix_nano == begun.start_time_unix_nano
    set_to(20, 1)
    reset = counted(20)
    assert reset.start_time_unix_nano == reset.time_unix_nano > begun.start_time_unix_nano
    set_to(30, 5)
    assert counted(30).start_time_unix_nano == reset.start_time_unix_nano
    # An exported value may not be stored yet.
    assert eventually(
        lambda: b"%d" % reset.start_time_unix_nano in (tmp_path / "state/values.db").read_bytes()
    )
    first.send(signal.SIGKILL)
    first.wait()
    set_to(40, 5)
    poller_process("run", env=env)
    assert counted(40).start_time_unix_nano == reset.start_time_unix_nano
    set_to(-1, 5)
    receiver.wait_for(
        lambda points: [point for point in points if point.attributes.get("poller.reason") == "negative"], 120
    )
    assert {point.value for point in receiver.points("messages.sent")} <= {500, 800, 20, 30, 40}

    opened = receiver.points("sessions.open")
    assert {point.monotonic for point in opened} == {False}
    assert len({point.start_time_unix_nano for point in opened}) == 1, "a decrease does not reset it"


QUERIES = """
queries:
  - name: sent
    sql: SELECT kind, sent, open FROM statistics
    interval: 1s
    metrics:
      - name: messages.sent
        type: counter
        description: Messages sent.
        unit: "{message}"
        value_column: sent
        attribute_columns: [kind]
      - name: sessions.open
        type: updowncounter
        description: Open sessions.
        unit: "{session}"
        value_column: open
        attribute_columns: [kind]
"""


def test_a_single_poll_prints_types_in_every_format(
    server: MessagingServer, poller_process: Start, tmp_path: Path
) -> None:
    server.execute("CREATE TABLE statistics AS SELECT 'mail' AS kind, 500::bigint AS sent, 3 AS open")
    server.replayed()
    (tmp_path / "sent.yaml").write_text(QUERIES)

    def polled(form: str) -> str:
        env = {"POLLER_DATABASE_URL": server.standby_dsn, "POLLER_QUERIES": str(tmp_path / "sent.yaml")}
        process = poller_process("poll", "--format", form, env=env)
        assert process.wait() == 0, process
        return process.stdout

    assert polled("prometheus") == (
        "# HELP messages_sent_total Messages sent.\n# TYPE messages_sent_total counter\n"
        'messages_sent_total{kind="mail"} 500\n'
        "# HELP sessions_open Open sessions.\n# TYPE sessions_open gauge\n"
        'sessions_open{kind="mail"} 3\n'
    )
    heading, sent, opened = (line.split() for line in polled("table").splitlines())
    assert heading[:3] == ["QUERY", "METRIC", "TYPE"]
    assert (sent[:3], opened[:3]) == (
        ["sent", "messages.sent", "counter"],
        ["sent", "sessions.open", "updowncounter"],
    )
    assert [line for line in polled("json").splitlines() if '"type"' in line] == [
        '          "type": "counter",',
        '          "type": "updowncounter",',
    ]
    assert '"isMonotonic": true' in polled("otlp-json")


def test_the_catalogue_of_the_tests_has_a_metric_of_each_type() -> None:
    catalog = load([ROOT / "tests" / "catalogs" / "valid-types.yaml"], Defaults(300.0, 30.0, 1000))
    assert {name: metric.type for name, metric in catalog.metrics.items()} == {
        "database.commits": "counter",
        "database.backends": "updowncounter",
        "database.deadlocks": "gauge",
    }
