"""The server of a connection string is named by its hosts and ports, without secrets."""

from __future__ import annotations

import pytest

from poller.postgres.conninfo import server_of


@pytest.mark.parametrize(
    ("conninfo", "server"),
    [
        ("postgresql://poller:sekret@db.example/app", "db.example:5432"),
        ("postgresql://db.example:6432/app", "db.example:6432"),
        ("postgresql://[2001:db8::1]:6432/app", "[2001:db8::1]:6432"),
        ("host=a,b port=1,2", "a:1,b:2"),
        ("host=a,b port=6432", "a:6432,b:6432"),
        ("host=a,b port=,2", "a:5432,b:2"),
        ("host=/run/postgresql dbname=x", "/run/postgresql:5432"),
        ("hostaddr=10.0.0.1", "10.0.0.1:5432"),
        ("host=db.example hostaddr=10.0.0.1", "db.example:5432 (10.0.0.1)"),
        ("service=eu", "service eu"),
        ("service=eu port=6432", "local:6432 (service eu)"),
        ("dbname=x", "local:5432"),
        ("host=a port=x", ""),
        ("nothing", ""),
    ],
)
def test_a_server_is_named_by_host_and_port(
    conninfo: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGPORT"):
        monkeypatch.delenv(name, raising=False)
    assert server_of(conninfo) == server


def test_missing_hosts_and_ports_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.example")
    monkeypatch.setenv("PGPORT", "6432")
    assert server_of("dbname=x") == server_of("host=db.example") == "db.example:6432"
