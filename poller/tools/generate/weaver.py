"""Catalogue as a registry of OpenTelemetry Weaver, for code generation in any language."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from poller.config.queries.yaml_text import to_text
from poller.events._catalog.declaration import Attribute, Metric
from poller.model.prometheus import metric_name

_STABILITY = "development"
"""Of everything: the server's names changed with most of its releases."""


def to_weaver(metrics: Iterable[Metric]) -> str:
    """One file of groups: a group of the attributes that mean the same everywhere, and one for each metric.

    An attribute whose values differ between metrics, as `status` does, is declared within each of them.
    Source: the definition language of semantic conventions, version 1 (open-telemetry/weaver, schemas/
    semconv-syntax.md); a histogram's boundaries, which it has no place for, are an annotation.
    """
    told = tuple(metrics)
    shared = _shared(told)
    groups: list[dict[str, Any]] = []
    if shared:
        groups.append(
            {
                "id": "registry.obscura",
                "type": "attribute_group",
                "brief": "Attributes that have the same values wherever they stand.",
                "attributes": [_definition(attribute) for attribute in shared.values()],
            }
        )
    groups += [_group(metric, shared) for metric in told]
    return to_text({"groups": groups}, width=100)


def _shared(metrics: Sequence[Metric]) -> dict[str, Attribute]:
    distinct = {attribute for metric in metrics for attribute in metric.attributes}
    count = Counter(attribute.name for attribute in distinct)
    return {one.name: one for one in sorted(distinct, key=lambda one: one.name) if count[one.name] == 1}


def _group(metric: Metric, shared: dict[str, Attribute]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": f"metric.{metric.name}",
        "type": "metric",
        "metric_name": metric.name,
        "brief": metric.description,
        "instrument": metric.instrument,
        "unit": metric.unit,
        "stability": _STABILITY,
    }
    if metric.tunes:
        told["note"] = f"Tunes {metric.tunes}."
    if metric.attributes:
        told["attributes"] = [
            {"ref": attribute.name, "requirement_level": "required"}
            if attribute.name in shared
            else {**_definition(attribute), "requirement_level": "required"}
            for attribute in metric.attributes
        ]
    told["annotations"] = {"obscura": _annotations(metric)}
    if metric.status != "polled":
        value = "double" if metric.unit == "s" else "int"
        told["annotations"]["code_generation"] = {"metric_value_type": value}
    return told


def _annotations(metric: Metric) -> dict[str, Any]:
    told: dict[str, Any] = {"event": metric.event, "source": metric.source, "status": metric.status}
    if metric.since:
        told["since"] = metric.since
    if metric.boundaries:
        told["boundaries"] = list(metric.boundaries)
    translated = metric_name(metric.name, metric.unit, metric.instrument)
    if translated != metric.name:
        told["prometheus"] = translated
    return told


def _definition(attribute: Attribute) -> dict[str, Any]:
    told: dict[str, Any] = {"id": attribute.name, "brief": attribute.description, "stability": _STABILITY}
    if attribute.open:
        told["type"] = "string"
        told["note"] = f"An open set: {attribute.open}."
        told["examples"] = list(attribute.examples) or ["any"]
        return told
    told["type"] = {"members": [_member(value) for value in attribute.values]}
    return told


def _member(value: str) -> dict[str, Any]:
    return {"id": _identifier(value), "value": value, "brief": f"{value}.", "stability": _STABILITY}


def _identifier(value: str) -> str:
    """`MessageReceived` as `message_received`, `_OTHER` as `other`, `10-49` as `n10_49`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", value).lower()
    found = re.sub(r"[^a-z0-9]+", "_", words.replace("+", " and more")).strip("_")
    return found if found[:1].isalpha() else f"n{found}"
