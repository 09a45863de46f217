"""Settings: precedence of names, messages for invalid values, and masked secrets."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from opentelemetry.sdk.resources import OTELResourceDetector
from pydantic import ByteSize

from poller.config.load_settings import load
from poller.config.settings import SETTINGS, Settings
from poller.model.errors import ConfigError
from poller.model.secrets import mask_conninfo, mask_url, read_secret
from poller.model.shards import Shard


def problems(environ: dict[str, str], overrides: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(environ, overrides)
    return [str(problem) for problem in caught.value.problems]


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = load({})
    assert settings.interval == 300
    assert settings.timeout == 30
    assert settings.queries == "shipped"
    assert settings.instance == socket.gethostname()
    assert settings.endpoint is None
    assert str(settings.source("interval")) == "default"
    assert settings.warnings == ()


def test_an_option_takes_precedence_over_a_variable_and_is_the_source() -> None:
    environ = {"POLLER_INTERVAL": "10s", "POLLER_TIMEOUT": "9s"}
    settings = load(environ, {"interval": "20s", "timeout": None})
    assert (settings.interval, str(settings.source("interval"))) == (20, "option --interval")
    assert (settings.timeout, str(settings.source("timeout"))) == (9, "variable POLLER_TIMEOUT")


NEEDED = {
    "leader_election": {"POLLER_TARGETS": "targets.yaml"},
    "shard": {"POLLER_TARGETS": "targets.yaml"},
    "shards": {"POLLER_TARGETS": "targets.yaml", "POLLER_SHARD": "2"},
}
"""Other variables without which a setting is an error."""


@pytest.mark.parametrize("name", list(SETTINGS))
def test_each_field_has_its_own_variable_a_meaning_and_a_valid_example(name: str) -> None:
    setting = SETTINGS[name]
    first = setting.variables[0]
    assert first == f"POLLER_{name.upper()}"
    assert setting.meaning
    settings = load({first: setting.example, **NEEDED.get(name, {})})
    assert str(settings.source(name)) == f"variable {first}"


@pytest.mark.parametrize("name", list(SETTINGS))
def test_the_first_variable_of_a_field_takes_precedence(name: str) -> None:
    names = SETTINGS[name].variables
    example = "60000" if "OTEL_METRIC_EXPORT_INTERVAL" in names else SETTINGS[name].example
    for position, expected in enumerate(names):
        settings = load({**dict.fromkeys(names[position:], example), **NEEDED.get(name, {})})
        assert settings.source(name).name == expected


def test_the_names_of_the_server_and_of_opentelemetry_work() -> None:
    assert load({"OBSCURA_LOG_FORMAT": "JSON"}).log_format == "json"
    assert load({"OBSCURA_TELEMETRY_LOG_FORMAT": "json"}).log_format == "json"
    assert load({"OTEL_SERVICE_NAME": "inventory"}).service_name == "inventory"
    assert load({"OTEL_METRIC_EXPORT_INTERVAL": "1500"}).export_interval == 1.5
    assert load({"OTEL_EXPORTER_OTLP_TIMEOUT": "7"}).export_timeout == 7
    both = {"OTEL_EXPORTER_OTLP_TIMEOUT": "7", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "3"}
    assert load(both).export_timeout == 3


def test_resource_attributes_set_name_and_instance_unless_specific_variables_do() -> None:
    attributes = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a%20b, service.instance.id=pod-1,x=y"}
    settings = load(attributes)
    assert (settings.service_name, settings.instance) == ("a b", "pod-1")
    assert settings.source("instance").name == "OTEL_RESOURCE_ATTRIBUTES"
    closer = load({**attributes, "OTEL_SERVICE_NAME": "c", "POLLER_INSTANCE": "pod-2"})
    assert (closer.service_name, closer.instance) == ("c", "pod-2")


def test_the_last_of_equal_resource_attributes_counts_as_in_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,service.name=b,x")
    assert load(os.environ).service_name == OTELResourceDetector().detect().attributes["service.name"] == "b"


def test_an_empty_variable_is_unset() -> None:
    settings = load(
        {"POLLER_INTERVAL": "", "POLLER_OTLP_ENDPOINT": " ", "OBSCURA_OTLP_ENDPOINT": "http://c:4317"}
    )
    assert settings.interval == 300
    assert settings.source("otlp_endpoint").name == "OBSCURA_OTLP_ENDPOINT"


def test_a_variable_with_the_name_of_a_field_is_ignored() -> None:
    assert load({"timeout": "1s", "poller_timeout": "2s", "TIMEOUT": "3s"}).timeout == 30


def test_an_empty_option_unsets_the_variable() -> None:
    environ = {"POLLER_OTLP_ENDPOINT": "http://c:4317", "POLLER_NAMESPACE": "x"}
    settings = load(environ, {"otlp_endpoint": "", "namespace": ""})
    assert settings.endpoint is None
    assert settings.namespace == ""


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("POLLER_INTERVAL", "soon", "'soon' is not a duration; write one like 30s, 5m or 1h30m"),
        ("POLLER_INTERVAL", "500ms", "'500ms' is too small; write at least 1s"),
        ("POLLER_INTERVAL", "25h", "'25h' is too large; write at most 24h"),
        ("POLLER_MAX_SERIES", "many", "'many' is not a whole number; write one like 1000"),
        ("POLLER_MAX_SERIES", "0", "'0' is too small; write at least 1"),
        ("POLLER_REQUIRE_STANDBY", "yes", "'yes' is not one of warn, true, false; write one like true"),
        ("POLLER_MAX_REPLAY_LAG", "0", "'0' is too small; write at least 1ms"),
        ("POLLER_SPOOL_MAX_SIZE", "much", "'much' is not a size; write one like 256MiB"),
        ("POLLER_SPOOL_MAX_SIZE", "5 parsecs", "'5 parsecs' is not a size; write one like 256MiB"),
        ("POLLER_SPOOL_MAX_SIZE", "10kB", "'10kB' is too small; write at least 1MiB"),
        ("POLLER_SPOOL_MAX_AGE", "60d", "'60d' is too large; write at most 30d"),
        ("POLLER_MAX_DUTY_CYCLE", "ten", "'ten' is not a share; write one like 10%"),
        ("POLLER_MAX_DUTY_CYCLE", "0%", "'0%' is not above 0; write one like 10%"),
        ("POLLER_MAX_DUTY_CYCLE", "110%", "'110%' is too large; write at most 100%"),
        ("POLLER_MAX_ACTIVE_BACKENDS", "0", "'0' is too small; write at least 1"),
        ("POLLER_STRICT", "maybe", "'maybe' is not true or false; write one like true"),
        ("POLLER_NAMESPACE", "9lives", "'9lives' is not accepted; write one like obscura"),
        (
            "POLLER_LOG_LEVEL",
            "loud",
            "'loud' is not one of debug, info, warning, error; write one like debug",
        ),
        ("OBSCURA_LOG_FORMAT", "xml", "'xml' is not one of text, json; write one like json"),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            "'http/json' is not one of grpc, http/protobuf; write one like http/protobuf",
        ),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1m", "'1m' is not a number of milliseconds; write one like 60000"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1", "'1ms' is too small; write at least 100ms"),
        (
            "POLLER_OTLP_ENDPOINT",
            "collector:4317",
            (
                "'collector:4317' has no scheme; write http://collector:4317 "
                "for plain text or https://collector:4317 for TLS"
            ),
        ),
        (
            "POLLER_OTLP_ENDPOINT",
            "grpc://collector:4317",
            "'grpc://collector:4317' has an unknown scheme; write http:// for plain text or https:// for TLS",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "dns://resolver/collector:4317",
            (
                "'dns://resolver/collector:4317' has an unknown scheme; "
                "write http:// for plain text or https:// for TLS"
            ),
        ),
        ("POLLER_OTLP_ENDPOINT", "http://:4317", "'http://:4317' has no host; write one like http://collector:4317"),
        (
            "OBSCURA_OTLP_ENDPOINT",
            "http://c:port",
            "'http://c:port' is not a URL; write one like http://collector:4317",
        ),
    ],
)  # fmt: skip
def test_a_wrong_value_names_the_variable_the_problem_and_an_example(
    variable: str, value: str, problem: str
) -> None:
    assert problems({variable: value}) == [f"{variable}: {problem}"]


IMPORT = "from opentelemetry.sdk import trace, _logs; trace.SpanLimits(), _logs.LogRecordLimits()"


@pytest.mark.parametrize("value", ["abc", "-1", "1.5", "unset"])
@pytest.mark.parametrize(
    "name",
    [
        "OTEL_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_SPAN_EVENT_COUNT_LIMIT",
        "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    ],
)
def test_a_limit_that_the_sdk_cannot_be_imported_with_is_a_problem(name: str, value: str) -> None:
    problem = f"{name}: {value!r} is not a whole number; write one like 128, or unset the variable"
    assert problems({name: value}) == [problem]
    environ = {**os.environ, name: value}
    imported = subprocess.run([sys.executable, "-c", IMPORT], env=environ, capture_output=True, check=False)
    assert imported.returncode != 0


@pytest.mark.parametrize("value", ["0", "128", " 7 ", "", " "])
def test_a_limit_that_the_sdk_accepts_is_not_checked(value: str) -> None:
    environ = {"OTEL_SPAN_LINK_COUNT_LIMIT": value}
    load(environ)
    subprocess.run([sys.executable, "-c", IMPORT], env={**os.environ, **environ}, check=True)


def test_all_problems_are_reported_under_the_name_that_was_used() -> None:
    lines = problems(
        {"POLLER_INTERVAL": "soon", "OBSCURA_OTLP_ENDPOINT": "c:1", "POLLER_DATABASE_URL_FILE": "/nowhere"},
        {"timeout": "never"},
    )
    assert sorted(line.partition(":")[0] for line in lines) == [
        "--timeout", "OBSCURA_OTLP_ENDPOINT", "POLLER_DATABASE_URL_FILE", "POLLER_INTERVAL",
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.25", 0.25), (" 2.5 % ", 0.025), ("1", 1.0)])
def test_a_share_is_a_percentage_or_a_fraction(text: str, share: float) -> None:
    settings = load({"POLLER_MAX_DUTY_CYCLE": text})
    assert settings.max_duty_cycle == pytest.approx(share)
    assert settings.text_of("max_duty_cycle").endswith("%")


@pytest.mark.parametrize(
    ("text", "size", "text_of_setting"),
    [("1GiB", 2**30, "1GiB"), ("1.5 MiB", 3 * 2**19, "1.5MiB"), ("2097152", 2**21, "2MiB")],
)
def test_a_size_is_written_with_its_unit(text: str, size: int, text_of_setting: str) -> None:
    settings = load({"POLLER_SPOOL_MAX_SIZE": text})
    assert (settings.spool_max_size, settings.text_of("spool_max_size")) == (size, text_of_setting)


def test_protections_of_the_database_have_mild_defaults() -> None:
    plain = load({})
    assert (plain.require_standby, plain.max_replay_lag, plain.max_duty_cycle) == ("warn", None, 0.1)
    assert (plain.max_active_backends, plain.strict, plain.password_command) == (None, False, None)
    settings = load(
        {
            "POLLER_REQUIRE_STANDBY": "TRUE",
            "POLLER_MAX_REPLAY_LAG": "1m",
            "POLLER_MAX_ACTIVE_BACKENDS": "50",
            "POLLER_STRICT": "true",
        }
    )
    assert (settings.require_standby, settings.max_replay_lag) == ("true", 60.0)
    assert (settings.max_active_backends, settings.strict) == (50, True)


def test_the_password_command_is_masked() -> None:
    command = "sh -c 'token=secret-1 get password=secret-2'"
    settings = load({"POLLER_PASSWORD_COMMAND": command})
    assert settings.text_of("password_command") == "***"
    assert "secret" not in repr(settings)


def test_every_variable_s_value_is_in_the_settings() -> None:
    names = [field.name for field in fields(Settings)]
    assert names[: len(SETTINGS)] == list(SETTINGS)


def test_settings_are_complete_after_a_pipe_and_need_no_library() -> None:
    settings = load({"POLLER_DATABASE_URL": "host=db password=secret-1", "POLLER_SPOOL_MAX_SIZE": "5MiB"})
    sent = pickle.dumps(settings)
    assert b"pydantic" not in sent
    assert pickle.loads(sent) == settings
    assert settings.conninfo() == "host=db password=secret-1"
    assert "secret-1" not in f"{settings} {settings.database_url}"


@pytest.mark.parametrize(
    ("size", "text"),
    [(2**20, "1MiB"), (256 * 2**20, "256MiB"), (1536 * 2**20, "1.5GiB"), (2**40, "1TiB")],
)
def test_a_size_is_formatted_in_its_largest_unit(size: int, text: str) -> None:
    assert (
        SETTINGS["spool_max_size"].format(size) == text == ByteSize(size).human_readable().replace(".0", "")
    )


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        load({}).interval = 1  # type: ignore[misc]


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT"])
@pytest.mark.parametrize(("value", "seconds"), [("1000", "1s"), (" 10000 ", "10s"), ("1500.0", "1.5s")])
def test_a_standard_timeout_that_means_milliseconds_is_refused(name: str, value: str, seconds: str) -> None:
    """The specification's unit is milliseconds, but the Python SDK reads seconds."""
    with pytest.raises(ConfigError) as caught:
        load({name: value})
    assert str(caught.value) == (
        f"{name}: {value.strip()!r} would mean seconds here, but milliseconds in the specification; "
        f"add the unit, for example {seconds}, or set POLLER_EXPORT_TIMEOUT={seconds}"
    )
    assert load({name: "999"}).export_timeout == 999
    assert load({name: "1000s"}).export_timeout == 1000
    assert load({name: value, "POLLER_EXPORT_TIMEOUT": "1000"}).export_timeout == 1000


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_a_line_break_at_the_end_of_a_variable_is_removed(end: str) -> None:
    settings = load(
        {
            "POLLER_DATABASE_URL": f"postgresql://h/d{end}",
            "POLLER_INSTANCE": f"a b {end}",
            "POLLER_QUERIES": f"/etc/queries{end}",
            "POLLER_STATE_DIR": f"/var/lib/poller{end}",
            "POLLER_HEALTH_FILE": f"/run/beat{end}",
            "POLLER_OTLP_ENDPOINT": f"http://c:4317{end}",
        }
    )
    assert settings.conninfo() == "postgresql://h/d"
    assert (settings.instance, settings.queries) == ("a b ", "/etc/queries")
    assert (str(settings.state_dir), settings.health_file) == ("/var/lib/poller", "/run/beat")
    assert str(settings.endpoint) == "http://c:4317"


# --- endpoints


@pytest.mark.parametrize(
    ("environ", "url", "protocol"),
    [
        ({"POLLER_OTLP_ENDPOINT": "http://c:4317"}, "http://c:4317", "grpc"),
        ({"POLLER_OTLP_ENDPOINT": "https://c:4317/"}, "https://c:4317", "grpc"),
        ({"POLLER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/metrics", "http/protobuf"),
        ({"POLLER_OTLP_ENDPOINT": "http://c:4318/otlp/"}, "http://c:4318/otlp/v1/metrics", "http/protobuf"),
        ({"POLLER_OTLP_ENDPOINT": "https://c/v1/metrics"}, "https://c/v1/metrics", "http/protobuf"),
        (
            {"POLLER_OTLP_ENDPOINT": "http://c:4318", "POLLER_OTLP_PROTOCOL": "grpc"},
            "http://c:4318",
            "grpc",
        ),
        (
            {"OBSCURA_OTLP_ENDPOINT": "http://c:80", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "http://c:80/v1/metrics",
            "http/protobuf",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/metrics", "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/in"}, "http://c:4318/in", "http/protobuf"),
        ({"POLLER_OTLP_ENDPOINT": "https://c/otlp"}, "https://c/otlp/v1/metrics", "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317/a"}, "http://c:4317/a/v1/metrics", "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://c/in"}, "https://c/in", "http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317"}, "c:4317", "grpc"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "dns:///c:4317"}, "dns:///c:4317", "grpc"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "unix:///run/c.sock"}, "unix:///run/c.sock", "grpc"),
    ],
)
def test_protocol_and_path_follow_from_the_endpoint(environ: dict[str, str], url: str, protocol: str) -> None:
    endpoint = load(environ).endpoint
    assert endpoint is not None
    assert (endpoint.url, endpoint.protocol) == (url, protocol)


COLLECTOR = {"POLLER_OTLP_ENDPOINT": "http://c:4317"}
ELSEWHERE = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
ONLY_METRICS = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m:4317"}


@pytest.mark.parametrize(
    ("environ", "url", "protocol"),
    [
        (COLLECTOR, "http://c:4317", "grpc"),
        ({"POLLER_OTLP_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces", "http/protobuf"),
        ({"POLLER_OTLP_ENDPOINT": "http://c/in/v1/metrics"}, "http://c/in/v1/traces", "http/protobuf"),
        (COLLECTOR | {"POLLER_TRACES_ENDPOINT": "http://t:4318"}, "http://t:4318/v1/traces", "http/protobuf"),
        (COLLECTOR | {ELSEWHERE: "http://t:4318/as/it/is"}, "http://t:4318/as/it/is", "http/protobuf"),
        (COLLECTOR | {ELSEWHERE: "t:4317"}, "t:4317", "grpc"),
        ({"POLLER_TRACES_ENDPOINT": "http://t:4317"}, "http://t:4317", "grpc"),
        (
            COLLECTOR | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            "http://c:4317/v1/traces",
            "http/protobuf",
        ),
        (
            {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc", "POLLER_OTLP_ENDPOINT": "http://c:4318"},
            "http://c:4318/v1/traces",
            "http/protobuf",
        ),
        (
            ONLY_METRICS | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
            "http://c:4318/v1/traces",
            "http/protobuf",
        ),
        (COLLECTOR | {"OTEL_METRICS_EXPORTER": "none"}, "http://c:4317", "grpc"),
        (COLLECTOR | {"OTEL_TRACES_EXPORTER": "none", "POLLER_TRACES": "true"}, "http://c:4317", "grpc"),
    ],
)
def test_spans_are_sent_to_their_own_endpoint_or_the_shared_endpoint(
    environ: dict[str, str], url: str, protocol: str
) -> None:
    endpoint = load(environ).traces_to
    assert endpoint is not None
    assert (endpoint.url, endpoint.protocol) == (url, protocol)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        ONLY_METRICS,
        COLLECTOR | {"POLLER_TRACES": "false"},
        COLLECTOR | {"OTEL_TRACES_EXPORTER": "none"},
        COLLECTOR | {"OTEL_SDK_DISABLED": "true"},
    ],
)
def test_spans_are_not_sent_without_an_endpoint_or_if_they_are_disabled(environ: dict[str, str]) -> None:
    assert load(environ).traces_to is None


def test_log_records_are_sent_only_if_enabled() -> None:
    assert load(COLLECTOR).logs_to is None
    enabled = {"POLLER_OTLP_LOGS": "true"}
    assert str(load(COLLECTOR | enabled).logs_to) == "http://c:4317"
    own = {"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://l:4318/in"}
    assert str(load(COLLECTOR | enabled | own).logs_to) == "http://l:4318/in"
    assert load(COLLECTOR | enabled).warnings == ()
    (warning,) = load(enabled).warnings
    assert warning.startswith("POLLER_OTLP_LOGS: has no effect without an endpoint")


def test_an_invalid_endpoint_is_reported_once_with_its_variable() -> None:
    (problem,) = problems({"POLLER_OTLP_ENDPOINT": "c:4317", "POLLER_OTLP_LOGS": "true"})
    assert problem.startswith("POLLER_OTLP_ENDPOINT: ")
    (problem,) = problems(COLLECTOR | {"POLLER_TRACES_ENDPOINT": "t:4317"})
    assert problem.startswith("POLLER_TRACES_ENDPOINT: 't:4317' has no scheme")
    (problem,) = problems(COLLECTOR | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"})
    assert problem.startswith("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'http/json' is not one of")
    (problem,) = problems(COLLECTOR | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    assert problem.startswith("OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' is not one of")


def test_an_invalid_protocol_that_only_spans_would_use_is_reported() -> None:
    of_metrics = {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"}
    assert problems(COLLECTOR | of_metrics | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grcp"}) == [
        "OTEL_EXPORTER_OTLP_PROTOCOL: 'grcp' is not one of grpc, http/protobuf; did you mean 'grpc'?"
    ]


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_METRICS_EXPORTER": "none"}])
def test_the_standard_variables_can_disable_all_exports(off: dict[str, str]) -> None:
    settings = load({**off, "POLLER_OTLP_ENDPOINT": "http://c:4317"})
    assert settings.endpoint is None
    assert settings.source("otlp_endpoint").name == next(iter(off))


@pytest.mark.parametrize(
    ("environ", "part"),
    [
        ({"POLLER_OTLP_ENDPOINT": "http://c:4317/otlp", "POLLER_OTLP_PROTOCOL": "grpc"}, "path"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317/otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "path",
        ),
        ({"POLLER_OTLP_ENDPOINT": "http://c:4317?key=hunter22"}, "query"),
        (COLLECTOR | {"POLLER_TRACES_ENDPOINT": "http://c:4317?key=hunter22"}, "query"),
        (
            {"POLLER_OTLP_ENDPOINT": "http://c:4317/a?key=hunter22", "POLLER_OTLP_PROTOCOL": "grpc"},
            "path and a query",
        ),
    ],
)
def test_a_path_or_a_query_that_grpc_cannot_send_is_a_configuration_error(
    environ: dict[str, str], part: str
) -> None:
    (problem,) = problems(environ)
    assert (
        f"has a {part}, which gRPC cannot send; write http://c:4317, or set POLLER_OTLP_PROTOCOL=" in problem
    )
    assert problem.startswith(("POLLER_", "OTEL_EXPORTER_OTLP_ENDPOINT: "))
    assert "hunter22" not in problem


def test_credentials_in_an_endpoint_are_refused_for_grpc_and_masked_for_http() -> None:
    (problem,) = problems({"POLLER_OTLP_ENDPOINT": "http://me:hunter22@c:4317"})
    assert "OTEL_EXPORTER_OTLP_HEADERS" in problem
    assert "hunter22" not in problem
    settings = load({"POLLER_OTLP_ENDPOINT": "http://me:hunter22@c:4318/?key=hunter22"})
    output = f"{settings!r} {settings.endpoint} {settings.endpoint!r} {settings.text_of('otlp_endpoint')}"
    assert "hunter22" not in output
    assert "me" not in str(settings.endpoint).removesuffix("/v1/metrics").replace("metrics", "")
    assert settings.endpoint is not None
    assert "me:hunter22@" in settings.endpoint.url


# --- the database


def test_the_variables_of_libpq_can_select_the_database() -> None:
    assert load({"PGHOST": "replica"}).conninfo() == ""
    assert load({"PGSERVICE": "replica"}).conninfo() == ""
    assert load({"PGHOST": "x", "POLLER_DATABASE_URL": "host=replica"}).conninfo() == "host=replica"


def test_a_missing_database_is_reported_if_it_is_needed() -> None:
    with pytest.raises(ConfigError) as caught:
        load({}).conninfo()
    assert str(caught.value) == (
        "POLLER_DATABASE_URL: is not set, so there is no database to poll; write one like "
        "postgresql://poller@replica:5432/app, or set PGHOST or PGSERVICE"
    )


def test_a_secret_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://u:p w@h/db\n")
    settings = load({"POLLER_DATABASE_URL_FILE": str(file)})
    assert settings.conninfo() == "postgresql://u:p w@h/db"
    assert str(settings.source("database_url")) == "variable POLLER_DATABASE_URL_FILE"


@pytest.mark.parametrize(
    ("held", "secret"),
    [(" pw \n", " pw "), ("\tpw\t", "\tpw\t"), (" pw \r\n", " pw "), ("p w", "p w")],
)
def test_a_secret_in_a_file_keeps_its_blanks_and_loses_only_the_last_line_break(
    tmp_path: Path, held: str, secret: str
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(held.encode())
    assert read_secret(file) == secret


def test_process_substitution_for_a_secret_is_rejected_with_an_alternative() -> None:
    reading, writing = os.pipe()
    try:
        with pytest.raises(
            OSError, match=r"it is a pipe, not a regular file; write the secret to a file \(not <\("
        ):
            read_secret(Path(f"/dev/fd/{reading}"))
    finally:
        os.close(reading)
        os.close(writing)


def test_a_secret_s_file_must_be_readable_alone_and_not_empty(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    missing = str(tmp_path / "missing")
    name = "POLLER_DATABASE_URL_FILE"
    assert problems({name: missing}) == [f"{name}: {missing!r} cannot be read: No such file or directory"]
    assert problems({name: str(empty)}) == [
        f"{name}: {str(empty)!r} cannot be read: it is empty; write the secret into it"
    ]
    assert problems({name: str(empty), "POLLER_DATABASE_URL": "host=secret"}) == [
        f"{name}: cannot be combined with POLLER_DATABASE_URL; unset one of them"
    ]


@pytest.mark.parametrize(
    ("conninfo", "masked"),
    [
        ("postgresql://poller@h:5432/db", "postgresql://poller@h:5432/db"),
        ("postgresql://poller:s3cret@h:5432/db", "postgresql://poller:***@h:5432/db"),
        ("postgres://u:s3@cret@h/db", "postgres://u:***@h/db"),
        ("postgres://u:s3?cret@h/db", "postgres://u:***@h/db"),
        ("postgres://u:s3/cret@h/db", "postgres://u:***@h/db"),
        ("postgres://u:s3cret@a,b:5433/db?target_session_attrs=any", "postgres://u:***@a,b:5433/db?target_session_attrs=any"),
        ("postgres://u@h/db?password=s3cret&application_name=a@b", "postgres://u@h/db?password=***&application_name=a@b"),
        ("postgres://h/db?sslpassword=s3cret", "postgres://h/db?sslpassword=***"),
        ("host=h user=u password=s3cret dbname=d", "host=h user=u password=*** dbname=d"),
        ("host=h password = 's3 cr\\'et' dbname=d", "host=h password = *** dbname=d"),
        ("password=s3\\ cret host=h", "password=*** host=h"),
        ("host=h PASSWORD='s3cret", "host=h PASSWORD=***"),
        ("s3cret", "***"),
    ],
)  # fmt: skip
def test_a_connection_string_shows_everything_but_its_password(conninfo: str, masked: str) -> None:
    assert mask_conninfo(conninfo) == masked
    settings = load({"POLLER_DATABASE_URL": conninfo})
    assert settings.text_of("database_url") == masked
    assert "s3" not in repr(settings)


def test_an_endpoint_shows_neither_user_nor_query() -> None:
    assert mask_url("https://t0ken@c:4318/v1/metrics?api=t0ken") == "https://***@c:4318/v1/metrics?api=***"
    assert mask_url("https://c:4318/in?t0ken") == "https://c:4318/in?***"
    assert mask_url("https://c/in?a=t0ken&t0ken#t0ken") == "https://c/in?a=***&***#***"
    assert mask_url("https://c/in?a=b@c&t=t0ken") == "https://***@c&t=***"
    assert mask_url("https://c/in?a=b@t=t0ken") == "https://***@t=***"
    assert mask_url("c:4317") == "c:4317"


# --- names that look like settings


def test_a_misspelt_variable_is_a_warning_with_the_right_name() -> None:
    settings = load({"POLLER_INTERVALL": "1s", "POLLER_XYZZY": "1", "OTHER": "1"})
    assert settings.warnings == (
        "POLLER_INTERVALL: no such setting; did you mean POLLER_INTERVAL?",
        "POLLER_XYZZY: no such setting",
    )


def test_kubernetes_service_links_cause_no_warning() -> None:
    environ = {
        "POLLER_PORT": "tcp://10.0.0.1:80",
        "POLLER_SERVICE_HOST": "10.0.0.1",
        "POLLER_SERVICE_PORT": "80",
        "POLLER_SERVICE_PORT_HTTP": "80",
        "POLLER_PORT_80_TCP": "tcp://10.0.0.1:80",
        "POLLER_PORT_80_TCP_ADDR": "10.0.0.1",
        "POLLER_DB_SERVICE_HOST": "10.0.0.2",
        "POLLER_DB_PORT_5432_TCP_PROTO": "tcp",
    }
    assert load(environ).warnings == ()


def test_targets_cannot_be_combined_with_a_single_database(tmp_path: Path) -> None:
    targets = {"POLLER_TARGETS": "targets.yaml"}
    instead = "cannot be combined with POLLER_TARGETS; unset it, or write it to the targets"
    command = {"POLLER_PASSWORD_COMMAND": "cat hunter2"}
    assert problems({**targets, "POLLER_DATABASE_URL": "host=h password=hunter2", **command}) == [
        f"POLLER_DATABASE_URL: {instead}",
        f"POLLER_PASSWORD_COMMAND: {instead}",
    ]
    file = tmp_path / "url"
    name = "POLLER_DATABASE_URL_FILE"
    assert problems({**targets, name: str(file)}) == [
        f"{name}: {str(file)!r} cannot be read: No such file or directory",
        f"{name}: {instead}",
    ]
    file.write_text("host=h")
    assert problems({**targets, name: str(file)}) == [f"{name}: {instead}"]
    assert load({**targets, "PGHOST": "h"}).targets == Path("targets.yaml")
    assert load({**targets, "POLLER_DATABASE_URL": "host=h"}, {"targets": ""}).targets is None


TARGETS = {"POLLER_TARGETS": "targets.yaml"}
ALONE = "needs POLLER_TARGETS, because a single database cannot be shared; set it, or unset this"


def test_the_shard_is_one_variable_or_an_index_and_a_count() -> None:
    assert load({**TARGETS, "POLLER_SHARD": "2/5"}).own_shard == Shard(2, 5)
    assert load({**TARGETS, "POLLER_SHARD": "2", "POLLER_SHARDS": "5"}).own_shard == Shard(2, 5)
    assert load(TARGETS).own_shard is None


def test_each_shard_names_its_own_metrics_after_its_index() -> None:
    """All shards may have the same variables, or be on one host."""
    environ = {**TARGETS, "POLLER_SHARD": "2/5"}
    assert load(environ).instance == f"{socket.gethostname()}-2"
    assert load({**environ, "POLLER_INSTANCE": "poller"}).instance == "poller-2"
    assert load({**TARGETS, "POLLER_INSTANCE": "poller"}).instance == "poller"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"POLLER_SHARD": "2/5"},
            [f"POLLER_SHARD: {ALONE}"],
        ),
        (
            {**TARGETS, "POLLER_SHARD": "5/5"},
            ["POLLER_SHARD: '5/5' is not a shard, because they are counted from 0; the last of 5 is 4/5"],
        ),
        (
            {**TARGETS, "POLLER_SHARD": "0/0"},
            ["POLLER_SHARD: '0/0' has 0 as the number of shards; write one like 0/5"],
        ),
        (
            {**TARGETS, "POLLER_SHARD": "7"},
            ["POLLER_SHARD: '7' has no number of shards; write one like 7/8, or set POLLER_SHARDS"],
        ),
        (
            {**TARGETS, "POLLER_SHARD": "two"},
            ["POLLER_SHARD: 'two' is not accepted; write one like 2/5"],
        ),
        (
            {**TARGETS, "POLLER_SHARD": "2/1001"},
            ["POLLER_SHARD: '2/1001' is too large; write at most 999/1000"],
        ),
        (
            {**TARGETS, "POLLER_SHARD": "1000", "POLLER_SHARDS": "1000"},
            ["POLLER_SHARD: '1000' is too large; write at most 999/1000"],
        ),
        (
            {**TARGETS, "POLLER_SHARD": "2", "POLLER_SHARDS": "0"},
            ["POLLER_SHARDS: '0' is too small; write at least 1"],
        ),
        (
            {"POLLER_SHARDS": "2000"},
            [f"POLLER_SHARDS: {ALONE}",
             "POLLER_SHARDS: is set without POLLER_SHARD; write the index of this shard, like POLLER_SHARD=2",
             "POLLER_SHARDS: '2000' is too large; write at most 1000"],
        ),
        (
            {"POLLER_SHARD": "7/5", "POLLER_SHARDS": "many"},
            [f"POLLER_SHARD: {ALONE}",
             ("POLLER_SHARDS: cannot be combined with '7/5', which has the number of shards; "
              "unset one of them"),
             "POLLER_SHARD: '7/5' is not a shard, because they are counted from 0; the last of 5 is 4/5",
             "POLLER_SHARDS: 'many' is not a whole number; write one like 5"],
        ),
    ],
)  # fmt: skip
def test_all_mistakes_about_the_shard_are_reported(environ: dict[str, str], expected: list[str]) -> None:
    assert problems(environ) == expected


def test_an_index_beyond_the_count_is_a_warning_because_the_count_may_change_first() -> None:
    settings = load({**TARGETS, "POLLER_SHARD": "5", "POLLER_SHARDS": "5"})
    assert settings.own_shard == Shard(5, 6)
    (warning,) = settings.warnings
    assert warning.startswith("POLLER_SHARD: 5 is not below POLLER_SHARDS, which is 5; this process polls")
