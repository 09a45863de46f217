"""Loader of the settings from options, environment variables and defaults; an option overrides a variable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ByteSize, SecretStr, ValidationError

from poller.config.endpoint import Endpoint, Protocol, Signal, resolve
from poller.config.environment import Environment, is_secret
from poller.config.settings import Settings, Source, format_value, option
from poller.config.settings_schema import Variables, example_of, lower
from poller.model.diagnostics import Diagnostic, invalid
from poller.model.errors import ConfigError
from poller.model.secrets import Secret
from poller.model.text import did_you_mean

_SHARED = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PROTOCOLS: dict[str, Protocol] = {"grpc": "grpc", "http/protobuf": "http/protobuf"}


def destinations(
    signals: Iterable[Signal],
    values: Mapping[str, Any],
    sources: Mapping[str, Source],
    environ: Mapping[str, str],
) -> tuple[dict[Signal, Endpoint], list[Diagnostic]]:
    """Return the endpoint of each of `signals` that has one, and the problems of their settings.

    `values` and `sources` are the unvalidated settings. A signal's own endpoint and protocol override the
    shared ones. The standard variables of metrics apply to metrics only (OpenTelemetry specification,
    protocol/exporter.md).
    """
    endpoints: dict[Signal, Endpoint] = {}
    problems: list[Diagnostic] = []
    for signal in signals:
        value, where = _place(signal, values, sources, environ)
        if value:
            try:
                protocol = _protocol(signal, values, sources, environ)
                endpoints[signal] = resolve(value, where, protocol, signal)
            except ConfigError as error:
                problems += error.problems
    return endpoints, problems


def _place(
    signal: Signal, values: Mapping[str, Any], sources: Mapping[str, Source], environ: Mapping[str, str]
) -> tuple[str, str]:
    """Return the endpoint as written (empty if unset), and the variable or option that sets it."""
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
    if protocol := environ.get(own, "").strip().lower():
        if protocol not in _PROTOCOLS:
            raise ConfigError([invalid(own, f"{protocol!r} is not one of grpc, http/protobuf")])
        return _PROTOCOLS[protocol]
    shared = values.get("otlp_protocol")
    if shared and sources["otlp_protocol"].name == "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL":
        shared = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    return _PROTOCOLS.get((shared or "").strip().lower())


def load(environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
    """Load the settings from `environ` and the command-line options.

    `overrides` maps fields to the text of their option. None means that the option is absent; an empty text
    unsets the variable.

    Raises ConfigError with every problem; no message contains a secret.
    """
    environment = Environment(Variables, environ)
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for name in Variables.model_fields:
        override = (overrides or {}).get(name)
        if override is not None:
            sources[name] = Source("option", option(name))
            values[name] = (
                None if override == "" and Variables.model_fields[name].default is None else override
            )
        elif entry := environment.value_of(name):
            values[name], sources[name] = entry
    raw, raw_sources = dict(values), dict(sources)
    if off := environment.switched_off():
        values["otlp_endpoint"], sources["otlp_endpoint"] = None, off

    problems = [*environment.problems, *environment.sdk_problems()]
    read: Variables | None = None
    try:
        read = Variables(**values)
    except ValidationError as error:
        problems += [
            invalid(sources[name].name, _say(name, values[name], dict(details)))
            for details in error.errors(include_url=False, include_input=False)
            if (name := str(details["loc"][0]))
        ]
    target: Endpoint | None = None
    if values.get("otlp_endpoint"):
        protocol = lower(values.get("otlp_protocol"))
        try:
            target = resolve(
                values["otlp_endpoint"].strip(),
                sources["otlp_endpoint"].name,
                "http/protobuf" if protocol == "http/protobuf" else "grpc" if protocol == "grpc" else None,
            )
        except ConfigError as error:
            problems += error.problems
    others: dict[Signal, Endpoint] = {}
    if read is not None and not (off and off.name == "OTEL_SDK_DISABLED"):
        others, wrong = destinations(read.signals(), raw, raw_sources, environ)
        # The problems of a shared endpoint are already in the list.
        problems += [problem for problem in wrong if problem not in problems]
    if problems or read is None:
        raise ConfigError(problems)
    warnings = environment.warnings()
    if read.otlp_logs and "logs" not in others:
        warnings += ("POLLER_OTLP_LOGS: has no effect without an endpoint; set POLLER_OTLP_ENDPOINT",)
    in_file = "database_url" in sources and sources["database_url"].name.endswith("_FILE")
    return Settings(
        **{name: _plain(getattr(read, name)) for name in Variables.model_fields},
        sources=sources,
        warnings=warnings,
        endpoint=target,
        others=others,
        libpq=environment.has_libpq(),
        database_file=environment.file_of("database_url") if in_file else None,
    )


def _plain(value: object) -> Any:
    """Convert pydantic's own types to plain values."""
    if isinstance(value, SecretStr):
        return Secret(value.get_secret_value())
    return int(value) if isinstance(value, ByteSize) else value


def _say(name: str, value: object, error: dict[str, Any]) -> str:
    """Return a message for pydantic's error: the value (masked if secret), its problem, an example."""
    field = Variables.model_fields[name]
    example = f"write one like {example_of(name)}"
    if is_secret(field):
        return f"is invalid; {example}"
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    context = error.get("ctx", {})
    match error["type"]:
        case "greater_than":
            return f"{value!r} is not above {context['gt']:g}; {example}"
        case kind if kind.startswith("bool_"):
            return f"{value!r} is not true or false; {example}"
        case kind if kind.startswith("byte_size"):
            return f"{value!r} is not a size; {example}"
        case kind if kind.startswith("float_") and name == "max_duty_cycle":
            return f"{value!r} is not a share; {example}"
        case "literal_error":
            choices = context["expected"].replace("'", "").replace(" or ", ", ")
            hint = did_you_mean(str(lower(value)), choices.split(", ")) or f"; {example}"
            return f"{value!r} is not one of {choices}{hint}"
        case "greater_than_equal":
            return f"{value!r} is too small; write at least {format_value(name, context['ge'])}"
        case "less_than_equal":
            return f"{value!r} is too large; write at most {format_value(name, context['le'])}"
        case "string_too_short":
            return f"is empty; {example}"
        case kind if kind.startswith("int_"):
            return f"{value!r} is not a whole number; {example}"
        case _:
            return f"{value!r} is not accepted; {example}"
