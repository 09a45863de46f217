"""Cases of the importers: files of another tool, what is written for them, and what is told.

A case is a file in tests/imported/FORMAT/, in sections that begin with a line `=== NAME`. Those that are
called like files are given to the importer (behind a plus sign: they are only there), `written` and `told`
are what comes of it, `primary` and `standby` what becomes of the rows where the queries are really run.
`python -m tests.bed.imported` writes the first two anew.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poller.model.catalog import Defaults
from poller.model.errors import ConfigError
from poller.tools.importers.formats import Format, import_files
from poller.tools.importers.validate import to_yaml
from tests.bed.process import ROOT

CASES = ROOT / "tests" / "imported"
DEFAULTS = Defaults(interval=300.0, timeout=30.0, max_series=1000)
_SECTION = re.compile(r"^=== (\S+)\n", re.MULTILINE)
_NO_FILES = ("written", "told", "primary", "standby")


@dataclass(frozen=True)
class Case:
    """One file of tests/imported."""

    path: Path
    sections: dict[str, str]

    @property
    def form(self) -> Format:
        return self.path.parent.name  # type: ignore[return-value] # the folders are called like the formats

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"


def read(path: Path) -> Case:
    head, *parts = _SECTION.split(path.read_text(encoding="utf-8"))
    assert not head, path
    return Case(path, dict(zip(parts[::2], parts[1::2], strict=True)))


def cases() -> Iterator[Case]:
    yield from map(read, sorted(CASES.glob("*/*.case")))


def imported(case: Case, folder: Path) -> tuple[str, str]:
    """What is written and what is told; `folder`, an empty one, becomes the working directory."""
    given = []
    for name, text in case.sections.items():
        if name not in _NO_FILES:
            (folder / name.removeprefix("+")).write_text(text, encoding="utf-8")
            if not name.startswith("+"):
                given.append(Path(name))
    os.chdir(folder)
    try:
        come = import_files(case.form, given, DEFAULTS)
    except ConfigError as error:
        return "", "".join(f"{problem}\n" for problem in error.problems)
    written = to_yaml(come.drafts, "") if come.drafts else ""
    return written, "".join(f"{line}\n" for line in come.losses.lines(come.files))


def _write_anew(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        written, told = imported(case, Path(folder))
        os.chdir(ROOT)
    sections = {**case.sections, "written": written, "told": told}
    ordered = {name: text for name, text in sections.items() if name not in _NO_FILES}
    ordered |= {name: sections[name] for name in _NO_FILES if name in sections}
    case.path.write_text("".join(f"=== {name}\n{text}" for name, text in ordered.items()), encoding="utf-8")


if __name__ == "__main__":
    for one in cases():
        _write_anew(one)
