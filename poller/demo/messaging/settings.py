"""Limits, sizes and times of the messaging server."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, fields
from typing import get_type_hints


@dataclass(frozen=True, slots=True)
class MessagingSettings:
    """Sizes are in bytes and times in seconds; the defaults are those of the original server."""

    pool_size: int = 20
    pool_timeout: float = 3
    fetch_limit: int = 50
    """Maximum number of messages in one fetch, and so in one frame."""
    frame_size: int = 8_388_608
    inbox_size: int = 1000
    """Maximum number of stored messages of one device."""
    outbound_queue: int = 32
    """Maximum number of frames queued for a slow client."""
    ack_queue: int = 1000
    ack_batch: int = 100
    ack_interval: float = 0.5
    ticket_lifetime: float = 30
    session_lifetime: float = 900
    """Lifetime of an access token."""
    refresh_lifetime: float = 2_592_000
    message_lifetime: float = 2_592_000
    attachment_lifetime: float = 2_592_000
    attachment_size: int = 52_428_800
    backup_size: int = 2_097_152
    stale_backup: float = 1800
    pre_key_threshold: int = 20
    """The number of one-time pre-keys below which a device is notified to refill."""
    rate: float = 10
    """Requests per second of one client; `burst` is the maximum at once."""
    burst: int = 20
    auth_rate: float = 1
    """The same for sign-ups and logins."""
    auth_burst: int = 3
    cleanup_interval: float = 300
    channel_interval: float = 60
    push_interval: float = 1
    push_delay: float = 2
    health_interval: float = 15


def add_options(parser: ArgumentParser) -> None:
    """Add one option per setting to the parser."""
    kinds = get_type_hints(MessagingSettings)
    for field in fields(MessagingSettings):
        name = field.name.replace("_", "-")
        parser.add_argument(f"--{name}", type=kinds[field.name], default=field.default, metavar="N")


def from_options(options: Namespace) -> MessagingSettings:
    """Return the settings from the parsed options."""
    return MessagingSettings(
        **{field.name: getattr(options, field.name) for field in fields(MessagingSettings)}
    )
