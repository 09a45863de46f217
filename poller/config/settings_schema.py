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


Share = Annotated[float, BeforeValidator(_share)]
"""Fraction of 1, written as `10%` or `0.1`."""


def _names(*names: str) -> AliasChoices:
    return AliasChoices(*names)


class Variables(BaseSettings):
    """The settings as users write them; `poller.config.load_settings.load` reports all problems at once.

    Each field's `validation_alias` lists its variables in the order of precedence: the poller's own, the
    server's (`OBSCURA_*`), OpenTelemetry's. Durations are in seconds.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, hide_input_in_errors=True, loc_by_alias=False,
        case_sensitive=True,
    )  # fmt: skip

    database_url: SecretStr | None = Field(
        default=None,
        validation_alias=_names("POLLER_DATABASE_URL"),
        description="Read replica, as a libpq URI or keyword string; unset: libpq's own PG* variables.",
        examples=[A_DATABASE],
    )
    queries: str = Field(
        default="shipped",
        validation_alias=_names("POLLER_QUERIES"),
        description="Query files and folders, joined by ':'; 'shipped' and 'extended' are packaged folders.",
        examples=["shipped:/etc/poller/queries"],
        min_length=1,
    )
    watch: bool = Field(
        default=True,
        validation_alias=_names("POLLER_WATCH"),
        description="Reload the query files when they change; false: on SIGHUP only.",
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
        description="Maximum run time of a query that declares no timeout, enforced by the server.",
        examples=["30s"],
        ge=0.001,
        le=86400,
    )
    lock_timeout: Duration = Field(
        default=1.0,
        validation_alias=_names("POLLER_LOCK_TIMEOUT"),
        description="Maximum time that a query waits for a lock, enforced by the server.",
        examples=["1s"],
        ge=0.001,
        le=86400,
    )
    connect_timeout: Duration = Field(
        default=10.0,
        validation_alias=_names("POLLER_CONNECT_TIMEOUT"),
        description="Maximum time to connect to one host of the database.",
        examples=["10s"],
        ge=0.1,
        le=3600,
    )
    require_standby: Annotated[RequireStandby, BeforeValidator(lower)] = Field(
        default="warn",
        validation_alias=_names("POLLER_REQUIRE_STANDBY"),
        description="On a primary: warn logs one warning, true sends no query, false allows it silently.",
        examples=["true"],
    )
    max_replay_lag: Duration | None = Field(
        default=None,
        validation_alias=_names("POLLER_MAX_REPLAY_LAG"),
        description="Replay lag above which polls are skipped, also while it is unknown; unset: no limit.",
        examples=["60s"],
        ge=0.001,
        le=86400,
    )
    max_duty_cycle: Share = Field(
        default=0.1,
        validation_alias=_names("POLLER_MAX_DUTY_CYCLE"),
        description="Share of the time that one query may run; slower queries are polled less often.",
        examples=["10%"],
        gt=0,
        le=1,
    )
    max_active_backends: int | None = Field(
        default=None,
        validation_alias=_names("POLLER_MAX_ACTIVE_BACKENDS"),
        description="Active backends of other clients above which queries of 1s or longer are postponed.",
        examples=["50"],
        ge=1,
        le=1_000_000,
    )
    strict: bool = Field(
        default=False,
        validation_alias=_names("POLLER_STRICT"),
        description="Send no query if the role may do more than read.",
        examples=["true"],
    )
    password_command: SecretStr | None = Field(
        default=None,
        validation_alias=_names("POLLER_PASSWORD_COMMAND"),
        description="Command that prints the password, run before every connect, without a shell.",
        examples=["cat /run/secrets/password"],
        min_length=1,
    )
    max_series: int = Field(
        default=DEFAULT_MAX_SERIES,
        validation_alias=_names("POLLER_MAX_SERIES"),
        description="Maximum rows of a result if the query declares no max_series; further rows are counted.",
        examples=["1000"],
        ge=1,
        le=1_000_000,
    )
    max_result_size: ByteSize = Field(
        default=ByteSize(16 * 2**20),
        validation_alias=_names("POLLER_MAX_RESULT_SIZE"),
        description="Maximum size of one result; a larger one is cancelled and fails the query (too_large).",
        examples=["16MiB"],
        ge=2**16,
        le=2**32,
    )
    namespace: str = Field(
        default="",
        validation_alias=_names("POLLER_NAMESPACE"),
        description="Prefix of every metric name, joined with an underscore; empty: names as declared.",
        examples=["obscura"],
        pattern=r"^([a-z][a-z0-9_.]{0,62})?$",
    )
    instance: str = Field(
        default_factory=socket.gethostname,
        validation_alias=_names("POLLER_INSTANCE"),
        description="Stable name of this poller, exported as service.instance.id; unset: the host name.",
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
        description="Collector to push to; unset: results are logged and nothing is pushed.",
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
    # The specification defines the OTEL_ timeouts in milliseconds, but the Python SDK (1.45) and its users
    # use seconds, as this setting does.
    export_timeout: Duration = Field(
        default=10.0,
        validation_alias=_names(
            "POLLER_EXPORT_TIMEOUT", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"
        ),
        description="Maximum time of one export request, and of the push of poll --push. "
        "A plain number means seconds, also in OTEL_*, where numbers from 1000 on are rejected.",
        examples=["10s"],
        ge=0.1,
        le=3600,
    )
    state_dir: Path | None = Field(
        default=None,
        validation_alias=_names("POLLER_STATE_DIR"),
        description="Folder for last values and undelivered exports, used after a restart; unset: none.",
        examples=["/var/lib/poller"],
    )
    spool_max_size: ByteSize = Field(
        default=ByteSize(256 * 2**20),
        validation_alias=_names("POLLER_SPOOL_MAX_SIZE"),
        description="Maximum size of undelivered exports; the oldest are dropped first.",
        examples=["256MiB"],
        ge=2**20,
        le=2**40,
    )
    spool_max_age: Duration = Field(
        default=86400.0,
        validation_alias=_names("POLLER_SPOOL_MAX_AGE"),
        description="Maximum age of undelivered exports; older ones are dropped.",
        examples=["24h"],
        ge=60,
        le=30 * 86400,
    )
    log_format: Annotated[LogFormat, BeforeValidator(lower)] = Field(
        default="text",
        validation_alias=_names("POLLER_LOG_FORMAT", "OBSCURA_LOG_FORMAT", "OBSCURA_TELEMETRY_LOG_FORMAT"),
        description="Format of the log records on stderr: text or json.",
        examples=["json"],
    )
    log_level: Annotated[LogLevel, BeforeValidator(lower)] = Field(
        default="info",
        validation_alias=_names("POLLER_LOG_LEVEL"),
        description="Minimum severity that is logged: debug, info, warning or error.",
        examples=["debug"],
    )
    grace_period: Duration = Field(
        default=10.0,
        validation_alias=_names("POLLER_GRACE_PERIOD"),
        description="Maximum time from SIGTERM to the end of the process, including the last push.",
        examples=["10s"],
        ge=0,
        le=3600,
    )
    health_file: str | None = Field(
        default=None,
        validation_alias=_names("POLLER_HEALTH_FILE"),
        description="Heartbeat file for `poller health`; unset: in POLLER_STATE_DIR, else below /tmp.",
        examples=["/run/poller/heartbeat.json"],
    )
    service_name: str = Field(
        default="obscura-poller",
        validation_alias=_names("POLLER_SERVICE_NAME", "OTEL_SERVICE_NAME"),
        description="Resource attribute service.name of all exported data.",
        examples=["obscura-poller"],
        min_length=1,
    )
    traces: bool = Field(
        default=True,
        validation_alias=_names("POLLER_TRACES"),
        description="Push a span for every tick and each of its queries, if there is an endpoint.",
        examples=["false"],
    )
    traces_endpoint: str | None = Field(
        default=None,
        repr=False,  # it may hold a user and a password
        validation_alias=_names("POLLER_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        description="Endpoint for spans; unset: the OTLP endpoint.",
        examples=["http://collector:4317"],
    )
    otlp_logs: bool = Field(
        default=False,
        validation_alias=_names("POLLER_OTLP_LOGS"),
        description="Push the log records in addition to writing them to stderr.",
        examples=["true"],
    )
    logs_endpoint: str | None = Field(
        default=None,
        repr=False,  # it may hold a user and a password
        validation_alias=_names("POLLER_LOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"),
        description="Endpoint for log records; unset: the OTLP endpoint.",
        examples=["http://collector:4317"],
    )
    sql_comments: Annotated[SqlComments, BeforeValidator(lower)] = Field(
        default="name",
        validation_alias=_names("POLLER_SQL_COMMENTS"),
        description="Comment on each query's SQL: off for none, name, or traceparent for both.",
        examples=["traceparent"],
    )

    self_metrics: Annotated[SelfMetricsLevel, BeforeValidator(lower)] = Field(
        default="query",
        validation_alias=_names("POLLER_SELF_METRICS"),
        description="Metrics of the poller itself (poller.*): query exports all, off exports none.",
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
        """Accept values only from `load`, which reads the environment and records the sources."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    def signals(self) -> list[Signal]:
        """Return the signals to push in addition to the metrics."""
        enabled: dict[Signal, bool] = {"traces": self.traces, "logs": self.otlp_logs}
        return [signal for signal, on in enabled.items() if on]


def example_of(name: str) -> str:
    """Return an example value of a field; empty if it has none."""
    return str((Variables.model_fields[name].examples or [""])[0])
