"""Settings of the poller: their table, and the effective values with their sources."""

# Without postponed annotations: `SETTINGS` needs the types themselves.
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from poller.config.setting import Seconds, Setting, Share, Size, declarations, setting
from poller.model.catalog import Defaults
from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.model.log_format import LogFormat, LogLevel
from poller.model.otlp_endpoint import Endpoint, Protocol, Signal
from poller.model.query import DEFAULT_INTERVAL, DEFAULT_MAX_SERIES, DEFAULT_TIMEOUT
from poller.model.secrets import MASK, Secret, mask_conninfo, mask_url
from poller.model.shards import MAX_SHARDS, SHARD, Shard
from poller.model.target import RequireStandby, Target

KUBERNETES = "kubernetes:"
"""Prefix of POLLER_LEADER_ELECTION that is followed by the name of a Lease."""
A_DATABASE = "postgresql://poller@replica:5432/app"
"""Example of POLLER_DATABASE_URL."""


@dataclass(frozen=True, slots=True)
class SettingSource:
    """Source of a setting's value."""

    kind: Literal["option", "variable", "default"]
    name: str = ""
    """`--interval` or `POLLER_INTERVAL`."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The effective settings, created by `load_settings`. Each field with `setting` declares one."""

    database_url: Secret | None = setting(
        "Read replica, as a libpq URI or keyword string; unset: libpq's own PG* variables.",
        example=A_DATABASE,
    )
    targets: Path | None = setting(
        "Targets file, or a folder of them, to poll many databases; excludes POLLER_DATABASE_URL.",
        example="/etc/poller/targets.yaml",
    )
    shard: str | None = setting(
        "Part of the targets' servers to poll, counted from 0: 2/5, or 2 with POLLER_SHARDS; unset: all.",
        example="2/5",
        pattern=f"^{SHARD}$",
    )
    shards: int | None = setting(
        "Number of shards, if POLLER_SHARD is only the index of this one, such as a pod's.",
        example="5",
        bounds=(1, MAX_SHARDS),
    )
    max_connections: int = setting(
        "Maximum number of databases that are polled at the same time.", 8, example="8", bounds=(1, 64)
    )
    leader_election: Secret | None = setting(
        "Where several pollers elect the one that polls: a PostgreSQL server, or kubernetes:LEASE; needs "
        "POLLER_TARGETS. Unset: always poll.",
        example="postgresql://poller@elections:5432/postgres",
    )
    leader_ttl: Seconds = setting(
        "Time without a confirmation after which another poller may become the leader.",
        30.0,
        example="30s",
        bounds=(3, 600),
    )
    queries: str = setting(
        "Query files and folders, joined by ':'; 'shipped' and 'extended' are packaged folders.",
        "shipped",
        example="shipped:/etc/poller/queries",
        min_length=1,
    )
    watch: bool = setting(
        "Reload the query files and targets when they change; false: on SIGHUP only.", True, example="false"
    )
    interval: Seconds = setting(
        "Time between two polls of a query that declares no interval.",
        DEFAULT_INTERVAL,
        example="5m",
        bounds=(1, 86400),
    )
    timeout: Seconds = setting(
        "Maximum run time of a query that declares no timeout, enforced by the server.",
        DEFAULT_TIMEOUT,
        example="30s",
        bounds=(0.001, 86400),
    )
    lock_timeout: Seconds = setting(
        "Maximum time that a query waits for a lock, enforced by the server.",
        1.0,
        example="1s",
        bounds=(0.001, 86400),
    )
    connect_timeout: Seconds = setting(
        "Maximum time to connect to one host of the database.", 10.0, example="10s", bounds=(0.1, 3600)
    )
    require_standby: RequireStandby = setting(
        "On a primary: warn logs one warning, true sends no query, false allows it silently.",
        "warn",
        example="true",
    )
    max_replay_lag: Seconds | None = setting(
        "Replay lag above which polls are skipped, also while it is unknown; unset: no limit.",
        example="60s",
        bounds=(0.001, 86400),
    )
    max_duty_cycle: Share = setting(
        "Share of the time that one query may run; slower queries are polled less often.",
        0.1,
        example="10%",
        le=1,
        gt=0,
    )
    max_active_backends: int | None = setting(
        "Active backends of other clients above which queries of 1s or longer are postponed.",
        example="50",
        bounds=(1, 1_000_000),
    )
    strict: bool = setting("Send no query if the role may do more than read.", False, example="true")
    password_command: Secret | None = setting(
        "Command that prints the password, run before every connect, without a shell.",
        example="cat /run/secrets/password",
        min_length=1,
    )
    max_series: int = setting(
        "Maximum rows of a result if the query declares no max_series; further rows are counted.",
        DEFAULT_MAX_SERIES,
        example="1000",
        bounds=(1, 1_000_000),
    )
    max_cost: float | None = setting(
        "Planner cost above which a query is skipped if it declares no max_cost; unset: no limit.",
        example="1000000",
        bounds=(0.01, 1e300),
    )
    max_result_size: Size = setting(
        "Maximum size of one result; a larger one is cancelled and fails the query (too_large).",
        16 * 2**20,
        example="16MiB",
        bounds=(2**16, 2**32),
    )
    namespace: str = setting(
        "Prefix of every metric name, joined with an underscore; empty: names as declared.",
        "",
        example="obscura",
        pattern=r"^([a-z][a-z0-9_.]{0,62})?$",
    )
    instance: str = setting(
        "Stable name of this poller, exported as service.instance.id; unset: the host name. "
        "With POLLER_SHARD, the index of the shard is appended.",
        socket.gethostname,
        example="poller-0",
        min_length=1,
    )
    otlp_endpoint: str | None = setting(
        "Collector to push to; unset: results are logged and nothing is pushed.",
        example="http://collector:4317",
        others=(
            "OBSCURA_OTLP_ENDPOINT",
            "OBSCURA_TELEMETRY_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        show=False,  # it may hold a user and a password
    )
    otlp_protocol: Protocol | None = setting(
        "grpc or http/protobuf; unset: HTTP for port 4318 or a URL with a path, else gRPC.",
        example="http/protobuf",
        others=(
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ),
    )
    export_interval: Seconds = setting(
        "Time between two pushes (in OTEL_METRIC_EXPORT_INTERVAL a number of milliseconds).",
        60.0,
        example="60s",
        others=("OTEL_METRIC_EXPORT_INTERVAL",),
        bounds=(0.1, 86400),
    )
    # The specification defines the OTEL_ timeouts in milliseconds, but the Python SDK (1.45) and its users
    # use seconds, as this setting does.
    export_timeout: Seconds = setting(
        "Maximum time of one export request, and of the push of poll --push. "
        "A plain number means seconds, also in OTEL_*, where numbers from 1000 on are rejected.",
        10.0,
        example="10s",
        others=(
            "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
            "OTEL_EXPORTER_OTLP_TIMEOUT",
        ),
        bounds=(0.1, 3600),
    )
    state_dir: Path | None = setting(
        "Folder for last values and undelivered exports, used after a restart; unset: none.",
        example="/var/lib/poller",
    )
    spool_max_size: Size = setting(
        "Maximum size of undelivered exports; the oldest are dropped first.",
        256 * 2**20,
        example="256MiB",
        bounds=(2**20, 2**40),
    )
    spool_max_age: Seconds = setting(
        "Maximum age of undelivered exports; older ones are dropped.",
        86400.0,
        example="24h",
        bounds=(60, 30 * 86400),
    )
    log_format: LogFormat = setting(
        "Format of the log records on stderr: text or json.",
        "text",
        example="json",
        others=(
            "OBSCURA_LOG_FORMAT",
            "OBSCURA_TELEMETRY_LOG_FORMAT",
        ),
    )
    log_level: LogLevel = setting(
        "Minimum severity that is logged: debug, info, warning or error.", "info", example="debug"
    )
    grace_period: Seconds = setting(
        "Maximum time from SIGTERM to the end of the process, including the last push.",
        10.0,
        example="10s",
        bounds=(0, 3600),
    )
    health_file: str | None = setting(
        "Heartbeat file for `poller health`; unset: in POLLER_STATE_DIR, else below /tmp.",
        example="/run/poller/heartbeat.json",
    )
    service_name: str = setting(
        "Resource attribute service.name of all exported data.",
        "obscura-poller",
        example="obscura-poller",
        others=("OTEL_SERVICE_NAME",),
        min_length=1,
    )
    traces: bool = setting(
        "Push a span for every tick and each of its queries, if there is an endpoint.", True, example="false"
    )
    traces_endpoint: str | None = setting(
        "Endpoint for spans; unset: the OTLP endpoint.",
        example="http://collector:4317",
        others=("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",),
        show=False,  # it may hold a user and a password
    )
    otlp_logs: bool = setting(
        "Push the log records in addition to writing them to stderr.", False, example="true"
    )
    logs_endpoint: str | None = setting(
        "Endpoint for log records; unset: the OTLP endpoint.",
        example="http://collector:4317",
        others=("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",),
        show=False,  # it may hold a user and a password
    )
    sql_comments: Literal["off", "name", "traceparent"] = setting(
        "Comment on each query's SQL: off for none, name, or traceparent for both.",
        "name",
        example="traceparent",
    )
    self_metrics: Literal["query", "target", "off"] | None = setting(
        "Metrics of the poller itself (poller.*): of every query, of every target, or off. "
        "Unset: query, or target with POLLER_TARGETS.",
        example="off",
    )

    sources: Mapping[str, SettingSource] = field(repr=False)
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
    election_file: Path | None
    """File that contains the setting `leader_election`."""

    @property
    def defaults(self) -> Defaults:
        """Defaults of the keys that a query omits."""
        return Defaults(self.interval, self.timeout, self.max_series, self.namespace, self.max_cost)

    @property
    def traces_to(self) -> Endpoint | None:
        """Endpoint of spans; None if they are disabled or no endpoint is set."""
        return self.others.get("traces")

    @property
    def logs_to(self) -> Endpoint | None:
        """Endpoint of log records; None if they are disabled or no endpoint is set."""
        return self.others.get("logs")

    @property
    def own_metrics(self) -> Literal["query", "target", "off"]:
        """Level of the metrics of the poller itself."""
        return self.self_metrics or ("query" if self.targets is None else "target")

    @property
    def lease_name(self) -> str | None:
        """Name of the Kubernetes Lease of the leader election; None if there is none."""
        value = self.leader_election.reveal().strip() if self.leader_election else ""
        return value.removeprefix(KUBERNETES) if value.startswith(KUBERNETES) else None

    @property
    def own_shard(self) -> Shard | None:
        """The shard of this process; None if it polls all targets."""
        return Shard.read(self.shard, self.shards) if self.shard else None

    def only_target(self) -> Target:
        """Return the database of a poller without POLLER_TARGETS; raises ConfigError if there is none."""
        if self.targets is not None:
            message = "names the databases, and this command needs one of them; write --target NAME"
            raise ConfigError([invalid("POLLER_TARGETS", message)])
        if self.database_file is None and self.database_url is None and not self.libpq:
            raise ConfigError(
                [
                    invalid(
                        "POLLER_DATABASE_URL",
                        f"is not set, so there is no database to poll; write one like {A_DATABASE}, "
                        "or set PGHOST or PGSERVICE",
                    )
                ]
            )
        return Target(
            name="",
            url=self.database_url,
            url_file=self.database_file,
            password_command=self.password_command,
            connect_timeout=self.connect_timeout,
            lock_timeout=self.lock_timeout,
            require_standby=self.require_standby,
            max_replay_lag=self.max_replay_lag,
            max_active_backends=self.max_active_backends,
            strict=self.strict,
        )

    def source(self, name: str) -> SettingSource:
        """Return the source of the field `name`."""
        return self.sources.get(name, SettingSource("default"))

    def conninfo(self) -> str:
        """Return the database as a libpq connection string; empty if libpq's own environment describes it.

        Raises as `Target.conninfo` does, and ConfigError if no database is configured.
        """
        return self.only_target().conninfo()

    def text_of(self, name: str) -> str:
        """Return the value of the field `name` as text with masked secrets; empty if it is unset."""
        value = getattr(self, name)
        if isinstance(value, Secret):
            # A command is masked completely, because any part of it may be a token.
            if name == "leader_election" and self.lease_name is not None:
                return value.reveal().strip()
            return mask_conninfo(value.reveal()) if name in ("database_url", "leader_election") else MASK
        if SETTINGS[name].sensitive and value is not None:
            return mask_url(value)
        return SETTINGS[name].format(value)


SETTINGS: Mapping[str, Setting] = declarations(Settings)
"""The declarations of all settings by name, in the order of `Settings`."""
