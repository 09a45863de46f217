"""ASGI application of the messaging server: services, routes, workers, health checks, telemetry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from poller.demo.messaging.accounts import AccountService
from poller.demo.messaging.attachments import AttachmentService
from poller.demo.messaging.backups import BackupService
from poller.demo.messaging.bus import Bus
from poller.demo.messaging.database import Pool, make_pool
from poller.demo.messaging.devices import DeviceService, KeyService
from poller.demo.messaging.gateway import Gateway
from poller.demo.messaging.messages import MessageService
from poller.demo.messaging.notifications import NotificationService
from poller.demo.messaging.objects import ObjectStore
from poller.demo.messaging.push import Provider, PushService
from poller.demo.messaging.requests import RequestError
from poller.demo.messaging.routes import Routes, client_disconnected, internal_error, rejected
from poller.demo.messaging.settings import MessagingSettings
from poller.demo.messaging.workers import Workers
from poller.events import EventMetrics
from poller.events.asgi import TelemetryMiddleware
from poller.events.health import Health
from poller.events.pools import watch_pool


def make_application(
    dsn: str, objects: ObjectStore, provider: Provider, metrics: EventMetrics, settings: MessagingSettings
) -> TelemetryMiddleware:
    """Return the server's ASGI application; it connects when its lifespan begins."""
    pool = make_pool(dsn, settings.pool_size, settings.pool_timeout)
    bus = Bus(dsn)
    push = PushService(pool, provider, metrics, settings)
    notifications = NotificationService(bus, push, metrics)
    accounts = AccountService(pool, metrics, settings)
    keys = KeyService(pool, metrics, settings, notifications)
    messages = MessageService(pool, metrics, settings, notifications)
    attachments = AttachmentService(pool, objects, metrics, settings)
    backups = BackupService(pool, objects, metrics, settings)
    routes = Routes(
        accounts,
        DeviceService(pool, metrics, notifications, keys),
        keys,
        messages,
        attachments,
        backups,
        Gateway(messages, keys, notifications, metrics, settings),
        settings,
    )

    workers = Workers()
    for service in (accounts, messages, attachments, backups):
        workers.add(settings.cleanup_interval, service.clean_up)
    workers.add(settings.channel_interval, notifications.clean_up)
    workers.add(settings.push_interval, push.run_due)

    health = Health(metrics, interval=settings.health_interval)
    health.register("database", partial(_check_database, pool))
    health.register("storage", objects.check)
    health.register("pubsub", bus.check)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with pool:
            await pool.wait()
            listening = asyncio.create_task(notifications.run(), name="notifications")
            async with workers, health:
                yield
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
            await bus.close()

    watch_pool(metrics, pool)
    application = Starlette(
        routes=[routes.mount(metrics), Route("/livez", health), Route("/readyz", health)],
        exception_handlers={
            RequestError: rejected,
            ClientDisconnect: client_disconnected,
            Exception: internal_error,
        },
        lifespan=lifespan,
    )
    return TelemetryMiddleware(application, metrics)


async def _check_database(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("SELECT 1")
