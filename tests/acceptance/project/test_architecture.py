"""The layout of the packages can be read from their docstrings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bed.process import ROOT

POLLER = ROOT / "poller"
PACKAGES = sorted(path.parent for path in POLLER.rglob("__init__.py") if path.parent != POLLER)


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
    """The list is written by hand: the name of each module, then the first line of its docstring."""
    sentence, _, table = docstring(package).partition("\n\n")
    assert sentence.endswith(".")
    listed = " ".join(table.split())
    expected = [f"{path.stem} {docstring(path).partition(chr(10))[0]}" for path in modules(package)]
    assert listed == " ".join(expected)


def test_the_top_level_shows_packages_and_no_modules() -> None:
    assert [path.name for path in modules(POLLER) if path.is_file()] == ["__main__.py"]
    assert len([path for path in POLLER.iterdir() if path.name != "__pycache__"]) <= 18


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


@pytest.mark.slow
def test_no_test_patches_a_constant_or_a_private_name_of_the_poller() -> None:
    """Every limit and pause is a parameter or a field of a frozen dataclass, so tests pass their own."""
    patches = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for target in patched(ast.parse(path.read_text(encoding="utf-8")))
        if target.startswith("poller.") and any(map(_FIXED_NAME.match, names_in_module(target)))
    ]
    assert patches == []


_FIXED_NAME = re.compile(r"_[^_]|[A-Z0-9_]+$")


def names_in_module(target: str) -> list[str]:
    """Return the components of a full name after those of its packages and its module."""
    _, *names = target.split(".")
    place = POLLER
    while names and ((place / names[0]).is_dir() or (place / f"{names[0]}.py").is_file()):
        place /= names.pop(0)
    return names


def patched(tree: ast.Module) -> Iterator[str]:
    """Yield the full name of everything that a module replaces with `setattr`, `patch` or an assignment."""
    names = {
        alias.asname or alias.name: f"{statement.module}.{alias.name}"
        if isinstance(statement, ast.ImportFrom)
        else alias.name
        for statement in ast.walk(tree)
        if isinstance(statement, ast.ImportFrom | ast.Import)
        for alias in statement.names
    }

    def full(target: ast.expr) -> str:
        owner, dot, rest = ast.unparse(target).partition(".")
        return f"{names.get(owner, owner)}{dot}{rest}"

    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and _is_patch(node.func):
            target, *more = node.args
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                yield target.value
            elif more and isinstance(more[0], ast.Constant) and isinstance(more[0].value, str):
                yield f"{full(target)}.{more[0].value}"
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield full(node)


def _is_patch(function: ast.expr) -> bool:
    name = getattr(function, "attr", getattr(function, "id", None))
    if name == "object":
        return ast.unparse(function).endswith("patch.object")
    return name in ("setattr", "delattr", "patch")


def test_patches_of_constants_are_detected() -> None:
    text = (
        "from poller.postgres import transaction as batch\n"
        "import poller.model.redaction as masks\n"
        "monkeypatch.setattr(batch, '_LONGEST', 1)\n"
        "monkeypatch.setattr('poller.otlp.request.MAX_SIZE', 1)\n"
        "monkeypatch.setattr(batch.Statement, 'limit', 1)\n"
        "monkeypatch.setattr(os, 'kill', refuse)\n"
        "mock.patch.object(masks._memory, 'mask')\n"
        "batch._LONGEST = 1\n"
        "first, batch.MOST = 1, 2\n"
        "batch.MOST += 1\n"
        "del masks._memory.mask\n"
    )
    assert sorted(patched(ast.parse(text))) == [
        "os.kill",
        "poller.model.redaction._memory.mask",
        "poller.model.redaction._memory.mask",
        "poller.otlp.request.MAX_SIZE",
        "poller.postgres.transaction.MOST",
        "poller.postgres.transaction.MOST",
        "poller.postgres.transaction.Statement.limit",
        "poller.postgres.transaction._LONGEST",
        "poller.postgres.transaction._LONGEST",
    ]
    assert names_in_module("poller.model.redaction._memory.mask") == ["_memory", "mask"]
    assert names_in_module("poller.events._privacy.patterns.scrub") == ["scrub"]


COMPOSITION_ROOTS = ("cli/", "config/", "daemon/build.py", "daemon/run.py", "daemon/target_factory.py")


@pytest.mark.slow
def test_no_name_of_a_class_or_type_is_defined_twice() -> None:
    """A type can then be found by its name alone, and an import needs no alias."""
    places: dict[str, list[str]] = {}
    for path in sorted(POLLER.rglob("*.py")):
        for name, line in types_in(ast.parse(path.read_text(encoding="utf-8"))):
            places.setdefault(name, []).append(f"{path.relative_to(ROOT)}:{line}")

    assert "Signal" in places
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def types_in(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the name and the line of each class and of each alias of a type, except type variables."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if re.match("_?[A-Z].*[a-z]", name):
                if not ast.unparse(value).startswith("TypeVar("):
                    yield name, node.lineno


@pytest.mark.slow
def test_only_the_composition_roots_receive_all_settings() -> None:
    """`config` makes them; everything else gets the values that it needs."""
    readers = {
        str(path.relative_to(POLLER))
        for path in POLLER.rglob("*.py")
        for statement in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(statement, ast.ImportFrom) and statement.module == "poller.config.settings"
        if any(alias.name == "Settings" for alias in statement.names)
    }
    assert "daemon/build.py" in readers
    assert sorted(name for name in readers if not name.startswith(COMPOSITION_ROOTS)) == []
