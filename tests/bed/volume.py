"""Replacement of files in the ways of editors and Kubernetes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def replace(file: Path, text: str) -> None:
    """Write a temporary file and rename it, as editors and careful programs do."""
    new = file.with_name(f".{file.name}.swp")
    new.write_text(text)
    new.rename(file)


class ConfigMap:
    """A volume in the kubelet's layout: files link into `..data`, a link to a folder named after a time."""

    def __init__(self, folder: Path, **files: str) -> None:
        self.folder = folder
        self._version = 0
        folder.mkdir()
        self.update(**files)

    def update(self, **files: str) -> None:
        """Write a new folder and swap the link to it in one step; then remove links without a file."""
        self._version += 1
        old = (self.folder / "..data").resolve() if self._version > 1 else None
        new = self.folder / f"..2026_11_24_10_00_0{self._version}.1234"
        new.mkdir()
        for name, text in files.items():
            (new / f"{name}.yaml").write_text(text)
            os.utime(new / f"{name}.yaml", (1_700_000_000, 1_700_000_000))
        (self.folder / "..data_tmp").symlink_to(new.name)
        (self.folder / "..data_tmp").rename(self.folder / "..data")
        for name in files:
            if not (self.folder / f"{name}.yaml").is_symlink():
                (self.folder / f"{name}.yaml").symlink_to(f"..data/{name}.yaml")
        for link in self.folder.glob("*.yaml"):
            if link.stem not in files:
                link.unlink()
        if old is not None:
            shutil.rmtree(old)
