"""The text output of `doctor` is bounded for servers with many databases."""

from __future__ import annotations

import io

from rich.console import Console

from poller.model.diagnostics import Diagnostic, Severity
from poller.terminal.diagnostics import print_target_checks


def checks(target: str, message: str = "", severity: Severity = "warning") -> list[Diagnostic]:
    database = Diagnostic("ok", "database", "PostgreSQL", target=target)
    return [database, *([Diagnostic(severity, "queries", message, target=target)] if message else [])]


def printed(*targets: list[Diagnostic]) -> list[str]:
    stream = io.StringIO()
    print_target_checks(Console(file=stream, width=300), targets, [])
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_databases_with_equal_results_are_printed_once_with_the_first_of_their_names() -> None:
    names = [f"s/{number:03}" for number in range(500)]
    lines = printed(checks("s"), *[checks(name) for name in names], checks("t"), checks("u"))
    assert [line.split()[1] for line in lines] == ["s", "s/000", "same", "t", "u", "targets:"]
    assert lines[2] == f"ok      same on:  {', '.join(names[1:11])} and 489 more"
    assert lines[-1].startswith("503 targets: 0 failed, 0 with warnings, 503 ok")


def test_many_different_results_of_one_server_are_counted_and_those_of_other_targets_are_printed() -> None:
    servers = [checks(f"{server}/{number}", f"problem {number}") for server in "ab" for number in range(100)]
    alone = [checks(f"t{number}", f"problem {number}") for number in range(50)]
    lines = printed(*servers, *alone)
    heads = [
        line.split()[1] for line in lines if line.startswith("warn  ") and not line.startswith("warn    ")
    ]
    assert len(heads) == 20 + 20 + 50
    assert "note  a/*  80 more with other results; --format json has all" in lines
    assert "note  b/*  80 more with other results; --format json has all" in lines


def test_a_note_is_printed_and_is_no_problem() -> None:
    lines = printed(checks("s", "2 polled: a, b", "note"))
    assert lines == [
        "ok    s  PostgreSQL; 0 failed, 0 warnings, 1 ok, 0 skipped",
        "note    queries:  2 polled: a, b",
        "1 target: 0 failed, 0 with warnings, 1 ok; other checks: 0 failed, 0 warnings, 0 ok, 0 skipped",
    ]
