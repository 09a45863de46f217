"""Say how a server proves who it is, and whether clients must."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tls:
    """The server's certificate and key as PEM files; with `client_ca`, clients must show one of its own."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
