"""A real Prometheus that contains the points of a receiver."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from poller.model.prometheus import label_name, metric_name
from poller.receiver.decode import Distribution, Point
from poller.receiver.ports import free_ports
from tests.bed.programs import need
from tests.bed.promtool import promtool

Labels = Mapping[str, str]
_STEP = 1e9


class Prometheus:
    """Prometheus on 127.0.0.1 with the given samples in its store, each at its own time.

    Debian's version has no OTLP receiver. Therefore the samples are an OpenMetrics file, from which promtool
    makes blocks of the store.
    """

    def __init__(self, folder: Path, samples: str, now: float) -> None:
        """Store `samples` (see `openmetrics`) in `folder`, then start; queries are for the time `now`."""
        stored = folder / "samples.txt"
        stored.write_text(samples, encoding="utf-8")
        blocks = promtool("tsdb", "create-blocks-from", "openmetrics", stored, folder / "data")
        assert blocks.returncode == 0, blocks.stdout + blocks.stderr
        (folder / "prometheus.yml").write_text("global: {}\n")
        self.now = now
        (port,) = free_ports(1)
        self._url = f"http://127.0.0.1:{port}"
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    need("prometheus", "prometheus"),
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    "--storage.tsdb.retention.time=30d",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Self:
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self._url}/-/ready", timeout=60).close()
            except OSError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.05)
            else:
                return

    def query(self, expr: str) -> list[Labels]:
        """Return the series of `expr` at the last point's time; raises AssertionError if the query fails."""
        return [labels for labels, _ in self.values(expr)]

    def values(self, expr: str) -> list[tuple[Labels, float]]:
        """Return the series of `expr` at the last point's time, each with its value."""
        data = self._ask("query", query=expr, time=f"{self.now:.3f}")
        return [(series["metric"], float(series["value"][1])) for series in data["result"]]

    def ranges(self, expr: str, since: float, step: float) -> list[tuple[Labels, dict[float, float]]]:
        """Return the series of `expr` in a range that ends at the last point, with their values by time."""
        data = self._ask(
            "query_range", query=expr, start=f"{since:.3f}", end=f"{self.now:.3f}", step=f"{step:g}"
        )
        return [
            (series["metric"], {at: float(value) for at, value in series["values"]})
            for series in data["result"]
        ]

    def label_values(self, label: str, match: str) -> list[str]:
        values: list[str] = self._ask(f"label/{label}/values", **{"match[]": match})
        return values

    def _ask(self, path: str, **parameters: str) -> Any:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None
        assert not body.get("warnings"), body
        return body["data"]


def openmetrics(points: Iterable[Point], again: Sequence[float] = ()) -> str:
    """Return OpenMetrics text 1.0 of all points, and again of each number of seconds in `again` earlier.

    The names are those that the OTLP receiver of a later Prometheus would assign.
    """
    families: dict[tuple[str, str], dict[tuple[tuple[str, str], ...], dict[int, Point]]] = {}
    for point in points:
        kind: Literal["gauge", "counter", "histogram"] = "gauge"
        if point.monotonic or point.kind == "histogram":
            kind = "counter" if point.monotonic else "histogram"
        family = families.setdefault((_family(point, kind), kind), {})
        family.setdefault(_labels(point), {})[point.time_unix_nano] = point
    lines: list[str] = []
    for (name, shape), stored in families.items():
        lines.append(f"# TYPE {name} {shape}")
        for labels, members in stored.items():
            for earlier in sorted((0.0, *again), reverse=True):  # the times of a series must ascend
                for at, point in sorted(members.items()):
                    lines += _samples(name, shape, labels, point, at / _STEP - earlier)
    return "\n".join([*lines, "# EOF", ""])


def _family(point: Point, kind: Literal["gauge", "counter", "histogram"]) -> str:
    """Return the translated name; in OpenMetrics the family of a counter lacks its `_total`."""
    return metric_name(point.metric, point.unit, kind).removesuffix("_total" if kind == "counter" else "")


def _labels(point: Point) -> tuple[tuple[str, str], ...]:
    # Prometheus' receiver derives these from the resource's service.name and service.instance.id.
    resource = {"job": point.resource["service.name"], "instance": point.resource["service.instance.id"]}
    labels = {label_name(name): value for name, value in point.attributes.items()}
    return tuple(sorted((name, _text(value)) for name, value in {**labels, **resource}.items()))


def _samples(
    name: str, kind: str, labels: tuple[tuple[str, str], ...], point: Point, at: float
) -> Iterator[str]:
    def sample(suffix: str, value: float, *more: tuple[str, str]) -> str:
        pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in (*labels, *more))
        return f"{name}{suffix}{{{pairs}}} {value} {at:.3f}"

    if isinstance(point.value, Distribution):
        count = 0
        for bound, members in zip((*point.value.bounds, float("inf")), point.value.buckets, strict=True):
            count += members
            yield sample("_bucket", count, ("le", "+Inf" if bound == float("inf") else f"{bound}"))
        yield sample("_sum", point.value.sum or 0.0)
        yield sample("_count", point.value.count)
    elif point.value is not None:
        yield sample("_total" if kind == "counter" else "", point.value)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _escaped(text: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", text).replace("\n", "\\n")
