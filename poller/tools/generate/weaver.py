"""Catalogue as a registry of OpenTelemetry Weaver, for code generation in any language."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from poller.config.yaml_text import to_text
from poller.events._catalog.declaration import Attribute, Metric
from poller.model.prometheus import metric_name

_STABILITY = "development"
"""Stability of all names, because the server changed names in most of its releases."""


def to_weaver(metrics: Iterable[Metric]) -> str:
    """Registry file with a group of the shared attributes and a group for each metric.

    An attribute whose values differ between metrics, such as `status`, is declared in each metric. The
    boundaries of a histogram are an annotation, because the format has no field for them. Source: the
    definition language of semantic conventions, version 1 (open-telemetry/weaver, schemas/semconv-syntax.md).
    """
    listed = tuple(metrics)
    shared = _shared(listed)
    groups: list[dict[str, Any]] = []
    if shared:
        groups.append(
            {
                "id": "registry.obscura",
                "type": "attribute_group",
                "brief": "Attributes that have the same values in every metric.",
                "attributes": [_definition(attribute) for attribute in shared.values()],
            }
        )
    groups += [_group(metric, shared) for metric in listed]
    return to_text({"groups": groups}, width=100)


def _shared(metrics: Sequence[Metric]) -> dict[str, Attribute]:
    distinct = {attribute for metric in metrics for attribute in metric.attributes}
    count = Counter(attribute.name for attribute in distinct)
    return {item.name: item for item in sorted(distinct, key=lambda item: item.name) if count[item.name] == 1}


def _group(metric: Metric, shared: dict[str, Attribute]) -> dict[str, Any]:
    group: dict[str, Any] = {
        "id": f"metric.{metric.name}",
        "type": "metric",
        "metric_name": metric.name,
        "brief": metric.description,
        "instrument": metric.instrument,
        "unit": metric.unit,
        "stability": _STABILITY,
    }
    if metric.tunes:
        group["note"] = f"Tunes {metric.tunes}."
    if metric.attributes:
        group["attributes"] = [
            {"ref": attribute.name, "requirement_level": "required"}
            if attribute.name in shared
            else {**_definition(attribute), "requirement_level": "required"}
            for attribute in metric.attributes
        ]
    group["annotations"] = {"obscura": _annotations(metric)}
    if metric.status != "polled":
        value = "double" if metric.unit == "s" else "int"
        group["annotations"]["code_generation"] = {"metric_value_type": value}
    return group


def _annotations(metric: Metric) -> dict[str, Any]:
    annotations: dict[str, Any] = {"event": metric.event, "source": metric.source, "status": metric.status}
    if metric.since:
        annotations["since"] = metric.since
    if metric.boundaries:
        annotations["boundaries"] = list(metric.boundaries)
    translated = metric_name(metric.name, metric.unit, metric.instrument)
    if translated != metric.name:
        annotations["prometheus"] = translated
    return annotations


def _definition(attribute: Attribute) -> dict[str, Any]:
    definition: dict[str, Any] = {
        "id": attribute.name,
        "brief": attribute.description,
        "stability": _STABILITY,
    }
    if attribute.open:
        definition["type"] = "string"
        definition["note"] = f"An open set: {attribute.open}."
        definition["examples"] = list(attribute.examples) or ["any"]
        return definition
    definition["type"] = {"members": [_member(value) for value in attribute.values]}
    return definition


def _member(value: str) -> dict[str, Any]:
    return {"id": _identifier(value), "value": value, "brief": f"{value}.", "stability": _STABILITY}


def _identifier(value: str) -> str:
    """`MessageReceived` as `message_received`, `_OTHER` as `other`, `10-49` as `n10_49`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", value).lower()
    identifier = re.sub(r"[^a-z0-9]+", "_", words.replace("+", " and more")).strip("_")
    return identifier if identifier[:1].isalpha() else f"n{identifier}"
