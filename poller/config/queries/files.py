"""Resolution of `POLLER_QUERIES` to query files."""

from __future__ import annotations

import itertools
from pathlib import Path

import poller
from poller.model.errors import ConfigError, Problem
from poller.model.text import did_you_mean, near

MAX_BYTES = 1 << 20
"""Of one file."""
_SUFFIXES = (".yaml", ".yml")
_MOST_NAMES = 1000
"""Looked at for one that was meant."""
_CASES = ".test"
"""What the name of a file ends in, before its suffix, that holds cases for `poller test` and no query."""


def resolve(queries_setting: str) -> list[Path]:
    """The files and folders that `POLLER_QUERIES` names: joined by `:`.

    `shipped` and `extended` are the folders that come with the poller.

    Raises ConfigError for each that is missing or holds no query file.
    """
    words = [word.strip() for word in queries_setting.split(":") if word.strip()]
    problems: list[Problem] = []
    sources: list[Path] = []
    for word in words:
        source = named(word)
        if what := source_problem(source):
            meant = did_you_mean(word, ["shipped", "extended"])
            problems.append(Problem("POLLER_QUERIES", f"{word!r} {what}{meant}"))
        sources.append(source)
    if not words:
        problems.append(
            Problem("POLLER_QUERIES", "names nothing; write files and folders joined by ':', or shipped")
        )
    if problems:
        raise ConfigError(problems)
    return sources


def named(word: str) -> Path:
    """The file or folder called `word`: `shipped` and `extended` are those that come with the poller."""
    return {"shipped": _packaged(), "extended": _packaged() / "extended"}.get(word, Path(word))


def files_of(source: Path) -> list[Path]:
    """The query files of `source`, a file or a folder; raises OSError where the folder cannot be listed."""
    if not source.is_dir():
        return [source]
    return sorted(
        path
        for path in source.iterdir()
        if path.suffix in _SUFFIXES
        and not path.name.startswith(".")
        and not holds_cases(path)
        and not path.is_dir()
    )


def unsearched(source: Path) -> list[Path]:
    """Folders in the folder `source` that hold query files, which are not read."""
    if not source.is_dir() or source.resolve() == _packaged().resolve():
        return []
    # A ConfigMap is mounted with its files in hidden folders as well.
    inside = (path for suffix in _SUFFIXES for path in source.glob(f"[!.]*/[!.]*{suffix}"))
    return sorted({path.parent for path in inside if not holds_cases(path)})


def holds_cases(path: Path) -> bool:
    """Whether `path` is named as the cases of a query file are: `messages.test.yaml` for `messages.yaml`."""
    return path.suffix in _SUFFIXES and path.stem.endswith(_CASES)


def _packaged() -> Path:
    # Installed, the folder is inside the package; in a checkout it is next to it.
    package = Path(poller.__file__).parent
    inside = package / "queries"
    return inside if inside.is_dir() else package.parent / "queries"


def source_problem(source: Path) -> str | None:
    """Why no query can come of a file or folder; None where one can."""
    try:
        if not source.exists():
            return f"does not exist{_like(source) or '; write a folder of query files, or a file'}"
        if holds_cases(source) and not source.is_dir():
            return "holds cases for `poller test`; write the query file, or its folder"
        if source.is_dir() and not files_of(source):
            return "holds no query file; put a *.yaml file into it, or write another folder"
    except (OSError, ValueError) as error:
        return unreadable(error)
    return None


def _like(source: Path) -> str:
    """`; did you mean ...` with what is there under a name like it."""
    if not source.parent.is_dir():
        return ""
    beside = itertools.islice(source.parent.iterdir(), _MOST_NAMES)
    # Without the suffixes, which make all of them alike.
    names = {path.stem: path.name for path in beside}
    meant = near(source.stem, names)
    return f"; did you mean {str(source.with_name(names[meant]))!r}?" if meant else ""


def unreadable(error: OSError | ValueError) -> str:
    """Why the system would not give us a file."""
    reason = error.strerror if isinstance(error, OSError) else "its name holds a NUL character"
    return f"cannot be read: {reason}"
