"""Resolution of `POLLER_QUERIES` to query files."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import poller
from poller.model.diagnostics import Diagnostic, invalid
from poller.model.errors import ConfigError
from poller.model.text import did_you_mean, near

MAX_BYTES = 1 << 20
"""Maximum size of one file."""
_SUFFIXES = (".yaml", ".yml")
_MOST_NAMES = 1000
"""Maximum file names to compare with a wrong name."""
_CASE_FILES = tuple(f".test{suffix}" for suffix in _SUFFIXES)
"""End of the name of a file with cases for `poller test`."""


def resolve(queries_setting: str) -> list[Path]:
    """Return the files and folders of `POLLER_QUERIES`, which are joined by `:`.

    `shipped` and `extended` are the packaged folders.

    Raises ConfigError for each that is missing or contains no query file.
    """
    names = [name.strip() for name in queries_setting.split(":") if name.strip()]
    problems: list[Diagnostic] = []
    sources: list[Path] = []
    for name in names:
        source = named(name)
        if problem := source_problem(source):
            hint = did_you_mean(name, ["shipped", "extended"])
            problems.append(invalid("POLLER_QUERIES", f"{name!r} {problem}{hint}"))
        sources.append(source)
    if not names:
        problems.append(
            invalid("POLLER_QUERIES", "is empty; write files and folders joined by ':', or shipped")
        )
    if problems:
        raise ConfigError(problems)
    return sources


def named(name: str) -> Path:
    """Return the file or folder `name`; `shipped` and `extended` are the packaged folders."""
    return {"shipped": _packaged(), "extended": _packaged() / "extended"}.get(name, Path(name))


def files_of(source: Path) -> list[Path]:
    """Return the query files of `source`, a file or a folder; raises OSError if the folder is unreadable."""
    if not source.is_dir():
        return [source]
    # The watcher calls this every few seconds, and a DirEntry needs no system call and no Path for each name.
    with os.scandir(source) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.endswith(_SUFFIXES)
            and not entry.name.startswith(".")
            and not entry.name.endswith(_CASE_FILES)
            # DirEntry.is_dir() would raise for a link to itself, and so hide all other files.
            and not Path(entry).is_dir()
        ]
    return [source / name for name in sorted(names)]


def unsearched(source: Path) -> list[Path]:
    """Return the subfolders of `source` that contain query files, which are not read."""
    if not source.is_dir() or source.resolve() == _packaged().resolve():
        return []
    # Hidden folders are excluded: a mounted ConfigMap has its files in one as well.
    inside = (path for suffix in _SUFFIXES for path in source.glob(f"[!.]*/[!.]*{suffix}"))
    return sorted({path.parent for path in inside if not holds_cases(path)})


def holds_cases(path: Path) -> bool:
    """Return whether `path` is a file of test cases: `messages.test.yaml` for `messages.yaml`."""
    return path.name.endswith(_CASE_FILES)


def _packaged() -> Path:
    # The folder is inside an installed package, but next to it in a checkout.
    package = Path(poller.__file__).parent
    inside = package / "queries"
    return inside if inside.is_dir() else package.parent / "queries"


def source_problem(source: Path, kind: str = "query file") -> str | None:
    """Return why a file, or a folder of files of this kind, cannot be used; None if it can."""
    try:
        if not source.exists():
            return f"does not exist{_like(source) or f'; write a folder of {kind}s, or a file'}"
        if holds_cases(source) and not source.is_dir():
            return "contains cases for `poller test`; write the query file or its folder"
        if source.is_dir() and not files_of(source):
            return f"contains no {kind}; add a *.yaml file, or write another folder"
    except (OSError, ValueError) as error:
        return unreadable(error)
    return None


def _like(source: Path) -> str:
    """Return `; did you mean ...` with an existing file of a similar name; empty if there is none."""
    if not source.parent.is_dir():
        return ""
    siblings = itertools.islice(source.parent.iterdir(), _MOST_NAMES)
    # Compared without the suffix, which all names share.
    names = {path.stem: path.name for path in siblings}
    similar = near(source.stem, names)
    return f"; did you mean {str(source.with_name(names[similar]))!r}?" if similar else ""


def unreadable(error: OSError | ValueError) -> str:
    """Return why a file cannot be read."""
    reason = error.strerror if isinstance(error, OSError) else "its name contains a NUL character"
    return f"cannot be read: {reason}"
