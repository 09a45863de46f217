"""Schema of the settings: environment variables, descriptions and accepted values."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

from pydantic import AliasChoices, BeforeValidator, ByteSize, Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from poller.config.endpoint import Protocol, Signal
from poller.config.queries.schema.fields import Duration
from poller.config.settings import (
    A_DATABASE,
    LogFormat,
    LogLevel,
    RequireStandby,
    SelfMetricsLevel,
    SqlComments,
)
from poller.model.query import DEFAULT_INTERVAL, DEFAULT_MAX_SERIES, DEFAULT_TIMEOUT


def lower(value: object) -> object:
    """A word as it is compared: without blanks around it, in lower case."""
    return value.strip().lower() if isinstance(value, str) else value


def _share(value: object) -> object:
    """Turn `10%` into 0.1; pydantic reads any other number."""
    if isinstance(value, str) and (text := value.strip()).endswith("%"):
        try:
            return float(text[:-1]) / 100
        except ValueError:
            return value
    return value


Share = Annotated[float, BeforeValidator(_share)]
"""A share of 1; written `10%` or `0.1`."""


def _names(*names: str) -> AliasChoices:
    return AliasChoices(*names)


class Variables(BaseSettings):
    """The settings as they are written; `poller.config.load_settings.load` finds every problem at once.

    Each field's `validation_alias` lists its variables, first come, first served: the poller's own, the
    server's (`OBSCURA_*`), OpenTelemetry's. Durations are in seconds.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, hide_input_in_errors=True, loc_by_alias=False,
        case_sensitive=True,
    )  # fmt: skip

    database_url: SecretStr | None = Field(
        default=None,
        validation_alias=_names("POLLER_DATABASE_URL"),
        description="The replica, as a libpq URI or keyword string; unset: libpq's own PG* variables.",
        examples=[A_DATABASE],
    )
    queries: str = Field(
        default="shipped",
        validation_alias=_names("POLLER_QUERIES"),
        description="Query files and folders, joined by ':'; 'shipped' and 'extended' are the packaged ones.",
        examples=["shipped:/etc/poller/queries"],
        min_length=1,
    )
    watch: bool = Field(
        default=True,
        validation_alias=_names("POLLER_WATCH"),
        description="Read the query files again when they change; false: on SIGHUP only.",
        examples=["false"],
    )
    interval: Duration = Field(
        default=DEFAULT_INTERVAL,
        validation_alias=_names("POLLER_INTERVAL"),
        description="Time between two polls of a query that declares no interval.",
        examples=["5m"],
        ge=1,
        le=86400,
    )
    timeout: Duration = Field(
        default=DEFAULT_TIMEOUT,
        validation_alias=_names("POLLER_TIMEOUT"),
        description="Longest run of a query that declares no timeout, enforced by the server.",
        examples=["30s"],
        ge=0.001,
        le=86400,
    )
    lock_timeout: Duration = Field(
        default=1.0,
        validation_alias=_names("POLLER_LOCK_TIMEOUT"),
        description="Longest wait of a query for a lock, enforced by the server.",
        examples=["1s"],
        ge=0.001,
        le=86400,
    )
    connect_timeout: Duration = Field(
        default=10.0,
        validation_alias=_names("POLLER_CONNECT_TIMEOUT"),
        description="Longest attempt to connect to one host of the database.",
        examples=["10s"],
        ge=0.1,
        le=3600,
    )
    require_standby: Annotated[RequireStandby, BeforeValidator(lower)] = Field(
        default="warn",
        validation_alias=_names("POLLER_REQUIRE_STANDBY"),
        description="On a primary: warn says so once, true sends it no query, false says nothing.",
        examples=["true"],
    )
    max_replay_lag: Duration | None = Field(
        default=None,
        validation_alias=_names("POLLER_MAX_REPLAY_LAG"),
        description="Replay lag above which (or while it is unknown) polls are skipped; unset: any will do.",
        examples=["60s"],
        ge=0.001,
        le=86400,
    )
    max_duty_cycle: Share = Field(
        default=0.1,
        validation_alias=_names("POLLER_MAX_DUTY_CYCLE"),
        description="Share of the time that one query may run; a slower one is polled less often.",
        examples=["10%"],
        gt=0,
        le=1,
    )
    max_active_backends: int | None = Field(
        default=None,
        validation_alias=_names("POLLER_MAX_ACTIVE_BACKENDS"),
        description="Active backends of others above which queries that take a second or longer wait.",
        examples=["50"],
        ge=1,
        le=1_000_000,
    )
    strict: bool = Field(
        default=False,
        validation_alias=_names("POLLER_STRICT"),
        description="Send nothing with a role that may do more than read.",
        examples=["true"],
    )
    password_command: SecretStr | None = Field(
        default=None,
        validation_alias=_names("POLLER_PASSWORD_COMMAND"),
        description="Command that writes the password on stdout, run before every connect, without a shell.",
        examples=["cat /run/secrets/password"],
        min_length=1,
    )
    max_series: int = Field(
        default=DEFAULT_MAX_SERIES,
        validation_alias=_names("POLLER_MAX_SERIES"),
        description="Rows kept of one result, for a query that declares no max_series; the rest is counted.",
        examples=["1000"],
        ge=1,
        le=1_000_000,
    )
    max_result_size: ByteSize = Field(
        default=ByteSize(16 * 2**20),
        validation_alias=_names("POLLER_MAX_RESULT_SIZE"),
        description="Most bytes of one result; a query that sends more is cancelled and fails (too_large).",
        examples=["16MiB"],
        ge=2**16,
        le=2**32,
    )
    namespace: str = Field(
        default="",
        validation_alias=_names("POLLER_NAMESPACE"),
        description="Put before the name of every metric, with an underscore; empty: names as declared.",
        examples=["obscura"],
        pattern=r"^([a-z][a-z0-9_.]{0,62})?$",
    )
    instance: str = Field(
        default_factory=socket.gethostname,
        validation_alias=_names("POLLER_INSTANCE"),
        description="Lasting name of this poller, its service.instance.id; unset: the host's name.",
        examples=["poller-0"],
        min_length=1,
    )
    otlp_endpoint: str | None = Field(
        default=None,
        repr=False,  # it may hold a user and a password
        validation_alias=_names(
            "POLLER_OTLP_ENDPOINT",
            "OBSCURA_OTLP_ENDPOINT",
            "OBSCURA_TELEMETRY_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        description="The collector to push to; unset: results are logged and nothing is pushed.",
        examples=["http://collector:4317"],
    )
    otlp_protocol: Annotated[Protocol, BeforeValidator(lower)] | None = Field(
        default=None,
        validation_alias=_names(
            "POLLER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"
        ),
        description="grpc or http/protobuf; unset: HTTP for port 4318 or a URL with a path, else gRPC.",
        examples=["http/protobuf"],
    )
    export_interval: Duration = Field(
        default=60.0,
        validation_alias=_names("POLLER_EXPORT_INTERVAL", "OTEL_METRIC_EXPORT_INTERVAL"),
        description="Time between two pushes (in OTEL_METRIC_EXPORT_INTERVAL a number of milliseconds).",
        examples=["60s"],
        ge=0.1,
        le=86400,
    )
    # The specification says milliseconds for the OTEL_ timeouts; the Python SDK (1.45) reads seconds, and its
    # users have set them so. We follow the SDK.
    export_timeout: Duration = Field(
        default=10.0,
        validation_alias=_names(
            "POLLER_EXPORT_TIMEOUT", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"
        ),
        description="Longest wait for the answer to one request; poll --push gives up after as long. "
        "A plain number means seconds, also in OTEL_*. Numbers from 1000 on are rejected there.",
        examples=["10s"],
        ge=0.1,
        le=3600,
    )
    state_dir: Path | None = Field(
        default=None,
        validation_alias=_names("POLLER_STATE_DIR"),
        description="Folder for what outlives the process: last values, undelivered exports; unset: none.",
        examples=["/var/lib/poller"],
    )
    spool_max_size: ByteSize = Field(
        default=ByteSize(256 * 2**20),
        validation_alias=_names("POLLER_SPOOL_MAX_SIZE"),
        description="Most that is kept of what the collector did not take; the oldest is dropped first.",
        examples=["256MiB"],
        ge=2**20,
        le=2**40,
    )
    spool_max_age: Duration = Field(
        default=86400.0,
        validation_alias=_names("POLLER_SPOOL_MAX_AGE"),
        description="Age from which on what the collector did not take is dropped.",
        examples=["24h"],
        ge=60,
        le=30 * 86400,
    )
    log_format: Annotated[LogFormat, BeforeValidator(lower)] = Field(
        default="text",
        validation_alias=_names("POLLER_LOG_FORMAT", "OBSCURA_LOG_FORMAT", "OBSCURA_TELEMETRY_LOG_FORMAT"),
        description="Form of the log records on stderr: text or json.",
        examples=["json"],
    )
    log_level: Annotated[LogLevel, BeforeValidator(lower)] = Field(
        default="info",
        validation_alias=_names("POLLER_LOG_LEVEL"),
        description="Least severity that is logged: debug, info, warning or error.",
        examples=["debug"],
    )
    grace_period: Duration = Field(
        default=10.0,
        validation_alias=_names("POLLER_GRACE_PERIOD"),
        description="Time from SIGTERM to the end of the process, the last push included.",
        examples=["10s"],
        ge=0,
        le=3600,
    )
    health_file: str | None = Field(
        default=None,
        validation_alias=_names("POLLER_HEALTH_FILE"),
        description="Heartbeat that `poller health` reads; unset: in POLLER_STATE_DIR, else below /tmp.",
        examples=["/run/poller/heartbeat.json"],
    )
    service_name: str = Field(
        default="obscura-poller",
        validation_alias=_names("POLLER_SERVICE_NAME", "OTEL_SERVICE_NAME"),
        description="Resource attribute service.name of everything pushed.",
        examples=["obscura-poller"],
        min_length=1,
    )
    traces: bool = Field(
        default=True,
        validation_alias=_names("POLLER_TRACES"),
        description="Push a span for every tick and every query of it, where there is an endpoint.",
        examples=["false"],
    )
    traces_endpoint: str | None = Field(
        default=None,
        repr=False,  # it may hold a user and a password
        validation_alias=_names("POLLER_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        description="Where spans are pushed; unset: to the OTLP endpoint.",
        examples=["http://collector:4317"],
    )
    otlp_logs: bool = Field(
        default=False,
        validation_alias=_names("POLLER_OTLP_LOGS"),
        description="Push the log records as well, beside writing them to stderr.",
        examples=["true"],
    )
    logs_endpoint: str | None = Field(
        default=None,
        repr=False,  # it may hold a user and a password
        validation_alias=_names("POLLER_LOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
        description="Where log records are pushed; unset: to the OTLP endpoint.",
        examples=["http://collector:4317"],
    )
    sql_comments: Annotated[SqlComments, BeforeValidator(lower)] = Field(
        default="name",
        validation_alias=_names("POLLER_SQL_COMMENTS"),
        description="What a comment on each query's SQL says: nothing, its name, or its traceparent as well.",
        examples=["traceparent"],
    )

    self_metrics: Annotated[SelfMetricsLevel, BeforeValidator(lower)] = Field(
        default="query",
        validation_alias=_names("POLLER_SELF_METRICS"),
        description="Metrics of the poller itself (poller.*): query exports all of them, off none.",
        examples=["off"],
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values only from `load`, which has read the environment and knows where each came from."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    def signals(self) -> list[Signal]:
        """Return the signals to push in addition to the metrics."""
        wanted: dict[Signal, bool] = {"traces": self.traces, "logs": self.otlp_logs}
        return [signal for signal, on in wanted.items() if on]


def example_of(name: str) -> str:
    """What one may write for a field."""
    return str((Variables.model_fields[name].examples or [""])[0])
