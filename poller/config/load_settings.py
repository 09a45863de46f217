"""Loader of the settings from options, environment variables and defaults; an option overrides a variable."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    ByteSize,
    Field,
    ValidationError,
    create_model,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from poller.config.environment import Environment
from poller.config.fields import Duration
from poller.config.setting import Seconds, Setting, Share, Size
from poller.config.setting_rules import election_problems, shard_problems, single_database_problems
from poller.config.settings import SETTINGS, Settings, SettingSource
from poller.model.diagnostics import Diagnostic, invalid
from poller.model.errors import ConfigError
from poller.model.otlp_endpoint import PROTOCOLS, Endpoint, Protocol, Signal, resolve
from poller.model.otlp_variables import OtlpVariables, sdk_problems
from poller.model.secrets import Secret
from poller.model.shards import Shard
from poller.model.text import unknown_choice

_SHARED = "OTEL_EXPORTER_OTLP_ENDPOINT"


class _Model(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, hide_input_in_errors=True, loc_by_alias=False,
        case_sensitive=True,
    )  # fmt: skip

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: object, init_settings: PydanticBaseSettingsSource, *_: object, **__: object
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Accept values only from `load`, which reads the environment and records the sources."""
        del settings_cls
        return (init_settings,)


def _lower(value: object) -> object:
    """Strip a text and convert it to lower case, for comparison; return other values unchanged."""
    return value.strip().lower() if isinstance(value, str) else value


def _share(value: object) -> object:
    """Turn `10%` into 0.1; pydantic reads any other number."""
    if isinstance(value, str) and (text := value.strip()).endswith("%"):
        try:
            return float(text[:-1]) / 100
        except ValueError:
            return value
    return value


_TYPES: dict[Any, Any] = {
    Seconds: Duration,
    Share: Annotated[float, BeforeValidator(_share)],
    Size: Annotated[ByteSize, AfterValidator(int)],
    Secret: str,
}
"""Types that read the text of a variable or an option."""


def _field(setting: Setting) -> Any:
    read = _TYPES.get(setting.type, setting.type)
    if setting.choices and setting.type is not bool:
        read = Annotated[read, BeforeValidator(_lower)]
    names = AliasChoices(*setting.variables)
    return read | None, Field(default=None, validation_alias=names, **setting.limits)


_FIELDS: dict[str, Any] = {name: _field(setting) for name, setting in SETTINGS.items()}
_VARIABLES = create_model("Variables", __base__=_Model, **_FIELDS)
"""The settings as users write them."""


def destinations(
    signals: Iterable[Signal],
    values: Mapping[str, Any],
    sources: Mapping[str, SettingSource],
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
                # All signals have the problems of a shared endpoint.
                problems += [problem for problem in error.problems if problem not in problems]
    return endpoints, problems


def _place(
    signal: Signal,
    values: Mapping[str, Any],
    sources: Mapping[str, SettingSource],
    environ: Mapping[str, str],
) -> tuple[str, str]:
    """Return the endpoint as written (empty if unset), and the variable or option that sets it."""
    field = f"{signal}_endpoint" if values.get(f"{signal}_endpoint") else "otlp_endpoint"
    if not values.get(field):
        return "", ""
    if signal != "metrics" and sources[field].name == "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT":
        return environ.get(_SHARED, "").strip(), _SHARED
    return values[field].strip(), sources[field].name


def _protocol(
    signal: Signal,
    values: Mapping[str, Any],
    sources: Mapping[str, SettingSource],
    environ: Mapping[str, str],
) -> Protocol | None:
    shared = values.get("otlp_protocol") or ""
    variables = OtlpVariables(environ, signal)
    own = variables.where("PROTOCOL") == f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL"
    standard = shared and sources["otlp_protocol"].name.startswith("OTEL_")
    if signal != "metrics" and (own or standard):
        return variables.protocol()
    return PROTOCOLS.get(shared.strip().lower())


def load(environ: Mapping[str, str], overrides: Mapping[str, Any] | None = None) -> Settings:
    """Load the settings from `environ` and the command-line options.

    `overrides` maps fields to the text of their option. None means that the option is absent; an empty text
    unsets the variable.

    Raises ConfigError with every problem; no message contains a secret.
    """
    environment = Environment(_VARIABLES, environ)
    values, sources = _read_sources(environment, overrides or {})
    off = OtlpVariables(environ, "metrics").disabled_by()
    problems = [*environment.problems, *sdk_problems(environ)]
    if values.get("targets"):
        problems += single_database_problems(values, sources, environment)
    problems += shard_problems(values, sources)
    read, wrong = _validate(values | ({"otlp_endpoint": None} if off else {}), sources)
    problems += wrong
    signals: list[Signal] = [] if off else ["metrics"]
    if read is not None and off != "OTEL_SDK_DISABLED":
        signals += _signals(read)
    endpoints, wrong = destinations(signals, values, sources, environ)
    problems += [problem for problem in wrong if problem not in problems]
    if (election := values.get("leader_election")) is not None:
        problems += election_problems(election, sources["leader_election"].name, bool(values.get("targets")))
    if problems or read is None:
        raise ConfigError(problems)
    warnings = environment.warnings()
    if "logs" in _signals(read) and "logs" not in endpoints:
        warnings += ("POLLER_OTLP_LOGS: has no effect without an endpoint; set POLLER_OTLP_ENDPOINT",)
    if read.get("shard"):
        warnings += _apply_shard(read, sources)
    files = {
        name: environment.file_of(name) if name in sources and sources[name].name.endswith("_FILE") else None
        for name in ("database_url", "leader_election")
    }
    return Settings(
        **read,
        sources=sources | ({"otlp_endpoint": SettingSource("variable", off)} if off else {}),
        warnings=warnings,
        endpoint=endpoints.pop("metrics", None),
        others=endpoints,
        libpq=environment.has_libpq(),
        database_file=files["database_url"],
        election_file=files["leader_election"],
    )


def _read_sources(
    environment: Environment, overrides: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, SettingSource]]:
    """Return the settings as users wrote them, and the source of each."""
    values: dict[str, Any] = {}
    sources: dict[str, SettingSource] = {}
    for name, setting in SETTINGS.items():
        override = overrides.get(name)
        if override is not None:
            sources[name] = SettingSource("option", setting.option)
            values[name] = None if override == "" and setting.default is None else override
        elif entry := environment.value_of(name):
            values[name], sources[name] = entry
    return values, sources


def _validate(
    values: Mapping[str, Any], sources: Mapping[str, SettingSource]
) -> tuple[dict[str, Any] | None, list[Diagnostic]]:
    """Return the validated settings, or None and their problems."""
    try:
        read = _VARIABLES(**values).model_dump(exclude_unset=True)
    except ValidationError as error:
        return None, [
            invalid(sources[name].name, _message(SETTINGS[name], values[name], dict(details)))
            for details in error.errors(include_url=False, include_input=False)
            if (name := str(details["loc"][0]))
        ]
    return read | {name: Secret(text) for name, text in read.items() if text and SETTINGS[name].secret}, []


def _apply_shard(read: dict[str, Any], sources: Mapping[str, SettingSource]) -> tuple[str, ...]:
    """Name the instance after the shard; return the warnings."""
    shard = Shard.read(read["shard"], read.get("shards"))
    # Shards on one host, or with the same variables, must not report their own metrics as one process.
    read["instance"] = f"{read.get('instance') or socket.gethostname()}-{shard.index}"
    if shard.count == (read.get("shards") or shard.count):
        return ()
    text = (
        f"{sources['shard'].name}: {shard.index} is not below {sources['shards'].name}, which is "
        f"{read['shards']}; this process polls as shard {shard} until it is stopped, and other "
        "shards poll its servers as well"
    )
    return (text,)


def _signals(values: Mapping[str, Any]) -> list[Signal]:
    """Return the signals to push in addition to the metrics."""
    switches: dict[Signal, str] = {"traces": "traces", "logs": "otlp_logs"}
    return [signal for signal, name in switches.items() if values.get(name, SETTINGS[name].default)]


def _message(setting: Setting, value: object, error: dict[str, Any]) -> str:
    """Return a message for pydantic's error: the value (masked if secret), its problem, an example."""
    example = f"write one like {setting.example}"
    if setting.secret:
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
        case kind if kind.startswith("float_") and setting.type is Share:
            return f"{value!r} is not a share; {example}"
        case "literal_error":
            return unknown_choice(str(value), setting.choices, setting.example)
        case "greater_than_equal":
            return f"{value!r} is too small; write at least {setting.format(context['ge'])}"
        case "less_than_equal":
            return f"{value!r} is too large; write at most {setting.format(context['le'])}"
        case "string_too_short":
            return f"is empty; {example}"
        case kind if kind.startswith("int_"):
            return f"{value!r} is not a whole number; {example}"
        case _:
            return f"{value!r} is not accepted; {example}"
