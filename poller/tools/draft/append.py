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
from poller.config.queries.load import judged
from poller.config.queries.query_file import QueryFile
from poller.config.queries.yaml_reader import parse
from poller.model.catalog import Defaults
from poller.model.errors import ConfigError, Problem
from poller.model.files import NotRegularError, read_regular
from poller.tools.draft.yaml_writer import to_file, to_yaml

_DOCUMENT_END = re.compile(r"^\.\.\.(?:\s|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Gap:
    """Where one more query fits."""

    at: int
    """Characters before it."""
    indent: int
    """Blanks before its dash."""
    spaced: bool
    """Whether blank lines stand between the queries."""


def gap_in(text: str) -> Gap | None:
    """Find the end of the list `queries`; None where it is no list of lines."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    at = next((number for number, (key, _) in enumerate(pairs) if key.value == "queries"), None)
    if at is None:
        return None
    key, listed = pairs[at]
    first = listed.start_mark.index
    # An alias refers to a list elsewhere; a list in brackets has no dash.
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
    """The start of the comments and blank lines in front of what begins at `at`."""
    at = text.rfind("\n", 0, at) + 1
    while at > 0:
        start = text.rfind("\n", 0, at - 1) + 1
        line = text[start:at].strip()
        if line and not line.startswith("#"):
            break
        at = start
    return at


_SUFFIXES = (".yaml", ".yml")
_NO_FILE = "the query"
_BY_HAND = "paste the YAML by hand, or choose another file"


def append(path: Path, query: Mapping[str, Any], defaults: Defaults, beside: Sequence[QueryFile] = ()) -> int:
    """Add `query` at the end of the list in `path`, which is made where it is missing; return its line.

    The text that is there stays, to the byte: the new file is the old one with lines put in. It is read and
    judged before it takes the old one's place, in one step. `beside` are files that are read together with
    it: no name of theirs may be used again.

    Raises ConfigError where the file has problems already, a name is taken, the list cannot be added to, or
    nothing can be written there; the file is then as it was.
    """
    before, raw, line = _planned(path, query, defaults, beside)
    _replace(path, before, raw)
    return line


def refuse(
    path: Path, query: Mapping[str, Any], defaults: Defaults, beside: Sequence[QueryFile] = ()
) -> None:
    """Raise ConfigError where `append` would, as far as can be known without writing."""
    _planned(path, query, defaults, beside)


def _planned(
    path: Path, query: Mapping[str, Any], defaults: Defaults, beside: Sequence[QueryFile]
) -> tuple[bytes | None, bytes, int]:
    """What the file holds (None where it is missing), what it will, and the line of the query in that."""
    before = _bytes(path)
    others = [file for file in beside if os.path.realpath(file.path) != os.path.realpath(path)]
    old = QueryFile(len(others), path, parse(before)) if before and not _is_blank(before) else None
    if old is not None:
        try:
            judged([old], defaults)
        except ConfigError as error:
            first = Problem("--write", f"{path} has problems; mend them first")
            raise ConfigError([first, *error.problems]) from None
    _refuse_taken(query, [*others, *([old] if old else [])])
    for text in _candidates(path, before, query):
        raw = text.encode()
        new = QueryFile(len(others), path, parse(raw))
        if _is_addition(old, new, query):
            _refuse_clashes([*others, new], path, defaults)
            return before, raw, new.line(("queries", len(_listed(new)) - 1, "name"))
    raise _refused(f"{path} cannot be added to without a change to the rest; {_BY_HAND}")


def _is_blank(raw: bytes) -> bool:
    """Whether a file says nothing yet: it is empty, or holds comments alone."""
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return False
    return all(not line.strip() or line.lstrip().startswith("#") for line in lines)


def _bytes(path: Path) -> bytes | None:
    if path.suffix not in _SUFFIXES:
        raise _refused(f"{path} is no query file; write a name that ends in .yaml")
    if holds_cases(path):
        instead = path.with_name((path.stem.removesuffix(".test") or "queries") + path.suffix)
        raise _refused(f"{path} holds cases for `poller test`, which no poll reads; write {instead}")
    try:
        if path.exists() and not _is_writable(path):
            raise _refused(f"{path} is read-only; chmod u+w it, or write another name")
        return read_regular(path, MAX_BYTES)
    except (NotRegularError, IsADirectoryError):
        raise _refused(f"{path} is no regular file; write another name") from None
    except FileNotFoundError:
        if path.parent.is_dir():
            return None
        raise _refused(f"the folder {path.parent} does not exist; make it first") from None
    except OSError as error:
        raise _refused(f"{path} cannot be read: {error.strerror}") from None


def _is_writable(path: Path) -> bool:
    # To root everything is writable; who took the right to write from all of them meant it.
    return os.access(path, os.W_OK) and bool(path.stat().st_mode & 0o222)


def taken(query: Mapping[str, Any], beside: Sequence[QueryFile], defaults: Defaults) -> list[Problem]:
    """Why `query` could not stand in a file that is read together with `beside`; empty where it could."""
    try:
        _refuse_taken(query, beside)
        new = QueryFile(len(beside), Path(_NO_FILE), parse(to_file(query).encode()))
        _refuse_clashes([*beside, new], new.path, defaults)
    except ConfigError as error:
        return list(error.problems)
    return []


def _refuse_taken(query: Mapping[str, Any], files: Sequence[QueryFile]) -> None:
    name = query["name"]
    places = {
        str(data.get("name")): file.place((*at, "name")) for file in files for at, data in file.queries()
    }
    if name in places:
        free = next(
            f"{name}_{number}" for number in range(2, len(places) + 3) if f"{name}_{number}" not in places
        )
        raise ConfigError(
            [Problem("--name", f"{name!r} is also the query at {places[name]}; write --name {free}")]
        )


def _refuse_clashes(files: Sequence[QueryFile], path: Path, defaults: Defaults) -> None:
    """Judge all files together, and raise for what is wrong with the new one only."""
    try:
        judged(files, defaults)
    except ConfigError as error:
        ours = [one for one in error.problems if one.place and one.place.file == str(path)]
        if ours:
            raise ConfigError(ours) from None


def _refused(what: str) -> ConfigError:
    return ConfigError([Problem("--write", what)])


def _listed(file: QueryFile) -> list[Any]:
    return [data for _, data in file.queries()]


def _is_addition(old: QueryFile | None, new: QueryFile, query: Mapping[str, Any]) -> bool:
    """Whether `new` says what `old` does, and the query at the end."""
    if isinstance(new.document, str) or new.document.flaws:
        return False
    if old is None or isinstance(old.document, str):
        return bool(new.document.data == {"queries": [dict(query)]})
    wanted = {**old.document.data, "queries": [*old.document.data["queries"], dict(query)]}
    return bool(new.document.data == wanted)


def _candidates(path: Path, before: bytes | None, query: Mapping[str, Any]) -> Iterator[str]:
    """The whole text with the query in it, the nicest first."""
    if before is None:
        yield to_file(query)
        return
    text = before.decode("utf-8")
    line_end = "\r\n" if "\r\n" in text else "\n"
    if _is_blank(before):
        break_ = "" if not text or text.endswith("\n") else line_end
        yield text + break_ + to_file(query).replace("\n", line_end)
        return
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    text = text.removeprefix(mark)
    gap = gap_in(text)
    if gap is None:
        what = f"the queries of {path} are no list with a dash before each; {_BY_HAND}"
        raise _refused(what)
    added = to_yaml(query, gap.indent).replace("\n", line_end)
    head, tail = text[: gap.at], text[gap.at :]
    if head and not head.endswith(("\n", "\r")):
        head += line_end
    # A blank line between two queries reads well, but a text of the `|+` kind would take it as its own.
    for blank in (line_end, "") if gap.spaced else ("",):
        yield f"{mark}{head}{blank}{added}{blank if tail else ''}{tail}"


def _replace(path: Path, before: bytes | None, raw: bytes) -> None:
    """Put `raw` in the place of `before` in one step; links stay links, and the rights stay as they are."""
    real = Path(os.path.realpath(path))
    made: str | None = None
    try:
        if (read_regular(real, MAX_BYTES) if real.exists() else None) != before:
            raise _refused(f"{path} was changed at this moment; try again")
        number, made = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
        with os.fdopen(number, "wb") as file:
            file.write(raw)
            file.flush()
            os.fchmod(number, real.stat().st_mode & 0o7777 if before is not None else 0o666 & ~_umask())
            if before is not None:
                with suppress(PermissionError):
                    os.fchown(number, real.stat().st_uid, real.stat().st_gid)
            os.fsync(number)
        Path(made).replace(real)
    except OSError as error:
        raise _refused(f"{path} cannot be written: {error.strerror}") from None
    finally:
        if made is not None:
            with suppress(FileNotFoundError):
                Path(made).unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
