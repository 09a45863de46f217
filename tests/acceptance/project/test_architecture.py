"""The layout of the packages can be read from their docstrings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.bed.process import ROOT

POLLER = ROOT / "poller"
PACKAGES = sorted(
    path.parent
    for path in POLLER.rglob("__init__.py")
    if path.parent not in {POLLER, POLLER / "events", POLLER / "demo" / "messaging"}
)


def docstring(path: Path) -> str:
    file = path / "__init__.py" if path.is_dir() else path
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def modules(package: Path) -> list[Path]:
    return sorted(
        path
        for path in package.iterdir()
        if (path / "__init__.py").exists() or (path.suffix == ".py" and path.stem != "__init__")
    )


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(POLLER)))
def test_a_package_lists_its_modules_with_the_first_line_of_each(package: Path) -> None:
    """Written by hand: a module's name, then the first line of its docstring."""
    sentence, _, table = docstring(package).partition("\n\n")
    assert sentence.endswith(".")
    listed = " ".join(table.split())
    expected = [f"{path.stem} {docstring(path).partition(chr(10))[0]}" for path in modules(package)]
    assert listed == " ".join(expected)


def test_the_top_level_shows_packages_and_no_modules() -> None:
    assert [path.name for path in modules(POLLER) if path.is_file()] == ["__main__.py"]
    assert len([path for path in POLLER.iterdir() if path.name != "__pycache__"]) <= 17


def test_the_reading_order_of_the_contributors_page_has_the_first_line_of_each_module() -> None:
    page = (POLLER.parent / "docs" / "contributing.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `poller/(\S+\.py)` \| (.+) \|$", page, re.MULTILINE)
    assert len(listed) > 10
    assert listed == [(name, docstring(POLLER / name).partition("\n")[0]) for name, _ in listed]


def test_the_contributors_page_names_files_and_packages_that_exist() -> None:
    page = (POLLER.parent / "docs" / "contributing.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:poller|tests|queries)/[\w./]+)`", page)
    assert len(paths) > 20
    assert [path for path in paths if not (POLLER.parent / path).exists()] == [
        "poller/cli/NAME.py",
        "poller/tools/importers/NAME.py",
        "tests/imported/NAME/",
    ]
    layers = {path.stem for path in modules(POLLER)}
    picture = page.partition("```")[2].partition("```")[0]
    assert {word for line in picture.splitlines() for word in line[:32].split()} == layers
