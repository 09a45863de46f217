"""Hold one alerting rule, and write many as the file that Prometheus loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from poller.alert import Severity
from poller.definition import format_duration
from poller.yamltext import to_text


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert: `expr` holds for `lasting` seconds, and somebody is told."""

    name: str
    expr: str
    lasting: float
    severity: Severity
    summary: str
    description: str
    runbook: str
    """Address of what says what to do."""
    labels: Mapping[str, str]
    """Beside the severity and those of the series."""


_ENDLESS = 10_000
"""Columns: a template that is broken over lines is hard to read."""


class _Lines(str):
    """A text that stands in the file line by line."""


class _Writer(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless  # a list stands deeper than its key, as in the query files
        super().increase_indent(flow, False)


def _as_lines(writer: yaml.SafeDumper, lines: _Lines) -> yaml.ScalarNode:
    return writer.represent_scalar("tag:yaml.org,2002:str", lines, style="|")


_Writer.add_representer(_Lines, _as_lines)


def to_yaml(groups: Mapping[str, Sequence[Rule]], head: str) -> str:
    """A rule file: `head` as comments, then each group that has rules.

    Source: Prometheus documentation, "Recording rules" and "Alerting rules".
    """
    told = [
        {"name": name, "rules": [_told(rule) for rule in rules]} for name, rules in groups.items() if rules
    ]
    comments = "".join(f"# {line}\n" for line in head.splitlines())
    return comments + to_text({"groups": told}, _Writer, width=_ENDLESS)


def _told(rule: Rule) -> dict[str, Any]:
    return {
        "alert": rule.name,
        "expr": _Lines(rule.expr + "\n"),
        **({"for": format_duration(round(rule.lasting))} if rule.lasting else {}),
        "labels": {"severity": rule.severity, **rule.labels},
        "annotations": {
            "summary": rule.summary,
            "description": rule.description,
            "runbook_url": rule.runbook,
        },
    }
