"""Command `health`: liveness and readiness probe, which imports as little as possible."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Literal, NoReturn

from poller.daemon.health import MAX_AGE_SECONDS, clock, judge, places, read
from poller.model.printable import one_line
from poller.terminal.stdio import drop_stdout, guard, open_missing

_NO_MATTER = "A poller stays alive if the database, the collector or a query file fails."
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def health(
    ready: bool = False,
    file: str | None = None,
    max_age: float = MAX_AGE_SECONDS,
    format: Literal["text", "json"] = "text",  # noqa: A002 - the option is called --format everywhere
) -> NoReturn:
    """Report in one line whether the poller is alive (or ready), and why. Exit code 0: yes; 1: no."""
    environ = os.environ
    heartbeat = read(places(file or environ.get("POLLER_HEALTH_FILE"), environ.get("POLLER_STATE_DIR")))
    healthy, reason = judge(heartbeat, ready=ready, now=clock(), max_age=max_age)
    if format == "json":
        content = None if isinstance(heartbeat, str) else heartbeat
        reason = json.dumps({"good": healthy, "why": reason, "heartbeat": content}, indent=2)
    try:
        print(reason if format == "json" else one_line(reason), flush=True)  # noqa: T201 - the command's output
    except OSError:
        drop_stdout()  # the exit code is reported even if nothing reads the output
    sys.exit(0 if healthy else 1)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run the command with the arguments after `poller health`; a wrong option ends it with exit code 2."""
    open_missing()
    guard()
    parser = argparse.ArgumentParser(
        prog="poller health",
        description=textwrap.fill(health.__doc__ or ""),
        epilog=f"{_NO_MATTER}\n\n{_examples()}" if {"-h", "--help"}.intersection(arguments) else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--live",
        action="store_false",
        dest="ready",
        default=False,
        help="the process and its loops are running: for HEALTHCHECK and livenessProbe (default)",
    )
    which.add_argument(
        "--ready",
        action="store_true",
        help="alive, and every query was polled at least once: for readinessProbe and startupProbe",
    )
    parser.add_argument(
        "--file", help="heartbeat file (default: POLLER_HEALTH_FILE, or the default of `poller run`)"
    )
    parser.add_argument(
        "--max-age",
        type=_seconds,
        default=MAX_AGE_SECONDS,
        metavar="DURATION",
        help=f"maximum age of the heartbeat (default: {MAX_AGE_SECONDS:g}s)",
    )
    parser.add_argument(
        "--format", choices=["text", "json"], default="text", help="one line, or the complete heartbeat"
    )
    health(**vars(parser.parse_args(arguments)))


def _examples() -> str:
    from poller.cli.help import examples_of

    return examples_of("health")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; write one like 60s or 2m")
    return float(match[1]) * _UNITS[match[2]]
