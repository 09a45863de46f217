"""Telemetry settings of a server, loaded from the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from poller.model.errors import ConfigError
from poller.model.log_format import LogFormat, LogLevel
from poller.model.otlp_endpoint import SIGNALS, Endpoint, Signal, resolve
from poller.model.otlp_variables import OtlpVariables, resource_attributes, sdk_problems
from poller.model.text import unknown_choice

Value = TypeVar("Value")

_SERVERS = ("OBSCURA_", "OBSCURA_TELEMETRY_")
"""Prefixes of the server's own settings: in the design document, and in v0.3.13 and later."""


class TelemetryError(ValueError):
    """The environment has invalid settings; `problems` contains one line for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class SignalEndpoint(Endpoint):
    """Endpoint of one signal, with the time that a request may take."""

    timeout: float
    """Seconds for one request including all its retries."""


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """Settings for `configure_telemetry`."""

    targets: Mapping[Signal, SignalEndpoint]
    """Endpoints by exported signal; empty in logs-only mode."""
    sampling_ratio: float | None
    """Ratio of sampled traces among those that start here; None if OTEL_TRACES_SAMPLER decides."""
    metrics_interval: float
    """Export interval in seconds."""
    log_format: LogFormat
    log_level: LogLevel
    resource: Mapping[str, str]
    """Attributes from OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME."""
    shutdown_timeout: float
    """Maximum time in seconds to export the remaining data at process exit."""
    propagators_chosen: bool
    """Whether OTEL_PROPAGATORS is set."""
    warnings: tuple[str, ...]
    """Problems that do not prevent the export, without secrets."""


def load(environ: Mapping[str, str]) -> TelemetrySettings:
    """Read the settings; an empty variable counts as not set.

    Raises TelemetryError with every problem.
    """
    return _SettingReader(environ).settings()


class _SettingReader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {name: value.strip() for name, value in environ.items() if value.strip()}
        self._problems = list(map(str, sdk_problems(environ)))
        self._warnings: set[str] = set()

    def settings(self) -> TelemetrySettings:
        targets = {signal: target for signal in SIGNALS if (target := self._target(signal))}
        ratio = self._own("TRACE_SAMPLING_RATIO", _ratio, "OTEL_TRACES_SAMPLER_ARG")
        service = self._environ.get("OTEL_SERVICE_NAME")
        by_sampler = "OTEL_TRACES_SAMPLER" in self._environ and not self._find("TRACE_SAMPLING_RATIO")
        settings = TelemetrySettings(
            targets=targets,
            sampling_ratio=None if by_sampler else 1.0 if ratio is None else ratio,
            metrics_interval=self._own("METRICS_EXPORT_INTERVAL_SECS", _seconds)
            or self._parsed("OTEL_METRIC_EXPORT_INTERVAL", _milliseconds)
            or 60.0,
            log_format=self._own("LOG_FORMAT", _choice(LogFormat, "json")) or "text",
            log_level=self._own("LOG_LEVEL", _choice(LogLevel, "debug")) or "info",
            resource=resource_attributes(self._environ) | ({"service.name": service} if service else {}),
            shutdown_timeout=self._own("SERVER_SHUTDOWN_TIMEOUT_SECS", _seconds) or 5.0,
            propagators_chosen="OTEL_PROPAGATORS" in self._environ,
            warnings=tuple(sorted(self._warnings)),
        )
        if self._problems:
            raise TelemetryError(self._problems)
        return settings

    def _target(self, signal: Signal) -> SignalEndpoint | None:
        variables = OtlpVariables(self._environ, signal)
        if variables.disabled_by():
            return None
        exporter = f"OTEL_{signal.upper()}_EXPORTER"
        if (choice := self._environ.get(exporter, "otlp").lower()) != "otlp":
            self._problems.append(f"{exporter}: {choice!r} is not supported; write otlp or none")
        where = self._find("OTLP_ENDPOINT") or variables.where("ENDPOINT")
        if where is None:
            return None
        timeout = self._own("EXPORT_TIMEOUT_SECS", _seconds) or self._parsed(
            variables.where("TIMEOUT"), _few_seconds
        )
        protocol = self._checked(variables.protocol)
        endpoint = self._checked(
            lambda: resolve(
                self._environ[where],
                where,
                protocol,
                signal,
                protocol_setting="OTEL_EXPORTER_OTLP_PROTOCOL",
                warn=self._warnings.add,
            )
        )
        return SignalEndpoint(endpoint.url, endpoint.protocol, timeout or 10.0) if endpoint else None

    def _find(self, name: str) -> str | None:
        return next((prefix + name for prefix in _SERVERS if prefix + name in self._environ), None)

    def _own(self, name: str, parse: Callable[[str], Value], standard: str | None = None) -> Value | None:
        """Return the value of the server's own setting, or else of a standard variable."""
        return self._parsed(self._find(name) or standard, parse)

    def _parsed(self, name: str | None, parse: Callable[[str], Value]) -> Value | None:
        if name is None or name not in self._environ:
            return None
        try:
            return parse(self._environ[name])
        except ValueError as error:
            self._add_problems(f"{name}: {error}")
            return None

    def _checked(self, read: Callable[[], Value]) -> Value | None:
        try:
            return read()
        except ConfigError as error:
            self._add_problems(*map(str, error.problems))
            return None

    def _add_problems(self, *problems: str) -> None:
        # A variable may be parsed once for each signal.
        self._problems += [problem for problem in problems if problem not in self._problems]


def _ratio(value: str) -> float:
    try:
        ratio = float(value[:-1]) / 100 if value.endswith("%") else float(value)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise ValueError(f"{value!r} is not a ratio; write one from 0 to 1, like 0.1, or 10%")
    return ratio


def _seconds(value: str) -> float:
    return _positive(value, "seconds", "10")


def _few_seconds(value: str) -> float:
    # The Python SDK reads seconds; the specification and the other SDKs use milliseconds.
    if (seconds := _positive(value, "seconds", "10")) >= 1000:
        raise ValueError(
            f"{value!r} is read as seconds, but the specification uses milliseconds; write {seconds / 1000:g}"
        )
    return seconds


def _milliseconds(value: str) -> float:
    return _positive(value, "milliseconds", "60000") / 1000


def _positive(value: str, unit: str, example: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"{value!r} is not a number of {unit} above 0; write one like {example}")
    return number


def _choice(literal: Any, example: str) -> Callable[[str], Any]:
    """Return a parser of the values of a Literal, in any case."""
    choices = get_args(literal)

    def parse(value: str) -> Any:
        if (small := value.lower()) not in choices:
            raise ValueError(unknown_choice(value, choices, example))
        return small

    return parse
