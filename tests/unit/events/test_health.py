"""Components are checked concurrently, in time and without requests, and no old result is exported."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.routing import Mount

from poller.events.health import Health
from poller.events.testing import Recorder
from tests.bed.messaging import MessagingServer
from tests.bed.process import eventually
from tests.bed.proxy import Proxy
from tests.bed.served import Served

pytest_plugins = ["poller.events.fixtures"]

LONG = 60.0
"""Timeout in seconds that no check reaches."""


def status(recorder: Recorder, component: str) -> float | None:
    return recorder.value("health_status", component=component)


async def works() -> None:
    await asyncio.sleep(0)


async def hangs() -> None:
    await asyncio.sleep(10_000)


def test_each_kind_of_check_and_of_failure(
    event_recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> None:
        raise ConnectionError("refused, token=abc")

    async def run() -> None:
        health = Health(event_recorder.metrics)
        health.register("database", works, timeout=LONG)
        health.register("storage", fails, timeout=LONG)
        health.register("pubsub", hangs, timeout=0.05)
        assert await health.check() == {"database": "ok", "storage": "error", "pubsub": "error"}
        assert await health.readiness() == (
            503,
            {"status": "error", "database": "ok", "storage": "error", "pubsub": "error"},
        )

    asyncio.run(run())
    assert [status(event_recorder, name) for name in ("database", "storage", "pubsub")] == [1, 0, 0]
    # Each failure is logged once, even if it is detected several times.
    messages = sorted(record.getMessage() for record in caplog.records)
    assert messages == [
        "pubsub fails: no answer within 0.05 s",
        "storage fails: ConnectionError: refused, token=abc",
    ]
    assert {getattr(record, "component", "") for record in caplog.records} == {"pubsub", "storage"}


@pytest.mark.parametrize(
    ("check", "works_"),
    [(lambda: None, True), (lambda: True, True), (lambda: False, False), (lambda: 0, True), (works, True)],
)
def test_the_result_of_a_check(event_recorder: Recorder, check: Callable[[], Any], works_: bool) -> None:
    health = Health(event_recorder.metrics)
    health.register("database", check, timeout=LONG)

    assert asyncio.run(health.check()) == {"database": "ok" if works_ else "error"}


def test_a_function_that_returns_a_coroutine_fails(
    event_recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    def forgets_to_wait() -> object:
        return works()

    health = Health(event_recorder.metrics)
    health.register("database", forgets_to_wait, timeout=LONG)

    assert asyncio.run(health.check()) == {"database": "error"}
    assert "register the coroutine function itself" in caplog.text


def test_checks_run_concurrently_and_simultaneous_requests_share_them(event_recorder: Recorder) -> None:
    begun: list[str] = []

    async def run() -> None:
        both = asyncio.Event()

        def check(name: str) -> Callable[[], Any]:
            async def check_component() -> None:
                begun.append(name)
                if len(begun) == 2:
                    both.set()
                await both.wait()

            return check_component

        health = Health(event_recorder.metrics)
        health.register("database", check("database"), timeout=LONG)
        health.register("storage", check("storage"), timeout=LONG)
        results = await asyncio.gather(*(health.check() for _ in range(5)))
        assert results == [{"database": "ok", "storage": "ok"}] * 5

    asyncio.run(run())
    assert sorted(begun) == ["database", "storage"]


def test_a_cancelled_request_does_not_cancel_the_check_of_others(event_recorder: Recorder) -> None:
    async def run() -> None:
        go = asyncio.Event()
        health = Health(event_recorder.metrics)
        health.register("database", go.wait, timeout=LONG)
        first, other = asyncio.create_task(health.check()), asyncio.create_task(health.check())
        await asyncio.sleep(0.01)
        first.cancel()
        go.set()
        assert await other == {"database": "ok"}
        with pytest.raises(asyncio.CancelledError):
            await first

    asyncio.run(run())


def test_an_endless_check_is_not_started_again(event_recorder: Recorder) -> None:
    """Threads and tasks that catch their cancellation must not accumulate."""
    go, begun = threading.Event(), []

    def in_a_thread() -> None:
        begun.append("thread")
        go.wait()

    async def run() -> None:
        async def stubborn() -> None:
            begun.append("task")
            while not go.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)

        health = Health(event_recorder.metrics)
        health.register("database", in_a_thread, timeout=0.01)
        health.register("storage", stubborn, timeout=0.01)
        for _ in range(4):
            assert await health.check() == {"database": "error", "storage": "error"}
        assert sorted(begun) == ["task", "thread"]
        go.set()
        while await health.check() != {"database": "ok", "storage": "ok"}:
            await asyncio.sleep(0.01)

    asyncio.run(run())
    assert [status(event_recorder, name) for name in ("database", "storage")] == [1, 1]


def test_the_metric_is_current_without_requests_and_ends_with_the_loop(
    event_recorder: Recorder,
) -> None:
    count = 0

    async def flaky() -> bool:
        nonlocal count
        count += 1
        return count % 2 == 1

    async def run() -> None:
        health = Health(event_recorder.metrics, interval=0.02)
        health.register("database", flaky, timeout=LONG)
        assert status(event_recorder, "database") is None
        statuses: set[float | None] = set()
        async with health:
            while not {0, 1} <= statuses:
                statuses.add(status(event_recorder, "database"))
                await asyncio.sleep(0.005)
        counted = count
        while status(event_recorder, "database") is not None:
            await asyncio.sleep(0.01)
        assert count == counted

    asyncio.run(run())


def test_a_blocked_loop_exports_no_old_result(event_recorder: Recorder) -> None:
    """Read from the thread that exports."""

    async def run() -> None:
        async with health:
            while status(event_recorder, "database") is None:
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(lambda: True)
            blocked.set()
            assert let_go.wait(60)  # the event loop stands still

    blocked, let_go = threading.Event(), threading.Event()
    health = Health(event_recorder.metrics, interval=0.1)
    health.register("database", works, timeout=LONG)
    server = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    server.start()
    assert blocked.wait(60)
    assert eventually(lambda: status(event_recorder, "database") is None, 60)
    let_go.set()
    server.join(60)


def test_a_database_that_disappears_and_returns(server: MessagingServer, event_recorder: Recorder) -> None:
    """The real pool of a server, through an interrupted connection."""

    async def run() -> None:
        with Proxy(int(str(conninfo_to_dict(server.primary_dsn)["port"]))) as link:
            arguments: dict[str, Any] = {"min_size": 1, "timeout": 1, "reconnect_timeout": 60, "open": False}
            async with AsyncConnectionPool(link.dsn(server.primary_dsn), **arguments) as pool:

                async def ask() -> None:
                    async with pool.connection() as connection:
                        await connection.execute("SELECT 1")

                health = Health(event_recorder.metrics, interval=0.05)
                health.register("database", ask)
                async with health:
                    await _until(lambda: status(event_recorder, "database") == 1)
                    link.refuse()
                    await _until(lambda: status(event_recorder, "database") == 0)
                    link.resume()
                    await _until(lambda: status(event_recorder, "database") == 1)

    async def _until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(90):
            while not condition():
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_mistakes_are_reported_immediately(event_recorder: Recorder) -> None:
    health = Health(event_recorder.metrics)
    health.register("database", works)
    with pytest.raises(ValueError, match="'database' has a check already"):
        health.register("database", works)
    with pytest.raises(ValueError, match="timeout of 'storage' is 0 s"):
        health.register("storage", works, timeout=0)
    with pytest.raises(ValueError, match="interval is -1 s"):
        Health(event_recorder.metrics, interval=-1)


# --- the endpoints


@pytest.mark.parametrize("mounted", [False, True])
def test_the_endpoints_respond_like_the_messaging_server(serve: Callable[..., Served], mounted: bool) -> None:
    ok = True
    recorder = Recorder()

    async def check() -> bool:
        return ok

    health = Health(recorder.metrics, interval=1000)
    health.register("database", check, timeout=LONG)
    health.register("storage", works, timeout=LONG)
    served = serve(
        (lambda _: Starlette(routes=[Mount("/manage", app=health)])) if mounted else (lambda _: health),
        wrapped=False,
    )
    prefix = "/manage" if mounted else ""
    client: httpx.Client = served.client

    if not mounted:  # alone it has a lifespan, in which it checks without requests
        assert eventually(lambda: status(recorder, "database") == 1)
    assert (client.get(f"{prefix}/livez").status_code, client.get(f"{prefix}/livez").content) == (200, b"")
    ready = client.get(f"{prefix}/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "database": "ok", "storage": "ok"})
    assert ready.headers["content-type"] == "application/json"
    head = client.head(f"{prefix}/readyz")
    assert (head.status_code, head.content) == (200, b"")
    ok = False
    failing = client.get(f"{prefix}/readyz")
    assert failing.status_code == 503
    assert failing.json() == {"status": "error", "database": "error", "storage": "ok"}
    assert status(recorder, "database") == 0
    assert client.get(f"{prefix}/livez").status_code == 200
    refused = client.post(f"{prefix}/readyz")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    assert client.get(f"{prefix}/metrics").status_code == 404
    recorder.close()
