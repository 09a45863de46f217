"""Prometheus alerting rules from `alert:` in query files, and the rule file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from poller.config.yaml_text import to_text
from poller.model.duration import format_duration
from poller.model.prometheus import label_name, labels_text, metric_name
from poller.model.query import Alert, AlertSeverity, MetricDefinition, MetricType, Of, QueryDefinition


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert that fires after `expr` has held for `lasting` seconds."""

    name: str
    expr: str
    lasting: float
    severity: AlertSeverity
    summary: str
    description: str
    runbook: str
    """Address of the instructions for this alert."""
    labels: Mapping[str, str]
    """Labels in addition to the severity and the labels of the series."""
    annotations: Mapping[str, str] = field(default_factory=dict)
    """Further annotations; `description` replaces the one above."""


_ENDLESS = 10_000
"""Line width in characters: a template that is broken into lines is hard to read."""


class _Lines(str):
    """Text that the file holds as a block of lines."""


class _RuleWriter(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless  # a list is indented below its key, as in the query files
        super().increase_indent(flow, False)


def _as_block(writer: yaml.SafeDumper, lines: _Lines) -> yaml.ScalarNode:
    return writer.represent_scalar("tag:yaml.org,2002:str", lines, style="|")


_RuleWriter.add_representer(_Lines, _as_block)


def to_yaml(groups: Mapping[str, Sequence[Rule]], head: str) -> str:
    """Rule file: `head` as comments, then each group that has rules.

    Source: Prometheus documentation, "Recording rules" and "Alerting rules".
    """
    entries = [
        {"name": name, "rules": [_entry(rule) for rule in rules]} for name, rules in groups.items() if rules
    ]
    comments = "".join(f"# {line}\n" for line in head.splitlines())
    return comments + to_text({"groups": entries}, _RuleWriter, width=_ENDLESS)


def _entry(rule: Rule) -> dict[str, Any]:
    return {
        "alert": rule.name,
        "expr": _Lines(rule.expr + "\n"),
        **({"for": format_duration(round(rule.lasting))} if rule.lasting else {}),
        "labels": {"severity": rule.severity, **rule.labels},
        "annotations": {
            "summary": rule.summary,
            "description": rule.description,
            "runbook_url": rule.runbook,
            **rule.annotations,
        },
    }


SECTION = "alerts-of-the-queries"
"""Anchor of the section in the runbook."""
_NAMES: dict[Of, str] = {"value": "", "daily_growth": "Growth", "weekly_change": "WeeklyChange"}
_CONDITIONS: dict[Of, str] = {
    "value": "is {value}",
    "daily_growth": "grows by {value} in a day",
    "weekly_change": "differs by {value} from the same hour a week ago",
}
_VALUES = {"By": "{{ $value | humanize1024 }}B", "s": "{{ $value | humanizeDuration }}"}


def query_rules(queries: Sequence[QueryDefinition], runbook: str) -> Iterator[Rule]:
    """One rule per alert of each metric; `runbook` is the address of the runbook."""
    for query in queries:
        for metric in query.metrics:
            for alert in metric.alert:
                yield _rule(query, metric, alert, runbook)


def _rule(query: QueryDefinition, metric: MetricDefinition, alert: Alert, runbook: str) -> Rule:
    series_name = metric_name(metric.name, metric.unit, metric.type)
    parts = (*series_name.split("_"), _NAMES[alert.of], alert.side)
    names = dict.fromkeys((*metric.attribute_columns, *metric.attributes))
    labels = ", ".join(f"{name}={{{{ $labels.{label_name(name)} }}}}" for name in names)
    series = f" Series: {labels}." if names else ""
    return Rule(
        name="".join(part[:1].upper() + part[1:] for part in parts),
        expr=_expr(f"{series_name}{labels_text(metric.attributes)}", metric.type, alert),
        lasting=alert.for_,
        severity=alert.severity,
        summary=alert.summary or f"{series_name} {_condition(metric.unit, alert)}",
        description=f"{_literal(metric.description)}{series} Polled by the query {query.name}.",
        runbook=alert.runbook or f"{runbook}#{SECTION}",
        labels={
            "poller_query_name": query.name,
            **({"owner": query.owner} if query.owner else {}),
            **alert.labels,
        },
        annotations=alert.annotations,
    )


def _condition(unit: str, alert: Alert) -> str:
    """The value, as a Prometheus template, and the limit."""
    if alert.of == "weekly_change":
        value, limit = "{{ $value | humanizePercentage }}", f"{alert.limit * 100:g}%"
    else:
        value = _VALUES.get(unit, "{{ $value | humanize }}")
        suffix = "" if unit == "1" else re.sub(r"\{[^}]*\}", "", unit)
        limit = f"{alert.limit:,.15g} {suffix}".rstrip()
    return f"{_CONDITIONS[alert.of].format(value=value)}: {alert.side} {limit}"


def _literal(text: str) -> str:
    """Escape `text` so that Prometheus finds no template in it."""
    return text.replace("{{", '{{ "{{" }}')


def _expr(series: str, kind: MetricType, alert: Alert) -> str:
    limit = f"{'>' if alert.side == 'above' else '<'} {alert.limit:.15g}"
    if alert.of == "value":
        return f"{series} {limit}"
    if alert.of == "daily_growth":
        # `increase` handles the resets of a counter; a slope would count them as a decrease.
        growth = f"increase({series}[1d])" if kind == "counter" else f"deriv({series}[1d]) * 86400"
        return f"{growth} {limit}"
    # A value of 0 a week ago is no baseline: any change from it would be infinite.
    over = "increase" if kind == "counter" else "avg_over_time"
    return f"{over}({series}[1h]) / ({over}({series}[1h] offset 1w) != 0) - 1 {limit}"
