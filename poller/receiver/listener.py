"""Common interface of the listeners: the function that takes a request, and TLS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from poller.receiver.answers import CannedAnswer
from poller.receiver.signals import ExportRequest

Transport = Literal["grpc", "http"]
Take = Callable[[Transport, Mapping[str, str], ExportRequest], CannedAnswer]
"""Called in the thread of a request; returns the answer to the sender."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate and key as PEM files; with `client_ca`, client certificates are required."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
