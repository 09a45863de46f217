"""The files of this repository."""

from __future__ import annotations

import subprocess

from tests.bed.process import ROOT


def files_of_git() -> list[str]:
    """Return the paths of all files that git tracks, and of new files that it does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if (ROOT / name).is_file()]
