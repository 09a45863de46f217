"""Replicas of a DSN with the limits of the tests, and a connection as a replica uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from poller.postgres.cancellation import CancelToken
from poller.postgres.replica import Replica
from poller.postgres.transaction import TransactionLimits
from tests.bed.cleanup import closing_all
from tests.bed.postgres import Database

Make = Callable[..., Replica]


def a_replica(dsn: str | Callable[[], str], **overrides: Any) -> Replica:
    """Return the replica of a DSN, or of a function that returns a DSN, with the arguments of `Replica`."""
    arguments: dict[str, Any] = {"connect_timeout": 60.0, "limits": TransactionLimits(1.0), **overrides}
    return Replica(dsn if callable(dsn) else lambda: dsn, **arguments)


@pytest.fixture
def make_replica() -> Iterator[Make]:
    """Create replicas with the arguments of `a_replica`; they are closed after the test."""
    with closing_all(a_replica, Replica.close) as make:
        yield make


@pytest.fixture
def replica(database: Database, make_replica: Make) -> Replica:
    """The standby of `database`."""
    return make_replica(database.standby_dsn)


@pytest.fixture
def cancel_token() -> Iterator[CancelToken]:
    with closing(CancelToken()) as cancel_token:
        yield cancel_token


@pytest.fixture
def connection(database: Database) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database.primary_dsn, autocommit=True) as connection:
        yield connection
