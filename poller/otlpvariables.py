"""Read what the standard OTEL_EXPORTER_OTLP_* variables say for one signal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from poller.endpoint import Signal
from poller.errors import ConfigError, Problem
from poller.files import read_regular
from poller.secrets import show_path

MAX_TLS_BYTES = 1 << 20
"""Of a key or of certificates."""


class Variables:
    """Each option's variable of the signal's own goes before that of all signals.

    Source: OpenTelemetry specification, protocol/exporter.md, "Configuration Options".
    """

    def __init__(self, environ: Mapping[str, str], signal: Signal) -> None:
        self.environ = environ
        self.signal = signal
        self._prefixes = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_", "OTEL_EXPORTER_OTLP_")

    def read(self, option: str) -> str | None:
        """What `option` is set to, like HEADERS; None where it is not, or empty."""
        name = self.where(option)
        return self.environ[name].rstrip("\r\n") if name else None

    def where(self, option: str) -> str | None:
        """The variable that sets `option`; None where none does."""
        names = (prefix + option for prefix in self._prefixes)
        return next((name for name in names if self.environ.get(name, "").strip()), None)

    def file(self, option: str) -> Path | None:
        """The file that `option` names; raises ConfigError where it cannot be read."""
        where = self.where(option)
        if where is None:
            return None
        name = self.environ[where].rstrip("\r\n")
        path = Path(name)
        try:
            read_regular(path, MAX_TLS_BYTES)  # before a library that reads a file of any kind and size
            return path
        except OSError as error:
            # A key itself may stand where its file's name belongs.
            shown = show_path(name) if option == "CLIENT_KEY" or not name.isprintable() else repr(name)
            raise ConfigError([Problem(where, f"{shown} cannot be read: {error.strerror}")]) from None
