"""Name a file the way that other programs find it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote


def relative(file: str) -> str:
    """The path from the working directory where the file lies below it, else as it was given."""
    path = Path(file)
    try:
        return path.absolute().relative_to(Path.cwd()).as_posix()
    except (ValueError, OSError):
        return path.as_posix()


def uri(file: str) -> str:
    """The same as a URI reference (RFC 3986)."""
    path = Path(relative(file))
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
