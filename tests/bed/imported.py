"""Cases of the importers: files of another tool, the resulting query file, and the messages.

A case is a file in tests/imported/FORMAT/ with sections that begin with a line `=== NAME`. Sections named
like files are passed to the importer; after a plus sign they are only created. `written` and `messages` are
the results of the import. In a case with a section `targets` the connections become the targets file in it.
`primary` and `standby` are the results of the imported queries on a server.
`pytest --update` writes `written`, `targets` and `messages`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from poller.model.catalog import Defaults
from poller.model.errors import ConfigError
from poller.tools.importers.formats import ImportFormat, import_files
from poller.tools.importers.validate import to_yaml
from tests.bed.process import ROOT

CASES = ROOT / "tests" / "imported"
DEFAULTS = Defaults(interval=300.0, timeout=30.0, max_series=1000)
_SECTION = re.compile(r"^=== (\S+)\n", re.MULTILINE)
_NO_FILES = ("written", "targets", "messages", "primary", "standby")


@dataclass(frozen=True)
class Case:
    """One file of tests/imported."""

    path: Path
    sections: dict[str, str]

    @property
    def form(self) -> ImportFormat:
        return self.path.parent.name  # type: ignore[return-value] # the folders have the names of the formats

    def __str__(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"

    def text(self, written: str, targets: str, messages: str) -> str:
        """Return the content of the file with these results of the import."""
        sections = {**self.sections, "written": written, "messages": messages}
        if "targets" in sections:
            sections["targets"] = targets
        ordered = {name: text for name, text in sections.items() if name not in _NO_FILES}
        ordered |= {name: sections[name] for name in _NO_FILES if name in sections}
        return "".join(f"=== {name}\n{text}" for name, text in ordered.items())


def read(path: Path) -> Case:
    head, *parts = _SECTION.split(path.read_text(encoding="utf-8"))
    assert not head, path
    return Case(path, dict(zip(parts[::2], parts[1::2], strict=True)))


def cases() -> Iterator[Case]:
    yield from map(read, sorted(CASES.glob("*/*.case")))


def imported(case: Case, folder: Path) -> tuple[str, str, str]:
    """Return the query file, the targets file and the messages.

    The empty `folder` becomes the working directory.
    """
    paths = []
    for name, text in case.sections.items():
        if name not in _NO_FILES:
            (folder / name.removeprefix("+")).write_text(text, encoding="utf-8")
            if not name.startswith("+"):
                paths.append(Path(name))
    os.chdir(folder)
    try:
        result = import_files(case.form, paths, DEFAULTS, with_targets="targets" in case.sections)
    except ConfigError as error:
        return "", "", "".join(f"{problem}\n" for problem in error.problems)
    written = to_yaml(result.drafts, "") if result.drafts else ""
    targets = result.targets.to_yaml("Targets.") if result.targets and result.targets.targets else ""
    return (
        written,
        targets,
        "".join(f"{diagnostic}\n" for diagnostic in result.losses.diagnostics(result.files)),
    )
