"""Requests from a file of the Collector's file exporter: OTLP/JSON, one object per line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from poller.model.diagnostics import invalid
from poller.model.errors import ConfigError
from poller.receiver.otlp_json import from_json
from poller.receiver.signals import KINDS, ExportRequest, SignalKind

_KIND_OF_KEY = {"resourceMetrics": KINDS[0], "resourceSpans": KINDS[1], "resourceLogs": KINDS[2]}
_LONGEST = 64 << 20
"""Maximum number of characters of a line; exporters split requests above a few MiB."""
_WRITE = "write it with the file exporter's `format: json`"


def read(path: str) -> Iterator[ExportRequest]:
    """Yield the requests of a file, or of standard input for `-`.

    An incomplete last line, which the file exporter may still be writing, is skipped. Raises ConfigError for
    any other line that is not OTLP/JSON.
    """
    try:
        with _open(path) as file:
            yield from _requests(path, file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"is not a text file; {_WRITE}"
        raise ConfigError([invalid(path, reason or str(error))]) from None


def _open(path: str) -> nullcontext[IO[str]] | IO[str]:
    return nullcontext(sys.stdin) if path == "-" else Path(path).open(encoding="utf-8")


def _requests(path: str, file: IO[str]) -> Iterator[ExportRequest]:
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST), ""), 1):
        if len(line) >= _LONGEST:
            message = f"is a line of {_LONGEST >> 20} Mi characters or more; {_WRITE}, one request per line"
            raise ConfigError([invalid(f"{path}:{number}", message)])
        if not line.strip():
            continue
        try:
            yield from _of_line(line)
        except (ValueError, RecursionError) as error:
            if not line.endswith("\n") and isinstance(error, json.JSONDecodeError) and number > 1:
                return
            raise ConfigError([invalid(f"{path}:{number}", f"is not OTLP/JSON: {error}; {_WRITE}")]) from None


def _of_line(line: str) -> Iterator[ExportRequest]:
    document = json.loads(line)
    kinds: list[SignalKind] = [
        kind for key, kind in _KIND_OF_KEY.items() if isinstance(document, dict) and key in document
    ]
    if not kinds:
        raise ValueError(f"it has none of the keys {', '.join(_KIND_OF_KEY)}")
    for kind in kinds:
        yield from_json(line, kind.request)
