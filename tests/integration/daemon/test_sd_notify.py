"""Notifications of the service to systemd, over a real datagram socket."""

from __future__ import annotations

import os
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from poller.daemon.sd_notify import SystemdNotifier
from tests.bed.process import Process
from tests.bed.queries import write_queries


@dataclass(frozen=True)
class Manager:
    """Listens on NOTIFY_SOCKET."""

    socket: socket.socket
    address: str

    def receive(self) -> dict[str, str]:
        """Wait for the next datagram and return it."""
        lines = self.socket.recv(65536).decode().split("\n")
        return {name: value for name, _, value in (line.partition("=") for line in lines)}

    def receive_other(self) -> dict[str, str]:
        """Return the next datagram that is not a watchdog notification."""
        while (message := self.receive()) == {"WATCHDOG": "1"}:
            pass
        return message

    def expect(self, name: str, value: str) -> None:
        """Wait for a datagram with this variable."""
        while self.receive().get(name) != value:
            pass

    def silent(self) -> bool:
        self.socket.setblocking(False)
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(60)
        return False


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "path" else f"@poller-{uuid.uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address.replace("@", "\0", 1) if request.param == "abstract" else address)
        listener.settimeout(60)
        yield Manager(listener, address)


def test_start_reload_and_shutdown_are_notified(manager: Manager) -> None:
    notifier = SystemdNotifier({"NOTIFY_SOCKET": manager.address})
    notifier.ready("polling 4 queries")
    notifier.reloading()
    notifier.stopping()
    assert manager.receive() == {"READY": "1", "STATUS": "polling 4 queries"}
    reloading = manager.receive()
    assert reloading.pop("RELOADING") == "1"
    assert int(reloading.pop("MONOTONIC_USEC")) > 0
    assert reloading == {}
    assert manager.receive() == {"STOPPING": "1", "STATUS": "stopping"}


def test_the_watchdog_is_notified_only_while_the_poller_makes_progress(manager: Manager) -> None:
    notifier = SystemdNotifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "60000000"})
    notifier.beat(None)
    notifier.beat("tick 5m runs since\n1000s")
    assert notifier.watchdog_seconds == 60
    assert manager.receive() == {"WATCHDOG": "1"}
    assert manager.receive() == {"STATUS": "hangs: tick 5m runs since 1000s"}
    assert manager.silent()


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getppid())},
                                      {"WATCHDOG_USEC": "a minute"}, {"WATCHDOG_USEC": "0"}])  # fmt: skip
def test_without_a_valid_watchdog_nothing_is_sent(manager: Manager, watchdog: dict[str, str]) -> None:
    notifier = SystemdNotifier({"NOTIFY_SOCKET": manager.address, **watchdog})
    notifier.beat(None)
    assert notifier.watchdog_seconds is None
    assert manager.silent()


def test_without_a_socket_nothing_is_sent_and_without_a_listener_nothing_fails(
    manager: Manager, tmp_path: Path
) -> None:
    gone = str(tmp_path / "gone")
    for address, watched in ((None, None), ("", None), (gone, 60), ("@", 60)):
        environ = {} if address is None else {"NOTIFY_SOCKET": address}
        notifier = SystemdNotifier({**environ, "WATCHDOG_USEC": "60000000"})
        assert notifier.watchdog_seconds == watched
        notifier.ready("polling")
        notifier.beat(None)
        notifier.stopping()
    assert not Path(gone).exists()
    assert manager.silent(), "no datagram reaches a socket that the environment does not name"


def test_a_listener_that_does_not_read_delays_nothing(manager: Manager) -> None:
    notifier = SystemdNotifier({"NOTIFY_SOCKET": manager.address})
    for _ in range(5000):  # far more than a socket can queue (net.unix.max_dgram_qlen)
        notifier.ready("polling")
    assert manager.receive()["READY"] == "1"


@pytest.mark.parametrize(
    ("watchdog", "every"),
    [({}, 20.0), ({"WATCHDOG_USEC": "600000000"}, 20.0), ({"WATCHDOG_USEC": "3000000"}, 1.0)],
)
def test_the_poller_notifies_well_within_half_of_the_watchdogs_time(
    manager: Manager, watchdog: dict[str, str], every: float
) -> None:
    assert SystemdNotifier({"NOTIFY_SOCKET": manager.address, **watchdog}).every(20.0) == every


def test_the_daemon_notifies_systemd_from_start_to_shutdown(
    manager: Manager, poller_process: Callable[..., Process], tmp_path: Path
) -> None:
    """The notifications do not depend on the database, which is absent."""
    queries = Path(write_queries(tmp_path, ("one", "SELECT 1 AS n"), ("two", "SELECT 2 AS n"), interval="1h"))
    daemon = poller_process(
        "run",
        env={
            "NOTIFY_SOCKET": manager.address,
            "WATCHDOG_USEC": "60000000",
            "POLLER_DATABASE_URL": "postgresql://poller@127.0.0.1:1/app",
            "POLLER_QUERIES": str(queries),
            "POLLER_WATCH": "false",
            "POLLER_HEALTH_FILE": str(tmp_path / "heartbeat"),
        },
    )
    manager.expect("STATUS", "polling 2 queries")
    manager.expect("WATCHDOG", "1")
    write_queries(tmp_path, ("one", "SELECT 1 AS n"), interval="1h")
    daemon.send(signal.SIGHUP)
    manager.expect("RELOADING", "1")
    assert manager.receive_other() == {"READY": "1", "STATUS": "polling 1 query"}
    queries.write_text("queries: nonsense")
    daemon.send(signal.SIGHUP)
    manager.expect("RELOADING", "1")
    assert manager.receive_other() == {"READY": "1", "STATUS": "polling 1 query, changed files rejected"}
    manager.expect("WATCHDOG", "1")
    daemon.send(signal.SIGTERM)
    manager.expect("STOPPING", "1")
    assert daemon.wait() == 0, daemon


def test_an_invalid_configuration_is_never_notified_as_ready(
    manager: Manager, poller_process: Callable[..., Process]
) -> None:
    daemon = poller_process("run", env={"NOTIFY_SOCKET": manager.address})
    assert daemon.wait() == 2
    assert manager.silent()
