"""Tell the catalogue as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from poller.events.declaration import Attribute, Metric
from poller.prometheus import metric_name


def to_json(metrics: Iterable[Metric], generation: str) -> str:
    """One object: the name of the generation, and the list `metrics` with everything that is declared."""
    told = {"generation": generation, "metrics": [_metric(metric) for metric in metrics]}
    return json.dumps(told, indent=2, ensure_ascii=False)


def _metric(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "event": metric.event,
        "instrument": metric.instrument,
        "unit": metric.unit,
        "description": metric.description,
        "attributes": [_attribute(attribute) for attribute in metric.attributes],
        "boundaries": list(metric.boundaries),
        "prometheus": metric_name(metric.name, metric.unit, metric.instrument),
        "source": metric.source,
        "status": metric.status,
        "since": metric.since or None,
        "tunes": metric.tunes or None,
    }


def _attribute(attribute: Attribute) -> dict[str, Any]:
    told: dict[str, Any] = {"name": attribute.name, "description": attribute.description}
    if attribute.open:
        return told | {"values": None, "open": attribute.open, "examples": list(attribute.examples)}
    return told | {"values": list(attribute.values)}
