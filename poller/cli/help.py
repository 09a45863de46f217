"""Examples in the help of each command, and usage errors in plain English."""

from __future__ import annotations

import re
from collections.abc import Sequence

from poller.model.text import did_you_mean, quote

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("poller demo", "run a complete setup"),
        ("poller check my-queries", "every mistake, without a database"),
        ("poller poll --queries my-queries", "every value, once"),
        ("poller run", "poll and push until stopped"),
        ("poller run --targets targets.yaml", "many databases"),
        ("poller --install-completion", "complete commands with Tab"),
        ("poller poll --help", "help and examples of a command"),
    ),
    "run": (
        ("poller run", "poll POLLER_DATABASE_URL"),
        ("poller run --targets targets.yaml", "many databases"),
        ("poller run --queries shipped:my-queries", "add your own queries"),
        ("poller run --require-standby true", "never query a primary"),
    ),
    "poll": (
        ("poller poll", "a table of every value"),
        ("poller poll --queries my-queries -v", "list omitted rows as well"),
        ("poller poll --query 'users*' --format json", "some queries, as JSON"),
        ("poller poll --targets targets.yaml", "many databases"),
        ("poller poll --push", "print and push"),
    ),
    "try": (
        ("poller try 'SELECT count(*) AS jobs FROM jobs'", "rows, cost, YAML"),
        ("poller try --write mine.yaml 'SELECT 1 AS one'", "append it to a file"),
        ("poller try --name jobs - > mine.yaml", "read it from stdin"),
    ),
    "new": (
        ("poller new", "answer questions"),
        ("poller new --table users --aggregate count", "or use options"),
    ),
    "check": (
        ("poller check", "the files of POLLER_QUERIES"),
        ("poller check my-queries", "a folder or single files"),
        ("poller check shipped my-queries", "conflicts between them"),
        ("poller check --targets targets.yaml", "with the targets"),
        ("poller check --database --max-cost 1e5", "on the server as well"),
    ),
    "schema": (
        ("poller schema --write my-queries/queries.schema.json", "for your editor"),
        ("poller schema", "on stdout"),
        ("poller schema --targets", "of targets files"),
    ),
    "test": (
        ("poller test my-queries", "every my-queries/*.test.yaml"),
        ("poller test my-queries --case 'who*'", "cases by name"),
        ("poller test my-queries --junit cases.xml", "for CI"),
    ),
    "import": (
        ("poller import --from pgwatch metrics.yaml > mine.yaml", "losses on stderr"),
        ("poller import --from telegraf *.conf --write my-queries", "one file each"),
        ("poller import --from pgwatch . --targets targets.yaml", "databases, too"),
    ),
    "grants": (
        ("poller grants my-queries > grants.sql", "for psql on the primary"),
        ("poller grants shipped my-queries --role metrics", "for another role"),
    ),
    "doctor": (
        ("poller doctor", "before the first run"),
        ("poller doctor --strict", "fail if the role may write"),
        ("poller doctor --format json", "for a program"),
    ),
    "catalog": (
        ("poller catalog", "a table in Markdown"),
        ("poller catalog --format json", "for a program"),
        ("poller catalog --generation v0.9.4", "names of that release"),
    ),
    "conform": (
        ("poller conform --for 30s", "listen for 30 seconds"),
        ("poller conform recorded.json", "or read a file"),
        ("poller conform --require all --ignore '*:process.*'", "skip some"),
    ),
    "receive": (
        ("poller receive", "on 4317 (gRPC) and 4318 (HTTP)"),
        ("poller receive 'orders*' --for 5m", "some metrics, for a while"),
    ),
    "health": (
        ("poller health --live", "for HEALTHCHECK and livenessProbe"),
        ("poller health --ready", "for readinessProbe and startupProbe"),
    ),
    "dashboard": (
        ("poller dashboard > inventory.json", "the queries' metrics"),
        ("poller dashboard --queries my-queries > mine.json", "your own"),
        ("poller dashboard poller > poller.json", "the poller itself"),
    ),
    "alerts": (
        ("poller alerts > rules.yaml", "for Prometheus"),
        ("poller alerts --queries shipped:my-queries > rules.yaml", "with your own"),
        ("poller alerts --runbook https://wiki.example/poller", "your runbook"),
    ),
    "watch": (
        ("poller watch", "next to `poller run`; q quits"),
        ("poller watch --poll --queries my-queries", "without a running poller"),
    ),
    "demo": (
        ("poller demo", "until Ctrl-C"),
        ("poller demo --otlp-endpoint http://127.0.0.1:4317", "to your collector"),
    ),
    "settings": (
        ("poller settings", "every value and its source"),
        ("poller settings --format json", "for a program"),
    ),
}
"""For each command, and for the program without one, command lines and their purpose."""


def epilog(command: str) -> str | None:
    """Return the examples of one command in typer's markup; None if there are none."""
    # \b keeps the lines from being wrapped as a paragraph.
    return f"\b\n{examples}" if (examples := examples_of(command)) else None


def examples_of(command: str) -> str:
    """Return the examples of one command as plain text; empty if there are none."""
    examples = EXAMPLES.get(command, ())
    width = max((len(line) for line, _ in examples), default=0)
    lines = [f"  {line:{width}}  # {purpose}" for line, purpose in examples]
    return "\n".join(["Examples:", *lines]) if lines else ""


_CHOICE = re.compile(r"(?:Value error, )?'(?P<value>[^']*)' is not one of (?P<choices>'.+')\.?")
_BOUND = re.compile(r"Input should be (?P<side>greater|less) than or equal to (?P<bound>\S+)")
_NUMBER = re.compile(r"Input should be a valid (?P<kind>integer|number)")
_NO_VALUE = re.compile(r"Option '(?P<option>--[a-z-]+)' requires an argument\.")


def reworded(message: str, arguments: Sequence[str], options: Sequence[str] = ()) -> str:
    """Return the library's error `message` in plain English, with what to write instead.

    `arguments` are the arguments of the command, `options` the spellings of the option in question, if any.
    """
    if match := _CHOICE.fullmatch(message):
        choices = re.findall("'([^']*)'", match["choices"])
        hint = did_you_mean(match["value"], choices) or f"; write one like {choices[0]}"
        return f"{quote(match['value'])} is not one of {', '.join(choices)}{hint}"
    if match := _BOUND.match(message):
        small = match["side"] == "greater"
        size, least = ("small", "least") if small else ("large", "most")
        return f"{_value(arguments, options)}is too {size}; write at {least} {match['bound']}"
    if match := _NUMBER.match(message):
        kind = "a whole number" if match["kind"] == "integer" else "a number"
        return f"{_value(arguments, options)}is not {kind}; write one like 10"
    if match := _NO_VALUE.fullmatch(message):
        return f"{match['option']} needs a value{_example(match['option'])}"
    return message.replace("Value error, ", "")


def _value(arguments: Sequence[str], options: Sequence[str]) -> str:
    """Return the quoted value of one of `options` in `arguments`, and a blank; empty if there is none."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in options:
            return f"{quote(value if equals else following)} "
    return ""


def _example(option: str) -> str:
    """Return `; write for example ...` for the option of a setting; empty for other options."""
    from poller.config.settings import SETTINGS

    name = option.removeprefix("--").replace("-", "_")
    return f"; write for example {option} {SETTINGS[name].example}" if name in SETTINGS else ""
