"""Say samples as OTLP/JSON, the form that the Collector's file receiver reads."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.json_format import MessageToJson
from opentelemetry.sdk.resources import Resource

from poller.encoding import message, nothing
from poller.points import Points
from poller.result import PollResult


def to_otlp_json(results: Iterable[PollResult], resource: Resource, version: str) -> str:
    """One ExportMetricsServiceRequest on one line; each point is stamped with the time of its snapshot.

    Source: OpenTelemetry protocol specification, "JSON Protobuf Encoding" (64-bit integers are strings).
    """
    return MessageToJson(message(nothing(resource, version), Points().metrics(results)), indent=None)
