"""Insertion of a query into a query file that leaves the rest of the file unchanged."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from poller.config.queries.files import MAX_BYTES, holds_cases
from poller.config.queries.load import build_catalog
from poller.config.queries.query_file import QueryFile
from poller.config.yaml_reader import parse
from poller.model.catalog import Defaults
from poller.model.diagnostics import Diagnostic, invalid
from poller.model.errors import ConfigError
from poller.model.files import NotRegularError, read_regular
from poller.tools.draft.yaml_writer import to_file, to_yaml

_DOCUMENT_END = re.compile(r"^\.\.\.(?:\s|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Gap:
    """Position for another query in the text of a query file."""

    offset: int
    """Number of characters before it."""
    indent: int
    """Number of spaces before the dash of a query."""
    spaced: bool
    """Whether blank lines separate the queries."""


def gap_in(text: str) -> Gap | None:
    """Return the end of the list `queries`; None if it is not a block list."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    at = next((number for number, (key, _) in enumerate(pairs) if key.value == "queries"), None)
    if at is None:
        return None
    key, listed = pairs[at]
    first = listed.start_mark.index
    # An alias refers to another list; a list in brackets has no dashes.
    if first < key.start_mark.index or text[first : first + 1] != "-":
        return None
    if at + 1 < len(pairs):
        end = _before_comments(text, pairs[at + 1][0].start_mark.index)
    else:
        closed = _DOCUMENT_END.search(text, first)
        end = closed.start() if closed else len(text)
    lines = text.splitlines()
    second = listed.value[1].start_mark.line if len(listed.value) > 1 else None
    spaced = second is None or not lines[second - 1].strip()
    return Gap(end, listed.start_mark.column, spaced)


def _before_comments(text: str, at: int) -> int:
    """Return the offset of the comments and blank lines directly above the line of `at`."""
    at = text.rfind("\n", 0, at) + 1
    while at > 0:
        start = text.rfind("\n", 0, at - 1) + 1
        line = text[start:at].strip()
        if line and not line.startswith("#"):
            break
        at = start
    return at


_SUFFIXES = (".yaml", ".yml")
_NO_FILE = Path("the query")
_BY_HAND = "paste the YAML by hand, or choose another file"


def append(path: Path, query: Mapping[str, Any], defaults: Defaults, others: Sequence[QueryFile] = ()) -> int:
    """Add `query` to the end of the list in the file `path`, which need not exist; return its line.

    The existing text stays unchanged. The new text is validated before it atomically replaces the old file.
    `others` are files that are read together with this one, so their names cannot be used again.

    Raises ConfigError, and leaves the file unchanged, if the file has problems, a name is already in use, the
    list is not a block list, or the file cannot be written.
    """
    content, new_content, line = _plan(path, query, defaults, others)
    _replace(path, content, new_content)
    return line


def refuse(
    path: Path, query: Mapping[str, Any], defaults: Defaults, others: Sequence[QueryFile] = ()
) -> None:
    """Raise the ConfigError of `append` without writing; errors of writing itself are not detected."""
    _plan(path, query, defaults, others)


def _plan(
    path: Path, query: Mapping[str, Any], defaults: Defaults, files: Sequence[QueryFile]
) -> tuple[bytes | None, bytes, int]:
    """Return the file's content (None if it does not exist), its new content, and the query's line there."""
    content = _bytes(path)
    others = [file for file in files if os.path.realpath(file.path) != os.path.realpath(path)]
    existing = QueryFile(path, parse(content, path)) if content and not _is_blank(content) else None
    if existing is not None:
        try:
            build_catalog([existing], defaults)
        except ConfigError as error:
            first = invalid("--write", f"{path} has problems; fix them first")
            raise ConfigError([first, *error.problems]) from None
    _refuse_duplicate(query, [*others, *([existing] if existing else [])])
    for text in _candidates(path, content, query):
        new_content = text.encode()
        new = QueryFile(path, parse(new_content, path))
        if _is_addition(existing, new, query):
            _refuse_conflicts([*others, new], path, defaults)
            return content, new_content, new.line(("queries", len(_queries(new)) - 1, "name"))
    raise _error(f"a query cannot be added to {path} without changing the rest of it; {_BY_HAND}")


def _is_blank(raw: bytes) -> bool:
    """Return whether a file is empty or contains only comments."""
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return False
    return all(not line.strip() or line.lstrip().startswith("#") for line in lines)


def _bytes(path: Path) -> bytes | None:
    if path.suffix not in _SUFFIXES:
        raise _error(f"{path} is not a query file; write a name that ends in .yaml")
    if holds_cases(path):
        instead = path.with_name((path.stem.removesuffix(".test") or "queries") + path.suffix)
        raise _error(f"{path} contains cases for `poller test`, not queries; write {instead}")
    try:
        if path.exists() and not _is_writable(path):
            raise _error(f"{path} is read-only; run chmod u+w, or write another name")
        return read_regular(path, MAX_BYTES)
    except (NotRegularError, IsADirectoryError):
        raise _error(f"{path} is not a regular file; write another name") from None
    except FileNotFoundError:
        if path.parent.is_dir():
            return None
        raise _error(f"the folder {path.parent} does not exist; create it first") from None
    except OSError as error:
        raise _error(f"{path} cannot be read: {error.strerror}") from None


def _is_writable(path: Path) -> bool:
    # os.access() allows root everything, but a file without any write permission is read-only on purpose.
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & 0o222)


def conflicts(query: Mapping[str, Any], others: Sequence[QueryFile], defaults: Defaults) -> list[Diagnostic]:
    """Return why `query` cannot be in a file that is read together with `others`; empty if it can."""
    try:
        _refuse_duplicate(query, others)
        new = QueryFile(_NO_FILE, parse(to_file(query).encode(), _NO_FILE))
        _refuse_conflicts([*others, new], new.path, defaults)
    except ConfigError as error:
        return list(error.problems)
    return []


def _refuse_duplicate(query: Mapping[str, Any], files: Sequence[QueryFile]) -> None:
    name = query["name"]
    places = {
        str(data.get("name")): file.where((*at, "name")) for file in files for at, data in file.queries()
    }
    if name in places:
        free = next(
            f"{name}_{number}" for number in range(2, len(places) + 3) if f"{name}_{number}" not in places
        )
        raise ConfigError(
            [
                invalid(
                    "--name",
                    f"the query name {name!r} is already used at {places[name]}; write --name {free}",
                )
            ]
        )


def _refuse_conflicts(files: Sequence[QueryFile], path: Path, defaults: Defaults) -> None:
    """Validate all files together; raise ConfigError with the problems of the file `path` only."""
    try:
        build_catalog(files, defaults)
    except ConfigError as error:
        problems = [problem for problem in error.problems if problem.place and problem.place.file == path]
        if problems:
            raise ConfigError(problems) from None


def _error(message: str) -> ConfigError:
    return ConfigError([invalid("--write", message)])


def _queries(file: QueryFile) -> list[Any]:
    return [data for _, data in file.queries()]


def _is_addition(existing: QueryFile | None, new: QueryFile, query: Mapping[str, Any]) -> bool:
    """Return whether `new` contains the data of `existing`, with the query at the end."""
    if isinstance(new.document, str) or new.document.problems:
        return False
    if existing is None or isinstance(existing.document, str):
        return bool(new.document.data == {"queries": [dict(query)]})
    expected = {**existing.document.data, "queries": [*existing.document.data["queries"], dict(query)]}
    return bool(new.document.data == expected)


def _candidates(path: Path, content: bytes | None, query: Mapping[str, Any]) -> Iterator[str]:
    """Yield candidates for the new text, the most readable first."""
    if content is None:
        yield to_file(query)
        return
    text = content.decode("utf-8")
    line_end = "\r\n" if "\r\n" in text else "\n"
    if _is_blank(content):
        break_ = "" if not text or text.endswith("\n") else line_end
        yield text + break_ + to_file(query).replace("\n", line_end)
        return
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    text = text.removeprefix(mark)
    gap = gap_in(text)
    if gap is None:
        message = f"the queries of {path} are not a list with one dash per query; {_BY_HAND}"
        raise _error(message)
    added = to_yaml(query, gap.indent).replace("\n", line_end)
    head, tail = text[: gap.offset], text[gap.offset :]
    if head and not head.endswith(("\n", "\r")):
        head += line_end
    # A blank line between queries is more readable, but becomes part of a preceding text of the style `|+`.
    for blank in (line_end, "") if gap.spaced else ("",):
        yield f"{mark}{head}{blank}{added}{blank if tail else ''}{tail}"


def _replace(path: Path, content: bytes | None, new_content: bytes) -> None:
    """Replace `content` with `new_content` atomically; symbolic links and permissions are preserved."""
    real = Path(os.path.realpath(path))
    temporary: str | None = None
    try:
        if (read_regular(real, MAX_BYTES) if real.exists() else None) != content:
            raise _error(f"{path} was changed in the meantime; try again")
        number, temporary = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
        with os.fdopen(number, "wb") as file:
            file.write(new_content)
            file.flush()
            os.fchmod(number, real.stat().st_mode & 0o7777 if content is not None else 0o666 & ~_umask())
            if content is not None:
                with suppress(PermissionError):
                    os.fchown(number, real.stat().st_uid, real.stat().st_gid)
            os.fsync(number)
        Path(temporary).replace(real)
    except OSError as error:
        raise _error(f"{path} cannot be written: {error.strerror}") from None
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
