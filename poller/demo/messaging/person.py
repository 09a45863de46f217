"""Somebody with a device, who comes and goes, and does this and that."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from poller.demo.messaging.client import Client, Connection

if TYPE_CHECKING:
    from poller.demo.messaging.crowd import Crowd

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
