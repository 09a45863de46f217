#!/usr/bin/env python3
"""Section of CHANGELOG.md for a release.

.ci/changelog.py release [DATE]   move the entries under Unreleased to the version in pyproject.toml
.ci/changelog.py notes TAG        print the section of that version, if TAG is v and the version
"""

from __future__ import annotations

import re
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_CHANGELOG = _ROOT / "CHANGELOG.md"
_UNRELEASED = "## [Unreleased]\n"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def release(date: str) -> None:
    """Write the heading of the version below an empty section Unreleased."""
    version, text = _version(), _CHANGELOG.read_text(encoding="utf-8")
    if not _DATE.fullmatch(date):
        raise SystemExit(f"{date!r} is not a date; write YYYY-MM-DD")
    if f"\n## [{version}]" in text:
        raise SystemExit(f"CHANGELOG.md has a section for {version}; set the next version in pyproject.toml")
    if not _section(text, _UNRELEASED):
        raise SystemExit("CHANGELOG.md has no entry under [Unreleased]")
    _CHANGELOG.write_text(
        text.replace(_UNRELEASED, f"{_UNRELEASED}\n## [{version}] - {date}\n", 1), encoding="utf-8"
    )


def notes(tag: str) -> None:
    """Print the section of the version."""
    version = _version()
    if tag != f"v{version}":
        raise SystemExit(f"the tag is {tag}, but the version in pyproject.toml is {version}")
    heading = re.search(rf"^## \[{re.escape(version)}\] - {_DATE.pattern}\n", _text(), re.MULTILINE)
    if heading is None or not (section := _section(_text(), heading[0])):
        raise SystemExit(f"CHANGELOG.md has no entry for {version}; run .ci/changelog.py release")
    sys.stdout.write(f"{section}\n")


def _text() -> str:
    return _CHANGELOG.read_text(encoding="utf-8")


def _version() -> str:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def _section(text: str, heading: str) -> str:
    """Return the text between a heading and the next one of its level."""
    return text.partition(heading)[2].partition("\n## ")[0].strip()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["release"]:
            release(datetime.now(UTC).date().isoformat())
        case ["release", date]:
            release(date)
        case ["notes", tag]:
            notes(tag)
        case _:
            raise SystemExit(__doc__)
