"""Effective settings of the poller, with the source of each value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from poller.config.endpoint import Endpoint, Protocol, Signal
from poller.model.catalog import Defaults
from poller.model.duration import format_duration
from poller.model.errors import ConfigError, Problem
from poller.model.secrets import MASK, Secret, mask_conninfo, mask_url, read_secret

RequireStandby = Literal["warn", "true", "false"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
SqlComments = Literal["off", "name", "traceparent"]
SelfMetricsLevel = Literal["query", "off"]

A_DATABASE = "postgresql://poller@replica:5432/app"
"""What one may write for POLLER_DATABASE_URL."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from."""

    kind: Literal["option", "variable", "default"]
    name: str = ""
    """`--interval` or `POLLER_INTERVAL`."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The effective settings, made by `load_settings`; `settings_schema` says what each means.

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
    """A share of 1."""
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
    """Where the value of each field came from that is not its default."""
    warnings: tuple[str, ...]
    """What looks like a mistake in the environment and stops nothing."""
    endpoint: Endpoint | None
    """Where to push, ready for use; None in logs-only mode."""
    others: Mapping[Signal, Endpoint]
    """Endpoints of traces and logs."""
    libpq: bool
    """Whether libpq's own environment describes the database."""
    database_file: Path | None
    """What the connection string is read from."""

    @property
    def defaults(self) -> Defaults:
        """What a query gets where it declares nothing."""
        return Defaults(self.interval, self.timeout, self.max_series, self.namespace)

    @property
    def traces_to(self) -> Endpoint | None:
        """Where to push spans, ready for use; None where they are not wanted or nothing says where."""
        return self.others.get("traces")

    @property
    def logs_to(self) -> Endpoint | None:
        """Where to push log records, ready for use; None where they are not wanted or nothing says where."""
        return self.others.get("logs")

    def source(self, name: str) -> Source:
        """Tell where the value of the field `name` came from."""
        return self.sources.get(name, Source("default"))

    def conninfo(self) -> str:
        """The database as a libpq connection string; empty where libpq's own environment describes it.

        A file of POLLER_DATABASE_URL_FILE is read anew each time, as what is in it may rotate; raises OSError
        where it cannot be read or is empty by now, UnicodeError where it is no text. Raises ConfigError where
        no database is named.
        """
        if self.database_file is not None:
            return read_secret(self.database_file)
        if self.database_url is not None:
            return self.database_url.reveal()
        if self.libpq:
            return ""
        raise ConfigError(
            [
                Problem(
                    "POLLER_DATABASE_URL",
                    f"is not set, so there is no database to poll; write one like {A_DATABASE}, "
                    "or set PGHOST or PGSERVICE",
                )
            ]
        )

    def text_of(self, name: str) -> str:
        """The value of the field `name` as text for people, secrets masked; empty where it is unset."""
        value = getattr(self, name)
        if isinstance(value, Secret):
            # Of a command nothing is shown: it may hold a token anywhere.
            return mask_conninfo(value.reveal()) if name == "database_url" else MASK
        if name.endswith("_endpoint") and value is not None:
            return mask_url(value)
        return format_value(name, value)


def format_value(name: str, value: object) -> str:
    """A value of the field `name` the way one writes it; empty where there is none."""
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
    """The command-line option of a field: `max_series` -> `--max-series`."""
    return "--" + name.replace("_", "-")


def _size(count: int) -> str:
    """Bytes in the largest unit of which there is one: 268435456 -> `256MiB`."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    power = min((max(count, 1).bit_length() - 1) // 10, len(units) - 1)
    return f"{count / 1024**power:.1f}".removesuffix(".0") + units[power]
