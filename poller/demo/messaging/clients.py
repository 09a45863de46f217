"""Simulated users that generate load on a messaging server.

python -m poller.demo.messaging.clients URL [--people 16] [--seed 0]
"""

from __future__ import annotations

import argparse
import asyncio
import math
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from random import Random
from uuid import UUID, uuid4

import httpx
from websockets.exceptions import WebSocketException

from poller.demo.messaging.client import Client, GatewaySession

PRE_KEYS = 22
"""Number of pre-keys that a device publishes at first and at each refill."""
_FEW = 20
"""Number of pre-keys below which a device refills."""


class SimulatedUser:
    """One simulated user with one device."""

    def __init__(self, client: Client, simulation: Simulation, random: Random) -> None:
        self.client = client
        self._simulation = simulation
        self._random = random
        self._actions: dict[Callable[[], Awaitable[object]], float] = {
            self._send_to_user: 60,
            self._send_to_group: 6,
            self._send_to_inactive: 6,
            self._send_to_unknown: 0.5,
            self._fetch_keys: 10,
            self._upload_attachment: 8,
            self._download_attachment: 6,
            self._back_up: 2,
            self._replace_identity: 0.5,
            self._request_unknown_route: 0.5,
        }
        """Actions, with their relative frequencies."""

    async def run(self, seconds: float) -> None:
        """Connect, disconnect and act for `seconds`, then log out."""
        await self.client.set_push_token(secrets.token_hex(24))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_for(seconds, self._stay_connected()))
            group.create_task(self._run_for(seconds, self._act()))
        await self.client.log_out()

    async def _run_for(self, seconds: float, work: Coroutine[object, object, None]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await work

    async def _stay_connected(self) -> None:
        while True:
            async with self.client.connected() as session:
                await self._run_for(self._random.uniform(15, 40), self._read(session))
            await asyncio.sleep(self._random.uniform(2, 12))

    async def _read(self, session: GatewaySession) -> None:
        """Receive messages, and refill the pre-keys when they are low."""
        async with asyncio.TaskGroup() as group:
            while True:
                messages, pre_keys = await session.receive()
                if pre_keys is not None and pre_keys < _FEW:
                    await self.client.upload_keys(PRE_KEYS)
                if messages:
                    group.create_task(self._acknowledge(session, messages))

    async def _acknowledge(self, session: GatewaySession, messages: Sequence[str]) -> None:
        """Acknowledge after a delay; if the session ends earlier, the server delivers the messages again."""
        await asyncio.sleep(self._random.uniform(0, 4))
        await session.acknowledge(messages)

    async def _act(self) -> None:
        while True:
            await self._simulation.pause(2)
            (action,) = self._random.choices(list(self._actions), list(self._actions.values()))
            await action()

    async def _send_to_user(self) -> None:
        await self._send([self._random.choice(self._simulation.users).client.device])

    async def _send_to_group(self) -> None:
        users = self._simulation.users
        group = self._random.sample(users, min(len(users), 8))
        await self._send([user.client.device for user in group])

    async def _send_to_inactive(self) -> None:
        if self._simulation.inactive:
            group = [self._simulation.inactive[0]] * 3, [self._random.choice(self._simulation.inactive)]
            await self._send([device for devices in group for device in devices])

    async def _send_to_unknown(self) -> None:
        await self._send([uuid4()])

    async def _send(self, devices: Sequence[UUID | None]) -> None:
        existing = [device for device in devices if device is not None]
        if existing:
            await self.client.send(existing, bytes(self._random.randrange(100, 1000)))

    async def _fetch_keys(self) -> None:
        await self.client.bundles(self._random.choice(self._simulation.users).client.user)

    async def _upload_attachment(self) -> None:
        response = await self.client.upload(self._simulation.attachment_content())
        if response.is_success:
            self._simulation.add_attachment(response.json()["id"])

    async def _download_attachment(self) -> None:
        if attachment := self._simulation.recent_attachment():
            await self.client.download(attachment)

    async def _back_up(self) -> None:
        await self.client.back_up(bytes(self._random.randrange(1000, 50_000)))

    async def _replace_identity(self) -> None:
        self.client.identity = secrets.token_bytes(33)
        await self.client.upload_keys(PRE_KEYS)

    async def _request_unknown_route(self) -> None:
        await self.client.request("GET", "/v1/stickers")


MOST_USERS = 20_000
"""Maximum number of sign-ups."""
_WAVE = 40.0
"""Seconds between two peaks of the load."""
_MOST_ATTACHMENT_BYTES = 2_000_000
_FAILURES = (httpx.HTTPError, WebSocketException, OSError)


class Simulation:
    """All simulated users of one server."""

    def __init__(self, url: str, random: Random, size: int) -> None:
        self._url = url
        self._random = random
        self._size = size
        self._signed_up = 0
        self._began = time.monotonic()
        self._attachments: list[str] = []
        self.users: list[SimulatedUser] = []
        self.inactive: list[UUID] = []
        """Devices of users who never connect again; the first one receives the most messages."""

    async def run(self) -> None:
        """Run until cancelled; raises ExceptionGroup if the server is not reachable."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._size):
                group.create_task(self._keep_active())
            group.create_task(self._add_inactive())
            group.create_task(self._exceed_rate_limit())

    async def pause(self, seconds: float) -> None:
        """Wait for a random time, which is shorter at a peak of the load."""
        peak = 1 + math.sin(2 * math.pi * (time.monotonic() - self._began) / _WAVE)
        await asyncio.sleep(self._random.expovariate(1 / seconds) / (0.25 + peak))

    async def sign_up(self) -> SimulatedUser:
        """Create a user with a device."""
        address = ".".join(str(self._random.randrange(1, 255)) for _ in range(4))
        client = Client(self._url, headers=lambda: {"x-forwarded-for": address, "user-agent": "demo/1"})
        await client.sign_up(f"demo_{self._signed_up}_{secrets.token_hex(4)}")
        await client.set_up_device(PRE_KEYS)
        self._signed_up += 1
        return SimulatedUser(client, self, self._random)

    def attachment_content(self) -> bytes:
        """Return content with the size of a typical picture."""
        return bytes(min(int(self._random.lognormvariate(11.5, 1)) + 1, _MOST_ATTACHMENT_BYTES))

    def add_attachment(self, attachment: str) -> None:
        """Add an attachment that other users can download."""
        self._attachments = [*self._attachments[-20:], attachment]

    def recent_attachment(self) -> str | None:
        """Return one of the newest attachments, if there are any."""
        return self._random.choice(self._attachments) if self._attachments else None

    async def _keep_active(self) -> None:
        """Run one user after the other, each for one or two minutes."""
        await asyncio.sleep(self._random.uniform(0, 3))
        while True:
            user = await self.sign_up()
            self.users.append(user)
            try:
                await user.run(self._random.uniform(40, 120))
            except* _FAILURES:
                # If the server is not reachable, the next sign-up fails and ends the simulation.
                await asyncio.sleep(1)
            finally:
                self.users.remove(user)
                await user.client.close()

    async def _add_inactive(self) -> None:
        """Add users who never connect after their sign-up but receive messages."""
        while self._signed_up < MOST_USERS:
            user = await self.sign_up()
            if user.client.device is not None:
                self.inactive = [*self.inactive[-200:], user.client.device]
            await user.client.close()
            await self.pause(1.5)

    async def _exceed_rate_limit(self) -> None:
        """Send more logins than the rate limit allows."""
        while True:
            client = Client(self._url, headers=lambda: {"x-forwarded-for": "198.51.100.66"})
            for _ in range(12):
                await client.log_in("unknown_user", "wrong password")
            await client.close()
            await self.pause(8)


async def simulate(url: str, seed: int, people: int) -> int:
    """Generate load until SIGTERM or SIGINT (returns 0) or until the server is not reachable (returns 1)."""
    simulation = asyncio.create_task(Simulation(url, Random(seed), people).run())  # noqa: S311 - a simulation, no secret
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, simulation.cancel)
    with suppress(asyncio.CancelledError):
        try:
            await simulation
        except ExceptionGroup as failures:
            if rest := failures.split(_FAILURES)[1]:
                raise rest from None
            sys.stderr.write(f"clients: stopped: {_first_line(failures)}\n")
            return 1
    return 0


def _first_line(failure: BaseException) -> str:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulation; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m poller.demo.messaging.clients",
        description="Generate load on a messaging server with simulated users.",
    )
    parser.add_argument("url", help="URL of the server, like http://127.0.0.1:3000")
    parser.add_argument(
        "--people", type=int, default=16, help="number of simulated users at a time (default: 16)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers")
    options = parser.parse_args(arguments)
    return asyncio.run(simulate(options.url, options.seed, options.people))


if __name__ == "__main__":
    sys.exit(main())
