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

from poller.demo.messaging.client import Client, Connection

PRE_KEYS = 22
"""Of a device at first, and at every refill."""
_FEW = 20
"""Pre-keys with which a device refills."""


class Person:
    """One of a crowd."""

    def __init__(self, client: Client, crowd: Crowd, random: Random) -> None:
        self.client = client
        self._crowd = crowd
        self._random = random
        self._does: dict[Callable[[], Awaitable[object]], float] = {
            self._write: 60,
            self._write_to_a_group: 6,
            self._write_to_the_silent: 6,
            self._write_to_nobody: 0.5,
            self._begin_to_talk: 10,
            self._send_a_picture: 8,
            self._look_at_a_picture: 6,
            self._back_up: 2,
            self._change_the_phone: 0.5,
            self._look_for_what_is_not_there: 0.5,
        }
        """What, and how often beside the rest."""

    async def live(self, seconds: float) -> None:
        """Come and go until the time is over."""
        await self.client.set_push_token(secrets.token_hex(24))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._for(seconds, self._be_there()))
            group.create_task(self._for(seconds, self._be_busy()))
        await self.client.log_out()

    async def _for(self, seconds: float, what: Coroutine[object, object, None]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await what

    async def _be_there(self) -> None:
        while True:
            async with self.client.connected() as session:
                await self._for(self._random.uniform(15, 40), self._read(session))
            await asyncio.sleep(self._random.uniform(2, 12))

    async def _read(self, session: Connection) -> None:
        """Read what comes, and refill what is used up."""
        async with asyncio.TaskGroup() as group:
            while True:
                messages, pre_keys = await session.receive()
                if pre_keys is not None and pre_keys < _FEW:
                    await self.client.upload_keys(PRE_KEYS)
                if messages:
                    group.create_task(self._acknowledge(session, messages))

    async def _acknowledge(self, session: Connection, messages: Sequence[str]) -> None:
        """Say so some time later; whoever goes away before that gets them once more."""
        await asyncio.sleep(self._random.uniform(0, 4))
        await session.acknowledge(messages)

    async def _be_busy(self) -> None:
        while True:
            await self._crowd.pause(2)
            (does,) = self._random.choices(list(self._does), list(self._does.values()))
            await does()

    async def _write(self) -> None:
        await self._send([self._random.choice(self._crowd.people).client.device])

    async def _write_to_a_group(self) -> None:
        people = self._crowd.people
        group = self._random.sample(people, min(len(people), 8))
        await self._send([one.client.device for one in group])

    async def _write_to_the_silent(self) -> None:
        if self._crowd.silent:
            group = [self._crowd.silent[0]] * 3, [self._random.choice(self._crowd.silent)]
            await self._send([device for devices in group for device in devices])

    async def _write_to_nobody(self) -> None:
        await self._send([uuid4()])

    async def _send(self, devices: Sequence[UUID | None]) -> None:
        known = [device for device in devices if device is not None]
        if known:
            await self.client.send(known, bytes(self._random.randrange(100, 1000)))

    async def _begin_to_talk(self) -> None:
        await self.client.bundles(self._random.choice(self._crowd.people).client.user)

    async def _send_a_picture(self) -> None:
        answer = await self.client.upload(self._crowd.picture())
        if answer.is_success:
            self._crowd.show(answer.json()["id"])

    async def _look_at_a_picture(self) -> None:
        if picture := self._crowd.shown():
            await self.client.download(picture)

    async def _back_up(self) -> None:
        await self.client.back_up(bytes(self._random.randrange(1000, 50_000)))

    async def _change_the_phone(self) -> None:
        self.client.identity = secrets.token_bytes(33)
        await self.client.upload_keys(PRE_KEYS)

    async def _look_for_what_is_not_there(self) -> None:
        await self.client.ask("GET", "/v1/stickers")


MOST_USERS = 20_000
"""Nobody new joins beyond these."""
_WAVE = 40.0
"""Seconds from one rush to the next."""
_PICTURE = 2_000_000
_FAILURES = (httpx.HTTPError, WebSocketException, OSError)


class Crowd:
    """The people who are there."""

    def __init__(self, url: str, random: Random, people: int) -> None:
        self._url = url
        self._random = random
        self._wanted = people
        self._joined = 0
        self._began = time.monotonic()
        self._pictures: list[str] = []
        self.people: list[Person] = []
        self.silent: list[UUID] = []
        """Devices of people who have joined and are never seen again; the first is written to most."""

    async def run(self) -> None:
        """Live until cancelled; raises ExceptionGroup where the server is gone."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._wanted):
                group.create_task(self._stay())
            group.create_task(self._pass_by())
            group.create_task(self._hammer())

    async def pause(self, seconds: float) -> None:
        """Do nothing for a while, less in a rush."""
        rush = 1 + math.sin(2 * math.pi * (time.monotonic() - self._began) / _WAVE)
        await asyncio.sleep(self._random.expovariate(1 / seconds) / (0.25 + rush))

    async def join(self) -> Person:
        """Sign somebody up."""
        address = ".".join(str(self._random.randrange(1, 255)) for _ in range(4))
        client = Client(self._url, headers=lambda: {"x-forwarded-for": address, "user-agent": "demo/1"})
        await client.sign_up(f"demo_{self._joined}_{secrets.token_hex(4)}")
        await client.set_up_device(PRE_KEYS)
        self._joined += 1
        return Person(client, self, self._random)

    def picture(self) -> bytes:
        """As large as pictures are."""
        return bytes(min(int(self._random.lognormvariate(11.5, 1)) + 1, _PICTURE))

    def show(self, picture: str) -> None:
        """Let the others look at it for a while."""
        self._pictures = [*self._pictures[-20:], picture]

    def shown(self) -> str | None:
        """One of the last pictures."""
        return self._random.choice(self._pictures) if self._pictures else None

    async def _stay(self) -> None:
        """One after the other, each for a minute or two."""
        await asyncio.sleep(self._random.uniform(0, 3))
        while True:
            person = await self.join()
            self.people.append(person)
            try:
                await person.live(self._random.uniform(40, 120))
            except* _FAILURES:
                # Whoever fails leaves; whether the server is gone shows when the next one joins.
                await asyncio.sleep(1)
            finally:
                self.people.remove(person)
                await person.client.close()

    async def _pass_by(self) -> None:
        """People who join and are never seen again; but they are written to."""
        while self._joined < MOST_USERS:
            person = await self.join()
            if person.client.device is not None:
                self.silent = [*self.silent[-200:], person.client.device]
            await person.client.close()
            await self.pause(1.5)

    async def _hammer(self) -> None:
        """Somebody who asks too often, and is told so."""
        while True:
            client = Client(self._url, headers=lambda: {"x-forwarded-for": "198.51.100.66"})
            for _ in range(12):
                await client.log_in("nobody_at_all", "wrong password")
            await client.close()
            await self.pause(8)


async def live(url: str, seed: int, people: int) -> int:
    """Keep the server at `url` busy until SIGTERM or SIGINT (0), or until it is gone (1)."""
    crowd = asyncio.create_task(Crowd(url, Random(seed), people).run())  # noqa: S311 - a simulation, no secret
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, crowd.cancel)
    with suppress(asyncio.CancelledError):
        try:
            await crowd
        except ExceptionGroup as failures:
            if rest := failures.split(_FAILURES)[1]:
                raise rest from None
            sys.stderr.write(f"crowd: stopped: {_told(failures)}\n")
            return 1
    return 0


def _told(failure: BaseException) -> str:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return (str(failure).strip().splitlines() or [type(failure).__name__])[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop, or until the server is gone."""
    parser = argparse.ArgumentParser(
        prog="python -m poller.demo.messaging.clients", description="Keep a messaging server busy."
    )
    parser.add_argument("url", help="of the server, like http://127.0.0.1:3000")
    parser.add_argument("--people", type=int, default=16, help="who are there at once")
    parser.add_argument("--seed", type=int, default=0, help="for what they do")
    options = parser.parse_args(arguments)
    return asyncio.run(live(options.url, options.seed, options.people))


if __name__ == "__main__":
    sys.exit(main())
