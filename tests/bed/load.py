"""A known load of real clients, with the events that it must report."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from poller.demo.messaging.client import Client, GatewaySession, ResponseCounts
from poller.events import NotificationEvent
from tests.bed.eventmetrics import PATIENCE, EventMetricsSeen
from tests.bed.messaging import MessagingServer
from tests.bed.personal_data_client import PersonalDataClient, Sent
from tests.bed.pushes import Provider
from tests.bed.s3 import Bucket

LIMITS = {
    "pool-size": 4,
    "pool-timeout": PATIENCE,
    "fetch-limit": 3,
    "frame-size": 200_000,
    "inbox-size": 30,
    "outbound-queue": 1,
    "ack-queue": 10,
    "ack-batch": 6,
    "ack-interval": 0.2,
    "attachment-size": 100_000,
    "pre-key-threshold": 3,
    "stale-backup": 3600,
    # No client regains a token while the test runs.
    "rate": 1e-6,
    "burst": 1000,
    "auth-rate": 1e-6,
    "auth-burst": 6,
    "cleanup-interval": 0.3,
    "channel-interval": 0.3,
    "push-interval": 0.1,
    "push-delay": 0.1,
    "health-interval": 1,
    "send-buffer": 4096,
}
"""Settings of the server with which every event happens soon."""
_PRE_KEYS = 5
"""Initial number of pre-keys of each device."""


class Load:
    """The actions of the clients, in an order with a deterministic result."""

    def __init__(
        self,
        url: str,
        database: MessagingServer,
        bucket: Bucket,
        provider: Provider,
        metrics: EventMetricsSeen,
    ) -> None:
        self.sent = Sent()
        self.responses: ResponseCounts = Counter()
        self.counted: Counter[tuple[str, ...]] = Counter()
        """Expected counts, by event and attribute values."""
        self.recorded: dict[str, list[int]] = {
            "messages_fetched": [],
            "websocket_acks_flushed": [],
            "attachment_size": [],
            "backup_size": [],
        }
        """Expected values of histograms, by event."""
        self._url = url
        self._database = database
        self._bucket = bucket
        self._provider = provider
        self._metrics = metrics
        self._clients: list[PersonalDataClient] = []

    async def run(self) -> None:
        """Perform every action once."""
        try:
            await self._do_all()
        finally:
            for client in self._clients:
                await client.close()

    async def _do_all(self) -> None:
        alice, bob, carol = [await self._join(name) for name in ("alice", "bob", "carol")]
        async with self._connected(bob) as session:
            await self._deliver(alice, bob, session)
            await self._run_out_of_keys(alice, bob, session)
            await self._fill_the_ack_queue(session)
            await self._send_too_large_for_a_frame(alice, bob)
            await self._be_slow(alice, bob, session)
        await self._send_to_missing_devices(alice, carol)
        await self._replace_identity(alice, carol)
        await self._overflow(alice, carol)
        await self._push(alice)
        await self._keep_attachments(alice)
        await self._back_up(alice)
        await self._lose_the_storage(alice)
        await self._use_up_the_pool(alice)
        await self._leave(bob)
        await self._be_refused(alice)
        await self._metrics.see(
            self.counted["notification_channels_reclaimed",], "notification_channels_reclaimed"
        )
        for component in ("database", "storage", "pubsub"):
            await self._metrics.see(1, "health_checked", component)

    # --- messages and keys ------------------------------------------------------------------------------

    async def _join(self, name: str) -> PersonalDataClient:
        client = self._client()
        self.sent.secrets.add(f"planted_{name}")
        await _expect(client.sign_up(f"planted_{name}"), 201)
        await _expect(client.set_up_device(_PRE_KEYS), 201)
        self.counted["user_registered",] += 1
        self.counted["device_created",] += 1
        return client

    async def _deliver(self, alice: Client, bob: Client, session: GatewaySession) -> None:
        await self._send(alice, bob, 2, b"hello")
        ids, _ = await session.receive()
        assert len(ids) == 2
        self.recorded["messages_fetched"].append(2)
        await session.acknowledge(ids)
        self.counted["websocket_acks_received",] += 1
        await self._until(lambda: self._waiting_for(bob) == 0)
        self.recorded["websocket_acks_flushed"].append(2)

    async def _run_out_of_keys(self, alice: Client, bob: Client, session: GatewaySession) -> None:
        for _ in range(3):
            await _expect(alice.bundles(bob.user), 200)
        assert await session.receive() == ([], 2)
        self.counted["prekeys_low",] += 1
        self._notified("sent", "PreKeyLow")

    async def _fill_the_ack_queue(self, session: GatewaySession) -> None:
        await session.acknowledge([str(uuid4()) for _ in range(16)])
        self.counted["websocket_acks_received",] += 1
        self.counted["websocket_acks_dropped",] += 6
        self.recorded["websocket_acks_flushed"] += [6, 4]

    async def _send_too_large_for_a_frame(self, alice: Client, bob: Client) -> None:
        await self._send(alice, bob, 1, bytes(180_000))
        self.recorded["messages_fetched"].append(1)
        self.counted["websocket_outbound_dropped", "encode_failed"] += 1
        await self._metrics.see(1, "websocket_outbound_dropped", "encode_failed")

    async def _be_slow(self, alice: Client, bob: Client, session: GatewaySession) -> None:
        """A client that does not read: the server drops exactly the frames that it did not receive."""
        dave = await self._join("dave")
        await self._send(alice, dave, 29, bytes(30_000), connected=False)
        # Notifications keep their order: once this one has arrived, none is on its way to Dave.
        await self._send(alice, bob, 1, b"now")
        assert len((await session.receive())[0]) == 1
        self.recorded["messages_fetched"].append(1)
        frames = 11  # one about pre-keys, and ten of up to three messages each
        async with self._connected(
            dave, fetched=[3] * 9 + [2], reads=False, sock=dave.deaf_socket(), max_queue=1
        ) as slow:
            await self._metrics.see(2, "websocket_connections")
            await self._metrics.see(len(self.recorded["messages_fetched"]), "messages_fetched")
            dropped = int(await self._metrics.next("websocket_outbound_dropped", "buffer_full"))
            assert 0 < dropped < frames
            self.counted["websocket_outbound_dropped", "buffer_full"] += dropped
            for _ in range(frames - dropped):
                await slow.receive()
            await self._send(alice, dave, 1, b"now")
            assert len((await slow.receive())[0]) == 1
            self.recorded["messages_fetched"].append(1)

    async def _send_to_missing_devices(self, alice: Client, carol: Client) -> None:
        await _expect(alice.send([uuid4(), uuid4()], b"lost"), 404)
        self.counted["message_sent", "failure"] += 2
        message = {"submission": str(uuid4()), "device": str(carol.device), "content": "aGVsbG8="}
        for new in (1, 0):  # a repeated message is not new
            answer = await _expect(alice.request("POST", "/v1/messages", json={"messages": [message]}), 201)
            assert answer.json() == {"stored": new}
            self._notified("no_receivers", "MessageReceived")
        self.counted["message_sent", "success"] += 1

    async def _replace_identity(self, alice: Client, carol: Client) -> None:
        for identity, replaced in ((carol.identity, False), (secrets.token_bytes(33), True)):
            carol.identity = identity
            answer = await _expect(carol.upload_keys(10), 200)
            assert answer.json() == {"taken_over": replaced}
        self.counted["key_taken_over",] += 1
        assert self._waiting_for(carol) == 0
        await _expect(alice.bundles(carol.user), 200)

    async def _overflow(self, alice: Client, carol: Client) -> None:
        await self._send(alice, carol, 33, b"one of many", connected=False)
        await self._until(lambda: self._waiting_for(carol) == 30)
        self.counted["inbox_overflowed",] += 3

    async def _push(self, alice: Client) -> None:
        erin = await self._join("erin")
        for outcome in ("fine", "quota", "broken", "gone"):
            token = f"{outcome}-planted-push-token"
            self.sent.secrets.add(token)
            await _expect(erin.set_push_token(token), 204)
            await self._send(alice, erin, 1, b"wake up", connected=False)
            await self._until(lambda token=token: token in self._provider.tokens)  # type: ignore[misc]
        await self._until(lambda: not self._database.execute("SELECT 1 FROM push_tokens"))
        self.counted["push_sent",] += 1
        self.counted["push_failed", "quota_exceeded"] += 1
        self.counted["push_failed", "other"] += 1
        self.counted["push_token_invalid",] += 1

    # --- attachments, backups and their storage ---------------------------------------------------------

    async def _keep_attachments(self, alice: PersonalDataClient) -> None:
        for size in (1, 5_000, 70_000):
            attachment = await self._upload(alice, size)
            assert len((await _expect(alice.download(attachment), 200)).content) == size
        await _expect(alice.upload(bytes(100_001)), 413)
        await _expect(alice.request("POST", "/v1/attachments", content=_in_chunks()), 411)
        self._expire(attachment)
        await self._until(lambda: not self._is_stored(attachment))
        self.counted["attachments_deleted",] += 1
        await _expect(alice.download(attachment), 404)
        assert f"attachments/{attachment}" not in self._bucket.names()
        await alice.abort_an_upload()
        await self._metrics.see(1, "http_request", "POST", "/v1/attachments", "499")

    async def _back_up(self, alice: Client) -> None:
        for size in (32, 1000):
            await _expect(alice.back_up(bytes(size)), 200)
            self.counted["backup_uploaded",] += size
            self.recorded["backup_size"].append(size)
        answer = await _expect(alice.request("GET", "/v1/backup"), 200)
        assert (len(answer.content), answer.headers["etag"]) == (1000, '"2"')
        await _expect(alice.request("HEAD", "/v1/backup"), 200)
        await _expect(alice.back_up(bytes(31)), 400)
        self._database.execute(
            "UPDATE backups SET state = 'UPLOADING', pending_version = 3, pending_at = '-infinity'"
        )
        await self._until(
            lambda: not self._database.execute("SELECT 1 FROM backups WHERE state = 'UPLOADING'")
        )
        self.counted["backups_cleaned",] += 1

    async def _lose_the_storage(self, alice: Client) -> None:
        attachment = await self._upload(alice, 10)
        await self._metrics.see(1, "health_checked", "storage")
        await _expect(alice.request("GET", "/readyz"), 200)
        self._bucket.delete()
        try:
            await _expect(alice.upload(bytes(10)), 500)
            answer = await _expect(alice.request("GET", "/readyz"), 503)
            assert (answer.json()["status"], answer.json()["storage"]) == ("error", "error")
            await self._metrics.see(0, "health_checked", "storage")
            self._expire(attachment)
            await self._metrics.see_failed_span("run_attachment_cleanup")
        finally:
            self._bucket.create()
        await self._until(lambda: not self._is_stored(attachment))
        self.counted["attachments_deleted",] += 1

    async def _use_up_the_pool(self, alice: Client) -> None:
        attachment = await self._upload(alice, 10)
        with self._locked("attachments"):
            downloads = [asyncio.create_task(alice.download(attachment)) for _ in range(6)]
            await self._metrics.see(4, "db_pool_active")
            await self._metrics.see_at_least(2, "db_pool_waiting")
        for download in downloads:
            await _expect(download, 200)

    # --- sessions and refusals --------------------------------------------------------------------------

    async def _leave(self, bob: Client) -> None:
        await _expect(bob.refresh(), 200)
        self.counted["token_refreshed",] += 1
        await _expect(bob.log_out(), 204)
        self.counted["logged_out",] += 1
        await _expect(bob.set_push_token("x"), 401)
        await _expect(bob.log_in("planted_bob"), 200)
        self.counted["logged_in",] += 1
        assert bob.device is not None
        # The message that fits no frame still waits for him, as well as the one that he has not acknowledged.
        async with self._connected(bob, pre_keys=2, fetched=[2]) as session:
            self.counted["websocket_outbound_dropped", "encode_failed"] += 1
            await self._metrics.see(len(self.recorded["messages_fetched"]), "messages_fetched")
            await _expect(bob.delete_device(bob.device), 204)
            self.counted["device_deleted",] += 1
            self._notified("sent", "Disconnect")
            with pytest.raises(ConnectionClosed):
                await session.receive()

    async def _be_refused(self, alice: Client) -> None:
        stranger = self._client()
        for status in (401,) * 6 + (429,) * 2:
            await _expect(stranger.log_in("planted_alice", "planted-wrong-password"), status)
        self.sent.secrets |= {"planted-wrong-password", "planted-ticket"}
        with pytest.raises(InvalidStatus):
            async with stranger.connected(ticket="planted-ticket"):
                pass
        await _expect(alice.sign_up("planted_bob"), 409)
        await _expect(alice.sign_up("Planted Name"), 400)
        self.sent.secrets.add("Planted Name")
        await _expect(alice.request("GET", "/livez"), 200)
        for method, route, status, observed in (
            ("GET", "/v1/nothing/here", 404, ("GET", "unmatched", 404)),
            ("BREW", "/v1/messages", 405, ("_OTHER", "/v1/messages", 405)),
        ):
            await _expect(alice.request(method, route), status)
            self.responses[method, route, status] -= 1
            self.responses[observed] += 1

    # --- common parts -----------------------------------------------------------------------------------

    def _client(self) -> PersonalDataClient:
        address = f"203.0.113.{len(self._clients) + 1}"
        self._clients.append(PersonalDataClient(self._url, self.responses, self.sent, address))
        return self._clients[-1]

    async def _send(
        self, sender: Client, recipient: Client, count: int, content: bytes, *, connected: bool = True
    ) -> None:
        await _expect(sender.send([recipient.device] * count, content), 201)
        self.counted["message_sent", "success"] += count
        self._notified("sent" if connected else "no_receivers", "MessageReceived")

    def _notified(self, status: str, event: NotificationEvent) -> None:
        self.counted["notification_sent", status] += 1
        self.counted["notification_received", event] += 1
        self.counted["notification_processed",] += 1
        if status == "no_receivers":
            self.counted["notification_unrouted", event] += 1

    @asynccontextmanager
    async def _connected(
        self,
        client: Client,
        *,
        pre_keys: int = _PRE_KEYS,
        fetched: list[int] | None = None,
        reads: bool = True,
        **how: Any,
    ) -> AsyncIterator[GatewaySession]:
        async with client.connected(**how) as session:
            self.counted["websocket_session",] += 1
            self.counted["notification_channels_reclaimed",] += 1
            self.counted["prekeys_low",] += pre_keys < LIMITS["pre-key-threshold"]
            self.recorded["messages_fetched"] += [0] if fetched is None else fetched
            if reads:
                assert await session.receive() == ([], pre_keys)
            yield session

    async def _upload(self, client: Client, size: int) -> str:
        answer = await _expect(client.upload(bytes(size)), 201)
        self.counted["attachment_uploaded",] += size
        self.recorded["attachment_size"].append(size)
        attachment: str = answer.json()["id"]
        return attachment

    def _expire(self, attachment: str) -> None:
        self._database.execute(f"UPDATE attachments SET expires_at = '-infinity' WHERE id = '{attachment}'")

    def _is_stored(self, attachment: str) -> bool:
        return bool(self._database.execute(f"SELECT 1 FROM attachments WHERE id = '{attachment}'"))

    def _waiting_for(self, client: Client) -> int:
        return len(self._database.execute(f"SELECT 1 FROM messages WHERE device_id = '{client.device}'"))

    @contextmanager
    def _locked(self, table: str) -> Iterator[None]:
        with psycopg.connect(self._database.primary_dsn) as connection:
            connection.execute(f"LOCK TABLE {table}".encode())
            yield

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.02)


async def _expect(answer: Awaitable[httpx.Response], status: int) -> httpx.Response:
    response = await answer
    assert response.status_code == status, response.text
    return response


async def _in_chunks() -> AsyncIterator[bytes]:
    yield b"no Content-Length"
