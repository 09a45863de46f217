"""Write complaints in SARIF, which code scanning and editors read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from poller.lint.complaint import RULES, Complaint
from poller.lint.whereabouts import uri

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_sarif(complaints: Sequence[Complaint], version: str) -> str:
    """One log of one run (SARIF 2.1.0, OASIS Standard of 27 March 2020); `version` is the poller's own."""
    rules = list(RULES)
    driver = {
        "name": "obscura-poller",
        "version": version,
        "rules": [{"id": rule, "shortDescription": {"text": RULES[rule]}} for rule in rules],
    }
    results = [_result(complaint, rules.index(complaint.rule)) for complaint in complaints]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _result(complaint: Complaint, rule: int) -> dict[str, Any]:
    place = complaint.place
    path = place.path if place else complaint.where
    result: dict[str, Any] = {
        "ruleId": complaint.rule,
        "ruleIndex": rule,
        "level": complaint.level,
        "message": {"text": f"{path}: {complaint.what}" if path else complaint.what},
    }
    if place is not None:
        physical: dict[str, Any] = {"artifactLocation": {"uri": uri(place.file)}}
        if place.line is not None:
            region = {"startLine": place.line, "startColumn": place.column}
            physical["region"] = {name: value for name, value in region.items() if value is not None}
        result["locations"] = [{"physicalLocation": physical}]
    return result
