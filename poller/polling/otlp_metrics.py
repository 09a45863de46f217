"""OTLP/JSON encoding of samples, as the Collector's file receiver reads it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from google.protobuf.json_format import MessageToJson
from opentelemetry.sdk.resources import Resource

from poller.model.result import PollResult
from poller.otlp.request import message
from poller.polling.instruments import CatalogInstruments, Frame


def to_otlp_json(results: Sequence[PollResult], resource: Resource, version: str) -> str:
    """Return one ExportMetricsServiceRequest on one line; each data point has the time of its snapshot.

    Source: OpenTelemetry protocol specification, "JSON Protobuf Encoding" (64-bit integers are strings).
    """
    # The variable disables the SDK's exports, but this output is printed.
    os.environ.pop("OTEL_SDK_DISABLED", None)
    metrics = [metric for result in results for metric in result.query.metrics]
    instruments = CatalogInstruments(
        lambda: Frame(metrics, results), resource, version, starts=False, snapshot_times=True
    )
    return MessageToJson(message(instruments.collect(), resource, version), indent=None)
