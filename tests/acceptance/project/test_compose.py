"""The compose file is valid, and its own scripts and commands set up real servers."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from poller.config.load_settings import load
from poller.receiver.decode import Point
from poller.receiver.ports import free_ports
from poller.receiver.receiver import Receiver
from tests.bed.composed import FILE, SERVICES, servers
from tests.bed.process import Process, eventually


def test_the_file_follows_the_compose_specification() -> None:
    checker = Path(sys.executable).parent / "check-jsonschema"
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_mounted_file_is_in_the_repository() -> None:
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    missing = {name for name in mounted if not (FILE.parent / name).exists()}
    assert missing == set()


def test_the_variables_of_the_poller_are_settings() -> None:
    settings = load(SERVICES["poller"]["environment"])
    assert settings.warnings == ()
    assert settings.endpoint is not None


def test_images_have_a_version_and_only_grafana_publishes_a_port() -> None:
    own = {service["image"] for service in SERVICES.values() if "build" in service}
    foreign = [service["image"] for service in SERVICES.values() if service["image"] not in own]
    assert all(re.search(r":\d", image) for image in foreign)
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(ports) == ["lgtm"]
    assert all(port.startswith("127.0.0.1:") for port in ports["lgtm"])


def test_grafana_and_prometheus_read_the_mounted_files() -> None:
    mounts = {there: here for here, there, _ in (volume.split(":") for volume in SERVICES["lgtm"]["volumes"])}
    prometheus = yaml.safe_load((FILE.parent / mounts["/otel-lgtm/prometheus.yaml"]).read_text())
    (rules,) = map(Path, prometheus["rule_files"])
    assert (mounts[str(rules.parent)], rules.name) == ("./prometheus", "rules.yaml")
    (dashboards,) = [here for here in mounts.values() if here.endswith("dashboards.yaml")]
    (provider,) = yaml.safe_load((FILE.parent / dashboards).read_text())["providers"]
    assert mounts[provider["options"]["path"]] == "./grafana"


@pytest.mark.skipif(sys.platform != "linux", reason="its scripts run in Linux containers")
def test_the_servers_are_set_up_and_polled(
    pg_bin: Path | None, receiver: Receiver, start_process: Callable[..., Process], tmp_path: Path
) -> None:
    first, second, third = free_ports(3)
    with servers(pg_bin, start_process) as setup:
        primary = setup.primary(first)
        assert eventually(lambda: setup.healthy("primary", first) or not primary.running)
        assert primary.running, primary
        replica = setup.replica(second, first)
        assert eventually(lambda: setup.healthy("replica", second) or not replica.running)
        assert replica.running, replica
        changes = {"@primary/": f"@127.0.0.1:{first}/", "=/tmp": f"={tmp_path}", "3000": str(third)}
        messaging = start_process(
            program("messaging", changes),
            env={
                "OBSCURA_OTLP_ENDPOINT": receiver.grpc_endpoint,
                "OBSCURA_METRICS_EXPORT_INTERVAL_SECS": "1",
            },
        )
        messaging.wait_for_line(r'"url": "', stream="stdout")
        check = SERVICES["messaging"]["healthcheck"]["test"]
        probe = command(check, changes)
        assert eventually(lambda: subprocess.run(probe, capture_output=True).returncode == 0)
        clients = start_process(program("clients", changes))
        environment = {
            **SERVICES["poller"]["environment"],
            "POLLER_QUERIES": "shipped:extended",
            "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
            "POLLER_INTERVAL": "1s",
            "POLLER_TIMEOUT": "1s",
            "POLLER_EXPORT_INTERVAL": "1s",
        }
        url = environment["POLLER_DATABASE_URL"].replace("replica", f"127.0.0.1:{second}")
        poller = start_process(
            [sys.executable, "-m", "poller", "run"], env={**environment, "POLLER_DATABASE_URL": url}
        )
        try:
            receiver.wait_for(load_arrives, 90)
        except TimeoutError as error:
            raise AssertionError(f"{error}\n{poller}\n{messaging}\n{clients}\n{replica}") from None
        # uvicorn shuts down in order, then ends by the signal.
        for process, code in ((poller, 0), (clients, 0), (messaging, -signal.SIGTERM)):
            process.send(signal.SIGTERM)
            assert process.wait() == code, process
        for server in (replica, primary):
            server.send(signal.SIGINT)
            assert server.wait() == 0, server


def program(service: str, changes: dict[str, str]) -> list[str]:
    """Return the command of a service with this Python and changed addresses."""
    return command([*SERVICES[service]["entrypoint"], *SERVICES[service]["command"]], changes)


def command(words: list[str], changes: dict[str, str]) -> list[str]:
    words = [word for word in words if word != "CMD"]
    for old, new in changes.items():
        words = [word.replace(old, new) for word in words]
    return [sys.executable, *words[1:]]


def load_arrives(points: list[Point]) -> bool:
    """Return whether new users, an extended query, the replica and an event of the server are exported."""
    users = [point.value for point in points if point.metric == "users_total"]
    expected = {"devices_total", "poller.replica.lag", "messages_sent_total"}
    return expected <= {point.metric for point in points} and any(
        isinstance(value, int) and value > 1000 for value in users
    )
