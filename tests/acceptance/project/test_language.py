"""Texts and names of the project are plain English, without the words of the old dialect."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.bed.process import ROOT

_WORDS = re.compile(
    r"""\b(
    beside | anew | mends? | mended | nobody | somebody | whoever | told | tells? | wherever | in\ vain
    | left\ out | leave\ away | left\ away | too\ dear | is\ well\ again | taken?\ over | takes\ over
    | held\ back | holds?\ back | pass(es|ed)?\ over | stands?\ (behind|beside|for)
    | comes?\ to\ (its|their)\ turn | out\ of\ account | of\ before | of\ yours | its\ own\ to | but\ for\ the
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_ALLOWED = {
    "poller/config/queries/sql_functions.py": {"tell"},  # a function of PostgreSQL, lo_tell
    "poller/demo/postgres.py": {"nobody"},  # a user of Unix
    "deploy/compose.yaml": {"nobody"},
    "tests/unit/postgres/test_refusals.py": {"nobody"},  # a user of PostgreSQL
}
_TESTS = ("tests/conftest.py", "tests/unit", "tests/bed", "tests/benchmarks")
_PROSE = ("README.md", "docs", "queries", "deploy", ".ci", "mkdocs.yml", "Dockerfile", "poller", *_TESTS)
_GENERATED = ("deploy/grafana", "docs/images", "poller/queries.schema.json")


_NAME_WORDS = {"told", "one", "what", "found", "shown", "spoken", "kept"}
_ALLOWED_NAMES = {"one_line"}
_NAMES = ("poller", *_TESTS)


def _files(*folders: str) -> list[str]:
    names = subprocess.run(
        ["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [name for name in names if not name.startswith(_GENERATED) and (ROOT / name).is_file()]


def violations(name: str) -> list[str]:
    """Return the lines of a file that have a word of the list."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    allowed = _ALLOWED.get(name, set())
    return [
        f"{name}:{number}: {match[0]}"
        for number, line in enumerate(lines, 1)
        for match in _WORDS.finditer(line)
        if match[0].lower() not in allowed
    ]


def test_no_text_uses_a_word_of_the_old_dialect() -> None:
    assert [line for name in _files(*_PROSE) for line in violations(name)] == []


def defined_names(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a module assigns, and those of its parameters, functions and classes."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name) | ast.alias(asname=str(name)):
                yield name
            case (
                ast.ExceptHandler(name=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                yield name


def vague_names(text: str) -> set[str]:
    """Return the names in a module that contain a word of the list."""
    names = set(defined_names(ast.parse(text))) - _ALLOWED_NAMES
    words = {name: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_") for name in names}
    return {name for name in names if _NAME_WORDS.intersection(words[name])}


def test_names_contain_no_vague_word() -> None:
    files = [name for name in _files(*_NAMES) if name.endswith(".py")]
    assert len(files) > 300
    names = {name: vague_names((ROOT / name).read_text(encoding="utf-8")) for name in files}
    assert {name: sorted(vague) for name, vague in names.items() if vague} == {}


def test_vague_names_are_detected() -> None:
    text = (
        "import a as told\nclass NotFound:\n def kept(self, what, *one): self.shown = [0 for found_row in ()]"
    )
    assert vague_names(text) == {"told", "NotFound", "kept", "what", "one", "shown", "found_row"}
    assert vague_names("def one_line(someone, whatever): foundation = found.told") == set()


@pytest.mark.parametrize("sentence", ["a second one is told who has it", "it waits In vain", "left out"])
def test_the_guard_finds_such_a_word(sentence: str) -> None:
    assert _WORDS.search(sentence)


def test_every_exception_is_needed() -> None:
    for name, words in _ALLOWED.items():
        text = (ROOT / name).read_text(encoding="utf-8").lower()
        assert all(re.search(rf"\b{word}\b", text) for word in words), name
