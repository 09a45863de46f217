"""The work for a text that a client or a server chooses is at most proportional to its length."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import poller.events
from poller.events._privacy import attributes as privacy
from poller.events._privacy import database_errors, patterns
from poller.events._privacy.texts import LONGEST, REDACTED
from poller.model import redaction
from tests.bed.steps import python_steps, search_steps, unbounded

SIZES = (32, 64, 128, 256)
"""Sizes in characters; the ratio of the steps must equal the ratio of the sizes."""
SLACK = 1.25
PREFIXES = ("", "/", "x@")
PIECES = (
    *("a", "eyJ", "eyJa.", "a.", "x@", "@", "?", "/", "?a", "&", "=", "://", "://a:", ":", "1:", "a:", " "),
    *("\n", '"', "'", "\\", "%", "%25", "%40", "1.", "1", "token=", "token: ", "bearer ", "bearer a"),
    *('client": (', "DETAIL: ", "-----BEGIN PRIVATE KEY-----", "ghp_", "AKIA", "Mozilla/5", "curl/"),
    *(
        "DETAIL:Key (",
        "Key (a)=(",
        ")=(",
        ") is ",
        "Failing row contains (",
        ").\n",
        "token: a ",
        "sk-",
        "SG.",
    ),
    *(
        '\\\\\\"',
        '"token\\": \\"',
        "\\u0040",
        "\uff20",
        "\uff0e",
        "%EF%BC%A0",
        "version 1.1.1.1",
        "basic abcdefghi",
    ),
    *(
        "Signal-",
        "password=",
        "password = a ",
        "a.a=",
        "\\a",
        "parameter ",
        "[redacted]",
        "cookie:",
        "[parameters: ",
        "[raw sql] ",
        "$1 = '",
        "COPY a, line 1: ",
    ),
)
SUFFIXES = ("", "/@")


RUN = {
    f"re.{name}"
    for name in ("compile", "match", "fullmatch", "search", "sub", "split", "findall", "finditer")
}


def modules() -> list[ModuleType]:
    """Return all modules of `poller.events`, and the module that masks the daemon's secrets."""
    names = [module.name for module in pkgutil.walk_packages(poller.events.__path__, "poller.events.")]
    assert "poller.events._privacy.patterns" in names
    return [redaction, *map(importlib.import_module, names)]


def assigned(module: ModuleType) -> Iterator[str]:
    """Yield the names that a module assigns at its top level, without imports."""
    for statement in tree_of(module).body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


def tree_of(module: ModuleType) -> ast.Module:
    return ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))


def compiled_patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    for module in modules():
        for name in assigned(module):
            if isinstance(value := getattr(module, name, None), re.Pattern):
                yield f"{module.__name__}.{name}", value


def texts(size: int) -> Iterator[str]:
    for prefix, piece, suffix in product(PREFIXES, PIECES, SUFFIXES):
        yield prefix + piece * (size // len(piece)) + suffix


def grows_too_fast(steps: list[int]) -> bool:
    return any(
        later > SLACK * first * (size / SIZES[0]) + 64
        for first, later, size in zip([steps[0]] * 3, steps[1:], SIZES[1:], strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pattern"), [pytest.param(*index, id=index[0]) for index in compiled_patterns()]
)
def test_no_pattern_reads_a_part_of_a_text_repeatedly(name: str, pattern: re.Pattern[Any]) -> None:
    expression = pattern.pattern.decode() if isinstance(pattern.pattern, bytes) else pattern.pattern
    assert unbounded(pattern) == [], (name, expression)
    read = re.compile(expression, pattern.flags & (re.IGNORECASE | re.DOTALL | re.MULTILINE))
    for smallest, largest in zip(texts(SIZES[0]), texts(SIZES[-1]), strict=True):
        steps = [search_steps(read, smallest), search_steps(read, largest)]
        assert steps[1] <= SLACK * SIZES[-1] / SIZES[0] * steps[0] + 256, (name, largest[:80], steps)


def test_patterns_are_compiled_at_module_level_so_that_the_test_above_checks_them() -> None:
    for module in modules():
        functions = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.FunctionDef)]
        calls = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.Call)]
        for call in calls:
            argument = call.args[0] if ast.unparse(call.func) in RUN else None
            if isinstance(argument, ast.Constant):
                # A pattern without a quantifier needs no bound.
                assert not set("*+{") & set(re.sub(r"\[[^]]*\]", "", str(argument.value))), (
                    module,
                    argument.value,
                )
            elif argument is not None:
                assert ast.unparse(argument).startswith("'|'.join("), ast.unparse(call)


ENTRIES: dict[str, Callable[[str], object]] = {
    "scrub": patterns.scrub,
    "scrub_path": patterns.scrub_path,
    "cut": patterns.cut,
    "personal_text": patterns.personal_text,
    "redact": redaction.redact,
    "a value": lambda text: privacy.scrub_value([text, {"text": text}]),
    "attributes": lambda text: privacy.scrub_attributes({"note": text}),
}


@pytest.mark.slow
@pytest.mark.parametrize("entry", ENTRIES)
def test_work_grows_with_the_length_of_a_text(entry: str) -> None:
    for many in zip(*map(texts, SIZES), strict=True):
        steps = [python_steps(partial(ENTRIES[entry], text)) for text in many]
        assert not grows_too_fast(steps), (entry, many[-1][:80], steps)


class Counted:
    """A pattern that counts the characters of its matches."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern, self.read = pattern, 0

    def match(self, text: str, *range_of: int) -> re.Match[str] | None:
        result = self.pattern.match(text, *range_of)
        self.read += len(result[0]) if result else 0
        return result


@pytest.mark.parametrize("piece", ["DETAIL:Key ()=(", "DETAIL:Key ()=().", "Key ()=(DETAIL:", "DETAIL:x "])
def test_a_line_with_many_rows_is_read_once(piece: str) -> None:
    line = Counted(database_errors.END_OF_LINE)  # steps in C are not counted
    text = piece * 200
    database_errors.remove_rows(text, line)  # type: ignore[arg-type] # it has the used method
    assert line.read <= len(text)


@pytest.mark.parametrize("piece", [":::: ", "1::1 ", "1:2:3:4:5:6:7:8 ", "a:b::c "])
def test_a_run_of_colons_takes_a_bounded_number_of_python_steps_per_character(piece: str) -> None:
    """A parser of addresses in Python would take several hundred."""
    text = piece * (LONGEST // len(piece) // 8) + " %252540"
    assert python_steps(partial(patterns.scrub, text)) <= 100 * len(text)


def circle(size: int) -> Any:
    """Return a room whose members refer to it, like objects of an application."""
    room: dict[str, Any] = {}
    room["members"] = [{"room": room} for _ in range(size)]
    return room


def tree(size: int) -> Any:
    value: list[Any] = ["leaf"]
    for _ in range(size):
        value = [value] * size
    return value


CONTAINERS: dict[str, Callable[[int], Any]] = {
    "texts": lambda size: [":f:" * 1000 + str(index) for index in range(size * 4)],
    "texts of fields": lambda size: {f"field{index}": ":f:" * 1000 for index in range(size * 4)},
    "names": lambda size: {":f:" * 1000 + str(index): index for index in range(size * 4)},
    "short texts": lambda size: [[f":f:{index}"] * 500 for index in range(size * 4)],
    "circle": circle,
    "tree": tree,
}


@pytest.mark.slow
@pytest.mark.parametrize("shape", CONTAINERS)
@pytest.mark.parametrize("function", [privacy.scrub_attributes, privacy.is_harmless])
def test_the_work_of_a_record_with_any_values_is_bounded(
    shape: str, function: Callable[[Any], object]
) -> None:
    small, large = (
        python_steps(partial(function, {"body": CONTAINERS[shape](size), "shape": CONTAINERS[shape](size)}))
        for size in (8, 40)
    )
    # Without a bound the work would grow at least with the size, which is 5 times as large.
    assert large <= 3 * small + 100_000, (small, large)


def test_a_cut_value_does_not_remove_short_values_after_it() -> None:
    scrubbed = privacy.scrub_attributes({"body": ["x" * 30_000] * 5, "status": "ok", "number": 7})
    assert scrubbed["body"][2:] == ["..."] * 3
    assert (scrubbed["status"], scrubbed["number"]) == ("ok", 7)


@pytest.mark.slow
@pytest.mark.parametrize("piece", PIECES)
def test_scrubbing_a_hostile_text_neither_fails_nor_enlarges_it(piece: str) -> None:
    surrounded = (
        prefix + piece * (4000 // len(piece)) + suffix for prefix, suffix in product(PREFIXES, SUFFIXES)
    )
    for text in (piece * (2 * LONGEST // len(piece)), *surrounded):
        assert len(patterns.scrub(text)) <= LONGEST * len(REDACTED)
        assert patterns.personal_text(patterns.scrub(text)) is None
        assert isinstance(patterns.cut(text), str)
        assert isinstance(redaction.redact(text), str)
