"""Examples in the help of each command, and usage errors in plain English."""

from __future__ import annotations

import re
from collections.abc import Sequence

from poller.model.text import did_you_mean, quote

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("poller demo", "see it all at work"),
        ("poller check my-queries", "every mistake, without a database"),
        ("poller poll --queries my-queries", "every value, once"),
        ("poller run", "poll and push, for good"),
        ("poller --install-completion", "have Tab complete all of this"),
        ("poller poll --help", "the examples of a command"),
    ),
    "run": (
        ("poller run", "POLLER_DATABASE_URL says where"),
        ("poller run --queries shipped:my-queries", "your own beside them"),
        ("poller run --require-standby true", "never query a primary"),
    ),
    "poll": (
        ("poller poll", "a table of every value"),
        ("poller poll --queries my-queries -v", "and why rows are left out"),
        ("poller poll --query 'users*' --format json", "some, for a program"),
        ("poller poll --push", "print, and push as well"),
    ),
    "try": (
        ("poller try 'SELECT count(*) AS jobs FROM jobs'", "rows, cost, YAML"),
        ("poller try --write mine.yaml 'SELECT 1 AS one'", "keep it in a file"),
        ("poller try --name jobs - > mine.yaml", "type it, or pipe it in"),
    ),
    "new": (
        ("poller new", "be asked"),
        ("poller new --table users --aggregate count", "or say it"),
    ),
    "check": (
        ("poller check", "the files that run would read"),
        ("poller check my-queries", "a folder; also single files"),
        ("poller check shipped my-queries", "together, for clashes"),
        ("poller check --database --max-cost 1e5", "as a server sees them"),
    ),
    "schema": (
        ("poller schema --write my-queries/queries.schema.json", "for your editor"),
        ("poller schema", "print it"),
    ),
    "test": (
        ("poller test my-queries", "every my-queries/*.test.yaml"),
        ("poller test my-queries --case 'who*'", "some, by name"),
        ("poller test my-queries --junit cases.xml", "for CI"),
    ),
    "import": (
        ("poller import --from pgwatch metrics.yaml > mine.yaml", "and what is lost"),
        ("poller import --from telegraf *.conf --write my-queries", "a file each"),
    ),
    "grants": (
        ("poller grants my-queries > grants.sql", "for psql on the primary"),
        ("poller grants shipped my-queries --role metrics", "for another role"),
    ),
    "doctor": (
        ("poller doctor", "before the first run, and when in doubt"),
        ("poller doctor --strict", "fail where the role may write"),
        ("poller doctor --format json", "for a program"),
    ),
    "catalog": (
        ("poller catalog", "a table in Markdown"),
        ("poller catalog --format json", "for a program"),
        ("poller catalog --generation v0.9.4", "names of that release"),
    ),
    "conform": (
        ("poller conform --for 30s", "listen that long"),
        ("poller conform recorded.json", "or read a file"),
        ("poller conform --require all --ignore '*:process.*'", "pass some over"),
    ),
    "health": (
        ("poller health --live", "for HEALTHCHECK and livenessProbe"),
        ("poller health --ready", "for readinessProbe and startupProbe"),
    ),
    "dashboard": (
        ("poller dashboard > inventory.json", "what queries measure"),
        ("poller dashboard --queries my-queries > mine.json", "of your own"),
        ("poller dashboard poller > poller.json", "how the poller is doing"),
    ),
    "alerts": (
        ("poller alerts > rules.yaml", "for Prometheus"),
        ("poller alerts --queries shipped:my-queries > rules.yaml", "with your own"),
        ("poller alerts --runbook https://wiki.example/poller", "its links"),
    ),
    "watch": (
        ("poller watch", "beside `poller run`; q ends it"),
        ("poller watch --poll --queries my-queries", "poll by itself, push nothing"),
    ),
    "demo": (
        ("poller demo", "until Ctrl-C"),
        ("poller demo --otlp-endpoint http://127.0.0.1:4317", "to yours"),
    ),
    "settings": (
        ("poller settings", "every value, and where it comes from"),
        ("poller settings --format json", "for a program"),
    ),
}
"""For each command, and for none, lines to type, each with what it is for."""


def epilog(command: str) -> str | None:
    """The examples of one command, as they are printed; None where there are none."""
    # The mark keeps the lines from being filled as a paragraph is.
    return f"\b\n{told}" if (told := examples_of(command)) else None


def examples_of(command: str) -> str:
    """The same as plain text."""
    examples = EXAMPLES.get(command, ())
    width = max((len(line) for line, _ in examples), default=0)
    lines = [f"  {line:{width}}  # {what}" for line, what in examples]
    return "\n".join(["Examples:", *lines]) if lines else ""


_CHOICE = re.compile(r"(?:Value error, )?'(?P<given>[^']*)' is not one of (?P<known>'.+')\.?")
_BOUND = re.compile(r"Input should be (?P<side>greater|less) than or equal to (?P<bound>\S+)")
_NUMBER = re.compile(r"Input should be a valid (?P<kind>integer|number)")
_NO_VALUE = re.compile(r"Option '(?P<option>--[a-z-]+)' requires an argument\.")


def reworded(message: str, given: Sequence[str], options: Sequence[str] = ()) -> str:
    """What the library says of the arguments `given`, without its slang, and with what to write instead.

    `options` are the spellings of the option that it complains about, where it is one.
    """
    if match := _CHOICE.fullmatch(message):
        known = re.findall("'([^']*)'", match["known"])
        meant = did_you_mean(match["given"], known) or f"; write one like {known[0]}"
        return f"{quote(match['given'])} is none of {', '.join(known)}{meant}"
    if match := _BOUND.match(message):
        small = match["side"] == "greater"
        size, least = ("small", "least") if small else ("large", "most")
        return f"{_value(given, options)}is too {size}; write at {least} {match['bound']}"
    if match := _NUMBER.match(message):
        kind = "a whole number" if match["kind"] == "integer" else "a number"
        return f"{_value(given, options)}is not {kind}; write one like 10"
    if match := _NO_VALUE.fullmatch(message):
        return f"{match['option']} needs a value{_example(match['option'])}"
    return message.replace("Value error, ", "")


def _value(given: Sequence[str], options: Sequence[str]) -> str:
    """The value of one of `options` as it was given, ready to be put before a word."""
    for word, following in zip(given, [*given[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in options:
            return f"{quote(value if equals else following)} "
    return ""


def _example(option: str) -> str:
    """`; write for example ...` for the option of a setting."""
    from poller.config.settings_schema import Variables, example_of

    name = option.removeprefix("--").replace("-", "_")
    if name not in Variables.model_fields:
        return ""
    return f"; write for example {option} {example_of(name)}"
