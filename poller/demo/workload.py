"""Database workload of a messaging server: sign-ups, messages, deliveries, uploads and expiry.

    python -m poller.demo.workload DSN [--rate 1.0] [--seed 0]

It writes to the *primary* through one connection, in a database that has `schema.sql`. The seed and the
step number determine what each step writes; responses of the database have no influence. So two runs write
the same rows in the same order, with different timestamps.

No table grows without limit: sign-ups slow down towards `MOST_USERS`, a user has at most two devices, a
device has at most `FULL_STOCK` keys, and all other rows are delivered, replaced or expired.
"""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys
import threading
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg

from poller.model.errors import PollerError
from poller.model.printable import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

STEP = 0.25
"""Seconds between two steps; each is one transaction."""
MOST_USERS = 20_000
FULL_STOCK = 10
"""One-time pre-keys that a device publishes when it refills."""
LARGEST_ATTACHMENT = 52_428_800
"""Bytes; the server's own limit."""

_FIRST_USERS = 1_000
_FIRST_MESSAGES = 600
_FIRST_ATTACHMENTS = 120
_WAVE = 40.0
"""Seconds between two peaks of the message rate."""
_CLEANUP_EVERY = 20
"""Steps between two cleanups; expired rows stay until the next one, as on the real server."""
_CLEANUPS: tuple[LiteralString, ...] = (
    "DELETE FROM messages WHERE expires_at < now()",
    "DELETE FROM attachments WHERE expires_at < now()",
    "DELETE FROM refresh_tokens WHERE expires_at < now()",
)
_IN_SECONDS = "now() + make_interval(secs => %s)"


@dataclass(slots=True, eq=False)
class _Device:
    id: uuid.UUID
    user: uuid.UUID
    keys: list[int] = field(default_factory=list)
    """Ids of the remaining one-time pre-keys, oldest first."""
    next_key: int = 1
    backups: int = 0


class Workload:
    """The existing users and devices, and their activity in each step."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        random: Random,
        *,
        rate: float = 1.0,
        most_users: int = MOST_USERS,
    ) -> None:
        """`connection` is in autocommit mode; `rate` is a factor of the activity per second."""
        self._connection = connection
        self._random = random
        self.rate = rate
        self._most_users = most_users
        self._step = 0
        self._users: list[uuid.UUID] = []
        self._devices: list[_Device] = []
        self._to_deliver: dict[int, list[uuid.UUID]] = defaultdict(list)
        """Messages by the step at which their recipient acknowledges them."""
        self._to_finish: dict[int, list[_Device]] = defaultdict(list)
        """Devices by the step at which the upload of their backup ends."""

    def fill(self) -> None:
        """Write the initial rows, a few thousand.

        Raises PollerError if there are users already, because they may be real ones.
        """
        with self._connection.transaction():
            if self._connection.execute("SELECT FROM users LIMIT 1").fetchone() is not None:
                raise PollerError("the table users is not empty; use a database with empty tables")
            self._register(_FIRST_USERS)
            self._send(_FIRST_MESSAGES)
            self._upload(_FIRST_ATTACHMENTS)
            self._log_in(200)
            for _ in range(100):
                self._back_up(self._random.choice(self._devices))

    def step(self) -> None:
        """Write the activity of one step in one transaction.

        Raises psycopg.Error if the database rejects it.
        """
        self._step += 1
        rush = 1 + math.sin(2 * math.pi * self._step * STEP / _WAVE)
        room = 1 - len(self._users) / self._most_users
        with self._connection.transaction():
            self._register(self._times(2 * room))
            self._deliver()
            self._send(self._times(40 * rush))
            if self._random.random() < 0.02:
                self._send(self._times(150 / STEP))  # a message to a large group
            self._upload(self._times(2 * rush))
            self._log_in(self._times(1.5))
            self._use_keys(self._times(12 * rush))
            self._change_devices()
            self._finish_backups()
            if self._step % _CLEANUP_EVERY == 0:
                for statement in _CLEANUPS:
                    self._connection.execute(statement)

    def _times(self, per_second: float) -> int:
        """Return how often an action happens in this step; a fraction is rounded at random."""
        expected = max(per_second, 0) * self.rate * STEP
        whole = int(expected)
        return whole + (self._random.random() < expected - whole)

    def _id(self) -> uuid.UUID:
        return uuid.UUID(int=self._random.getrandbits(128), version=4)

    def _steps_from_now(self, least: float, most: float) -> int:
        """Return a random step between `least` and `most` seconds from now."""
        return self._step + max(1, round(self._random.uniform(least, most) / STEP))

    def _do(self, statement: LiteralString, rows: Sequence[Sequence[object]]) -> None:
        if rows:
            with self._connection.cursor() as cursor:
                cursor.executemany(statement, rows)

    def _register(self, count: int) -> None:
        names = [(self._id(), f"user_{len(self._users) + nth}") for nth in range(count)]
        self._do("INSERT INTO users (id, username, password_hash) VALUES (%s, %s, 'not a password')", names)
        users = [identity for identity, _ in names]
        self._users += users
        self._add_devices(users + [user for user in users if self._random.random() < 0.3])

    def _add_devices(self, users: list[uuid.UUID]) -> None:
        devices = [_Device(self._id(), user) for user in users]
        self._do(
            "INSERT INTO devices (id, user_id) VALUES (%s, %s)",
            [(device.id, device.user) for device in devices],
        )
        self._do(
            "INSERT INTO identity_keys (device_id, identity_key, registration_id) VALUES (%s, %s, %s)",
            [(device.id, self._random.randbytes(33), self._random.randrange(1, 16380)) for device in devices],
        )
        self._do(
            "INSERT INTO signed_pre_keys (id, device_id, public_key, signature) VALUES (1, %s, %s, %s)",
            [(device.id, self._random.randbytes(33), self._random.randbytes(64)) for device in devices],
        )
        self._do(
            "INSERT INTO push_tokens (device_id, token) VALUES (%s, %s)",
            [
                (device.id, self._random.randbytes(24).hex())
                for device in devices
                if self._random.random() < 0.8
            ],
        )
        self._refill(devices)
        self._devices += devices

    def _refill(self, devices: list[_Device]) -> None:
        """Publish a full stock of new keys for devices that have no key."""
        rows = []
        for device in devices:
            new = range(device.next_key, device.next_key + FULL_STOCK)
            device.keys += new
            device.next_key = new.stop
            rows += [(number, device.id, self._random.randbytes(33)) for number in new]
        self._do("INSERT INTO one_time_pre_keys (id, device_id, public_key) VALUES (%s, %s, %s)", rows)

    def _use_keys(self, count: int) -> None:
        """Start conversations: each uses one key of the recipient, who refills late and not always."""
        used, short = [], []
        # If all devices were equally popular, none would run out of keys.
        popular = self._devices[: max(20, len(self._devices) // 20)]
        for device in self._random.choices(popular, k=count):
            if device.keys:
                used.append((device.id, device.keys.pop(0)))
            elif device not in short and self._random.random() < 0.5:
                short.append(device)
        self._do("DELETE FROM one_time_pre_keys WHERE device_id = %s AND id = %s", used)
        self._refill(short)

    def _send(self, count: int) -> None:
        rows = []
        for _ in range(count):
            sender, recipient = self._random.choice(self._devices), self._random.choice(self._devices)
            message = self._id()
            # One message in fifty is for a device that never connects again.
            lost = self._random.random() < 0.02
            lifetime = 60.0 if lost else 30 * 86400.0
            if not lost:
                self._to_deliver[self._steps_from_now(1, 25)].append(message)
            content = self._random.randbytes(self._random.randrange(100, 1000))
            rows.append((message, sender.user, sender.id, recipient.id, self._id(), content, lifetime))
        self._do(
            "INSERT INTO messages"
            " (id, sender_id, sender_device_id, device_id, submission_id, content, expires_at)"
            f" VALUES (%s, %s, %s, %s, %s, %s, {_IN_SECONDS})",
            rows,
        )

    def _deliver(self) -> None:
        if delivered := self._to_deliver.pop(self._step, None):
            self._connection.execute("DELETE FROM messages WHERE id = ANY(%s)", (delivered,))

    def _upload(self, count: int) -> None:
        rows = [
            (
                self._id(),
                min(int(self._random.lognormvariate(13, 1.5)) + 1, LARGEST_ATTACHMENT),
                self._random.uniform(15, 60),
            )
            for _ in range(count)
        ]
        self._do(f"INSERT INTO attachments (id, size_bytes, expires_at) VALUES (%s, %s, {_IN_SECONDS})", rows)

    def _log_in(self, count: int) -> None:
        rows = [
            (self._random.randbytes(32).hex(), device.user, device.id, self._random.uniform(30, 180))
            for device in self._random.choices(self._devices, k=count)
        ]
        self._do(
            "INSERT INTO refresh_tokens (token_hash, user_id, device_id, expires_at)"
            f" VALUES (%s, %s, %s, {_IN_SECONDS})",
            rows,
        )

    def _change_devices(self) -> None:
        """Replace lost devices, set and delete push tokens, and start backups."""
        for _ in range(self._times(0.5)):
            lost = self._devices.pop(self._random.randrange(len(self._devices)))
            self._connection.execute("DELETE FROM devices WHERE id = %s", (lost.id,))
            self._add_devices([lost.user])
        for device in self._random.choices(self._devices, k=self._times(1)):
            if self._random.random() < 0.2:
                self._connection.execute("DELETE FROM push_tokens WHERE device_id = %s", (device.id,))
            else:
                self._connection.execute(
                    "INSERT INTO push_tokens (device_id, token) VALUES (%s, %s)"
                    " ON CONFLICT (device_id) DO UPDATE SET token = excluded.token, updated_at = now()",
                    (device.id, self._random.randbytes(24).hex()),
                )
        for device in self._random.choices(self._devices, k=self._times(1)):
            self._back_up(device)

    def _back_up(self, device: _Device) -> None:
        self._connection.execute(
            "INSERT INTO backups (device_id, pending_version, state, pending_at)"
            " VALUES (%s, %s, 'UPLOADING', now())"
            " ON CONFLICT (device_id) DO UPDATE SET pending_version = excluded.pending_version,"
            " state = 'UPLOADING', pending_at = now(), updated_at = now()",
            (device.id, device.backups + 1),
        )
        self._to_finish[self._steps_from_now(2, 12)].append(device)

    def _finish_backups(self) -> None:
        for device in self._to_finish.pop(self._step, []):
            device.backups += 1
            self._connection.execute(
                "UPDATE backups SET current_version = %s, pending_version = NULL, state = 'ACTIVE',"
                " pending_at = NULL, updated_at = now() WHERE device_id = %s",
                (device.backups, device.id),
            )


def run(dsn: str, stop: threading.Event, *, seed: int = 0, rate: float = 1.0) -> bool:
    """Fill the database at `dsn` and change it until `stop` is set; returns True if that ended it.

    Returns False after a database error, which is written to stderr as one line.
    """
    try:
        with psycopg.connect(
            dsn, autocommit=True, connect_timeout=10, application_name="poller demo workload"
        ) as connection:
            workload = Workload(connection, Random(seed), rate=rate)  # noqa: S311 - a simulation, no secret
            workload.fill()
            due = time.monotonic()
            while not stop.is_set():
                workload.step()
                # Missed steps are not repeated, so a slow machine writes less and never in bursts.
                due = max(due + STEP, time.monotonic())
                stop.wait(due - time.monotonic())
    except (psycopg.Error, PollerError) as error:
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        sys.stderr.write(f"workload: stopped: {one_line(message)}\n")
        return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT (exit code 0) or until the database fails (1)."""
    parser = argparse.ArgumentParser(
        prog="python -m poller.demo.workload",
        description="Write the activity of a messaging server to a demo database.",
    )
    parser.add_argument(
        "dsn", help="the primary, as a libpq connection string or URI; its table users must be empty"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="factor of the activity per second")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the random numbers; the same seed writes the same rows"
    )
    options = parser.parse_args(arguments)
    # psycopg's own log record of a lost connection would repeat the line that `run` writes.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return 0 if run(options.dsn, stop, seed=options.seed, rate=options.rate) else 1


if __name__ == "__main__":
    sys.exit(main())
