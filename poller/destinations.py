"""Decide where spans and log records go: where the metrics go, or where a variable of their own says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from poller.endpoint import Endpoint, Protocol, Signal, resolve
from poller.errors import ConfigError, Problem
from poller.settings import Source

_SHARED = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOLS: dict[str, Protocol] = {"grpc": "grpc", "http/protobuf": "http/protobuf"}


def destinations(
    signals: Iterable[Signal],
    values: Mapping[str, Any],
    sources: Mapping[str, Source],
    environ: Mapping[str, str],
) -> tuple[dict[Signal, Endpoint], list[Problem]]:
    """Where each of `signals` goes, without those of which nothing says so; and what is wrong with it.

    `values` and `sources` are the settings' as they were found. The endpoint and the protocol of the signal's
    own go before those of all signals; what a standard variable says of metrics alone is for metrics alone
    (OpenTelemetry specification, protocol/exporter.md).
    """
    found: dict[Signal, Endpoint] = {}
    problems: list[Problem] = []
    for signal in signals:
        value, where = _place(signal, values, sources, environ)
        if value:
            try:
                protocol = _protocol(signal, values, sources, environ)
                found[signal] = resolve(value, where, protocol, signal)
            except ConfigError as error:
                problems += error.problems
    return found, problems


def _place(
    signal: Signal, values: Mapping[str, Any], sources: Mapping[str, Source], environ: Mapping[str, str]
) -> tuple[str, str]:
    """The endpoint as it was written, empty where there is none, and the variable or option it stands in."""
    field = f"{signal}_endpoint"
    if not values.get(field):
        field = "otlp_endpoint"
        if not values.get(field):
            return "", ""
        if sources[field].name == "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT":
            return environ.get(_SHARED, "").strip(), _SHARED
    return values[field].strip(), sources[field].name


def _protocol(
    signal: Signal, values: Mapping[str, Any], sources: Mapping[str, Source], environ: Mapping[str, str]
) -> Protocol | None:
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
    if told := environ.get(own, "").strip().lower():
        if told not in _PROTOCOLS:
            raise ConfigError(
                [Problem(own, f"{told!r} is not one of grpc, http/protobuf; write one of them")]
            )
        return _PROTOCOLS[told]
    shared = values.get("otlp_protocol")
    if shared and sources["otlp_protocol"].name == "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL":
        shared = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    return _PROTOCOLS.get((shared or "").strip().lower())
