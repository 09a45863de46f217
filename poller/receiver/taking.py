"""Say how a listener hands over what it received."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from poller.receiver.answers import Answer
from poller.receiver.signals import Request

Protocol = Literal["grpc", "http"]
Take = Callable[[Protocol, Mapping[str, str], Request], Answer]
"""Called in the thread of a request; what it returns is what the sender is told."""
