"""The texts and names of the project are plain English, without the words of a list."""

from __future__ import annotations

import re
import subprocess

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
}
_PROSE = ("README.md", "docs", "queries", "deploy", ".ci", "mkdocs.yml", "Dockerfile", "poller")
_GENERATED = ("deploy/grafana", "docs/images", "poller/queries.schema.json")


def _files() -> list[str]:
    names = subprocess.run(
        ["git", "ls-files", *_PROSE], cwd=ROOT, capture_output=True, text=True, check=True
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


def test_no_text_uses_a_word_of_the_list() -> None:
    assert [line for name in _files() for line in violations(name)] == []


@pytest.mark.parametrize("sentence", ["a second one is told who has it", "it waits In vain", "left out"])
def test_the_guard_reports_a_word_of_the_list(sentence: str) -> None:
    assert _WORDS.search(sentence)


def test_every_exception_is_needed() -> None:
    for name, words in _ALLOWED.items():
        text = (ROOT / name).read_text(encoding="utf-8").lower()
        assert all(re.search(rf"\b{word}\b", text) for word in words), name
