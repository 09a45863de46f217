"""Effective settings of the poller, with the source of each value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from poller.config.endpoint import Endpoint, Protocol, Signal
from poller.model.catalog import Defaults
from poller.model.diagnostics import invalid
from poller.model.duration import format_duration
from poller.model.errors import ConfigError
from poller.model.secrets import MASK, Secret, mask_conninfo, mask_url, read_secret

RequireStandby = Literal["warn", "true", "false"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
SqlComments = Literal["off", "name", "traceparent"]
SelfMetricsLevel = Literal["query", "off"]

A_DATABASE = "postgresql://poller@replica:5432/app"
"""Example of POLLER_DATABASE_URL."""


@dataclass(frozen=True, slots=True)
class Source:
    """Source of a setting's value."""

    kind: Literal["option", "variable", "default"]
    name: str = ""
    """`--interval` or `POLLER_INTERVAL`."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The effective settings, created by `load_settings`; `settings_schema` describes each.

    Durations are in seconds.
    """

    database_url: Secret | None
    queries: str
    watch: bool
    interval: float
    timeout: float
    lock_timeout: float
    connect_timeout: float
    require_standby: RequireStandby
    max_replay_lag: float | None
    max_duty_cycle: float
    """Fraction of 1."""
    max_active_backends: int | None
    strict: bool
    password_command: Secret | None
    max_series: int
    max_result_size: int
    """Bytes."""
    namespace: str
    instance: str
    otlp_endpoint: str | None = field(repr=False)  # it may hold a user and a password
    otlp_protocol: Protocol | None
    export_interval: float
    export_timeout: float
    state_dir: Path | None
    spool_max_size: int
    """Bytes."""
    spool_max_age: float
    log_format: LogFormat
    log_level: LogLevel
    grace_period: float
    health_file: str | None
    service_name: str
    traces: bool
    traces_endpoint: str | None = field(repr=False)
    otlp_logs: bool
    logs_endpoint: str | None = field(repr=False)
    sql_comments: SqlComments
    self_metrics: SelfMetricsLevel

    sources: Mapping[str, Source] = field(repr=False)
    """Source of each field that does not have its default."""
    warnings: tuple[str, ...]
    """Likely mistakes in the environment, which are not errors."""
    endpoint: Endpoint | None
    """Endpoint of metrics; None in logs-only mode."""
    others: Mapping[Signal, Endpoint]
    """Endpoints of traces and logs."""
    libpq: bool
    """Whether libpq's own environment describes the database."""
    database_file: Path | None
    """File that contains the connection string."""

    @property
    def defaults(self) -> Defaults:
        """Defaults of the keys that a query omits."""
        return Defaults(self.interval, self.timeout, self.max_series, self.namespace)

    @property
    def traces_to(self) -> Endpoint | None:
        """Endpoint of spans; None if they are disabled or no endpoint is set."""
        return self.others.get("traces")

    @property
    def logs_to(self) -> Endpoint | None:
        """Endpoint of log records; None if they are disabled or no endpoint is set."""
        return self.others.get("logs")

    def source(self, name: str) -> Source:
        """Return the source of the field `name`."""
        return self.sources.get(name, Source("default"))

    def conninfo(self) -> str:
        """Return the database as a libpq connection string; empty if libpq's own environment describes it.

        The file of POLLER_DATABASE_URL_FILE is read each time, because its secret may rotate. Raises OSError
        if it cannot be read or is empty, UnicodeError if it is not text, and ConfigError if no database is
        configured.
        """
        if self.database_file is not None:
            return read_secret(self.database_file)
        if self.database_url is not None:
            return self.database_url.reveal()
        if self.libpq:
            return ""
        raise ConfigError(
            [
                invalid(
                    "POLLER_DATABASE_URL",
                    f"is not set, so there is no database to poll; write one like {A_DATABASE}, "
                    "or set PGHOST or PGSERVICE",
                )
            ]
        )

    def text_of(self, name: str) -> str:
        """Return the value of the field `name` as text with masked secrets; empty if it is unset."""
        value = getattr(self, name)
        if isinstance(value, Secret):
            # A command is masked completely, because any part of it may be a token.
            return mask_conninfo(value.reveal()) if name == "database_url" else MASK
        if name.endswith("_endpoint") and value is not None:
            return mask_url(value)
        return format_value(name, value)


def format_value(name: str, value: object) -> str:
    """Format a value of the field `name` as users write it; empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if name.endswith("_size") and isinstance(value, int):
        return _size(value)
    if isinstance(value, float):
        return f"{value * 100:g}%" if name == "max_duty_cycle" else format_duration(value)
    return str(value)


def option(name: str) -> str:
    """Return the command-line option of a field: `max_series` -> `--max-series`."""
    return "--" + name.replace("_", "-")


def _size(count: int) -> str:
    """Format bytes in the largest unit that fits: 268435456 -> `256MiB`."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    power = min((max(count, 1).bit_length() - 1) // 10, len(units) - 1)
    return f"{count / 1024**power:.1f}".removesuffix(".0") + units[power]
