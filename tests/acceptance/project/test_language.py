"""The texts and names of the project are plain English, without the words of a list."""

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
    "tests/integration/demo/test_cluster.py": {"nobody"},
    "tests/unit/postgres/test_refusals.py": {"nobody"},  # a user of PostgreSQL
}
_PROSE = (
    *("README.md", "CHANGELOG.md", "docs", "queries", "deploy", ".ci", "mkdocs.yml", "pyproject.toml"),
    *("Dockerfile", "poller", "tests/*.py"),
)
_QUOTED = re.compile(r"""^ +\| .*$|`[^`]*`|"[^"]*\"""", re.MULTILINE)
"""Quotations of the changelog: old and new messages in its table, and texts in backticks or quotes."""
_GENERATED = ("deploy/grafana", "docs/images", "poller/queries.schema.json", "poller/targets.schema.json")
_UNCHECKED = ("tests/acceptance/project/test_language.py",)

_NAMES = {
    "told", "one", "what", "found", "shown", "spoken", "kept", "anew", "whoever", "nobody", "beside",
    "whose", "wish", "wished", "dear", "behind", "waker", "glance", "glances", "contest", "contested",
    "contestant", "contender", "flaw", "flaws", "complaint", "verdict", "fate", "shelf", "courier", "tally",
    "pulse", "standing", "heard", "recalled", "trouble", "news",
}  # fmt: skip
"""Words that no name of a variable, parameter, function or class may contain, because they name no thing."""
_ALLOWED_NAMES = {"one_line", "key_taken_over"}  # an event of the public catalogue


def _files(*paths: str) -> list[str]:
    names = subprocess.run(
        ["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [
        name for name in names if not name.startswith(_GENERATED + _UNCHECKED) and (ROOT / name).is_file()
    ]


def violations(name: str) -> list[str]:
    """Return the lines of a file that have a word of the list; the name of a test is read as a sentence."""
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = (without_quotations(text) if name == "CHANGELOG.md" else text).splitlines()
    allowed = _ALLOWED.get(name, set())
    return [
        f"{name}:{number}: {match[0]}"
        for number, line in enumerate(lines, 1)
        for match in _WORDS.finditer(re.sub(r"\btest_\w+", lambda test: test[0].replace("_", " "), line))
        if match[0].lower() not in allowed
    ]


def without_quotations(text: str) -> str:
    """Return the text without its quotations, with the same lines."""
    return _QUOTED.sub(lambda quotation: "\n" * quotation[0].count("\n"), text)


def names_in(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield each name that a module defines, with its line, except names of tests, which are sentences."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test_"):
                pass
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
                | ast.arg(arg=name)
                | ast.ExceptHandler(name=str(name))
                | ast.alias(asname=str(name))
                | ast.MatchAs(name=str(name))
                | ast.MatchStar(name=str(name))
            ):
                yield name, getattr(node, "lineno", 0)


def words(name: str) -> set[str]:
    """Return the words of a name: snake_case and CamelCase."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def is_refused(name: str) -> bool:
    """Return whether a name has a word that names no thing, or reads as a phrase of the list."""
    return bool(words(name) & _NAMES) or _WORDS.search(name.replace("_", " ")) is not None


def test_no_text_uses_a_word_of_the_list() -> None:
    assert [line for name in _files(*_PROSE) for line in violations(name)] == []


@pytest.mark.parametrize("sentence", ["a second one is told who has it", "it waits In vain", "left out"])
def test_the_guard_reports_a_word_of_the_list(sentence: str) -> None:
    assert _WORDS.search(sentence)


def test_every_exception_is_needed() -> None:
    for name, allowed in _ALLOWED.items():
        text = (ROOT / name).read_text(encoding="utf-8").lower()
        assert all(re.search(rf"\b{word}\b", text) for word in allowed), name


def test_no_name_uses_a_word_that_names_no_thing() -> None:
    named = {
        f"{file}:{line}: {name}": name
        for file in _files("poller", "tests/*.py")
        if file.endswith(".py")
        for name, line in names_in(ast.parse((ROOT / file).read_text(encoding="utf-8")))
        if is_refused(name)
    }
    assert [place for place, name in named.items() if name not in _ALLOWED_NAMES] == []
    assert set(named.values()) == _ALLOWED_NAMES, "every exception is needed"


def test_the_guard_reports_every_kind_of_name() -> None:
    code = """
import a as told
class ToldStory:
    def kept(self, shown, *, one=1): self._found = WHAT = [anew for anew in shown]
def test_whoever_calls_it(): pass
"""
    reported = [name for name, _ in names_in(ast.parse(code)) if is_refused(name)]
    assert sorted(reported) == ["ToldStory", "WHAT", "_found", "anew", "kept", "one", "shown", "told"]


@pytest.mark.parametrize("name", ["_is_in_vain", "_wished_at", "_left_out", "_behind", "whose"])
def test_the_guard_reads_private_names_and_phrases(name: str) -> None:
    assert is_refused(name)


def test_quotations_of_the_changelog_are_not_read() -> None:
    text = 'now `it\nwas told` and "left out":\n  | `anew` | told |\nkept anew'
    assert without_quotations(text) == "now \n and :\n\nkept anew"
