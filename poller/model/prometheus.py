"""Prometheus text format of samples, with the names that its OTLP receiver assigns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from poller.model import printable
from poller.model.query import AttributeValue, MetricDefinition
from poller.model.result import Sample
from poller.model.text import value_text

# The units that Prometheus spells out; any other unit is appended unchanged.
# Source: prometheus/otlptranslator, metric_namer.go (translation strategy UnderscoreEscapingWithSuffixes).
_UNITS = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds",
    "ns": "nanoseconds", "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes",
    "TiBy": "tibibytes", "KBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes",
    "m": "meters", "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams", "Cel": "celsius",
    "Hz": "hertz", "%": "percent", "1": "",
}  # fmt: skip
_PER = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}


def metric_name(name: str, unit: str, instrument: str = "gauge") -> str:
    """Return the name of a metric after OTLP-to-Prometheus translation with suffixes, Prometheus' default.

    The series of a histogram add the suffixes `_bucket`, `_sum` and `_count`.
    """
    tokens = [token for token in re.split(r"[^A-Za-z0-9:]+", name) if token]
    main, _, per = unit.partition("/")
    counted, rate = _spelled(main, _UNITS), _spelled(per, _PER).removesuffix("_")
    counted = counted.removesuffix("_") if rate else counted
    tokens += [token for token in (counted, rate and f"per_{rate}") if token and token not in tokens]
    suffix = {"counter": "total", "gauge": "ratio" if unit == "1" else ""}.get(instrument)
    if suffix:
        tokens = [*filter(suffix.__ne__, tokens), suffix]
    translated = "_".join(tokens)
    return f"_{translated}" if translated[:1].isdigit() else translated


def label_name(attribute: str) -> str:
    """Return the label name of an attribute after the same translation."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", attribute)
    if name[:1].isdigit():
        return f"key_{name}"
    return f"key{name}" if re.match("_(?!_)", name) else name


def labels_text(attributes: Mapping[str, AttributeValue]) -> str:
    """Return attributes as labels after a metric's name: `{state="queued"}`; empty without attributes."""
    pairs = [
        f'{label_name(name)}="{_escaped(value_text(value), quote=True)}"'
        for name, value in attributes.items()
    ]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def exposition(metrics: Mapping[str, MetricDefinition], samples: Iterable[Sample]) -> str:
    """Return Prometheus' text exposition format 0.0.4, one block per metric in the order of `metrics`.

    Values with a time of their own have it as timestamp.

    Source: Prometheus documentation, "Exposition formats". The node exporter's textfile collector reads it.
    """
    grouped: dict[str, list[Sample]] = {name: [] for name in metrics}
    for sample in samples:
        grouped[sample.metric].append(sample)
    lines = []
    for name, members in grouped.items():
        if not members:
            continue
        metric = metrics[name]
        translated = metric_name(name, metric.unit, metric.type)
        lines.append(f"# HELP {translated} {_escaped(printable.lines(metric.description))}")
        lines.append(f"# TYPE {translated} {'counter' if metric.type == 'counter' else 'gauge'}")
        for sample in members:
            # The format cannot escape a control character, so the label has a backslash and its code.
            attributes = {
                name: printable.lines(value_text(value)) for name, value in sample.attributes.items()
            }
            time = f" {sample.time.at // 10**6}" if sample.time else ""
            lines.append(f"{translated}{labels_text(attributes)} {sample.value}{time}")
    return "".join(line + "\n" for line in lines)


def _spelled(unit: str, names: Mapping[str, str]) -> str:
    unit = unit.strip()
    if "{" in unit or "}" in unit:
        return ""  # Prometheus also drops text next to an annotation
    return re.sub(r"[^A-Za-z0-9:]+", "_", names.get(unit, unit)).removeprefix("_")


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text
