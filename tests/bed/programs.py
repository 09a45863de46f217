"""Programs that some tests need and no wheel contains."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def is_installed(program: str) -> bool:
    return shutil.which(program) is not None


def need(program: str, package: str | None, path: str | None = None) -> str:
    """Return the path of an installed program; see `lacking`.

    `package` is its package in Debian. Without a package CI cannot install it, and skips the test as well.
    """
    if installed := shutil.which(program, path=path):
        return installed
    if package is None:
        pytest.skip(f"{program} is not installed: NOT tested")
    return lacking(f"{program} (apt-get install {package})")


def lacking(missing: str) -> NoReturn:
    """Skip the test because `missing` is not installed; in CI, which must have it, the test fails."""
    message = f"{missing} is not installed: NOT tested"
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
