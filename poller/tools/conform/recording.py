"""Requests from a file of the Collector's file exporter: OTLP/JSON, one object per line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from poller.model.errors import ConfigError, Problem
from poller.receiver.otlp_json import from_json
from poller.receiver.signals import KINDS, Kind, Request

_HELD_BY = {"resourceMetrics": KINDS[0], "resourceSpans": KINDS[1], "resourceLogs": KINDS[2]}
_LONGEST = 64 << 20
"""Characters of a line; exporters split what is above a few MiB."""
_WRITE = "write it with the file exporter's `format: json`"


def read(path: str) -> Iterator[Request]:
    """Yield the requests of a file, or of standard input for `-`.

    A line that the file exporter was still writing at the very end is passed over. Raises ConfigError for
    anything else that is no OTLP/JSON.
    """
    try:
        with _opened(path) as file:
            yield from _requests(path, file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"is no text; {_WRITE}"
        raise ConfigError([Problem(path, reason or str(error))]) from None


def _opened(path: str) -> nullcontext[IO[str]] | IO[str]:
    return nullcontext(sys.stdin) if path == "-" else Path(path).open(encoding="utf-8")


def _requests(path: str, file: IO[str]) -> Iterator[Request]:
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST), ""), 1):
        if len(line) >= _LONGEST:
            what = f"is a line of {_LONGEST >> 20} Mi characters or more; {_WRITE}, one request a line"
            raise ConfigError([Problem(f"{path}:{number}", what)])
        if not line.strip():
            continue
        try:
            yield from _of_line(line)
        except (ValueError, RecursionError) as error:
            if not line.endswith("\n") and isinstance(error, json.JSONDecodeError) and number > 1:
                return
            raise ConfigError([Problem(f"{path}:{number}", f"is no OTLP/JSON: {error}; {_WRITE}")]) from None


def _of_line(line: str) -> Iterator[Request]:
    told = json.loads(line)
    kinds: list[Kind] = [kind for key, kind in _HELD_BY.items() if isinstance(told, dict) and key in told]
    if not kinds:
        raise ValueError(f"it has none of {', '.join(_HELD_BY)}")
    for kind in kinds:
        yield from_json(line, kind.request)
