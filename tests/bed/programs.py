"""Programs that some tests need and no wheel brings."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def need(program: str, package: str | None, path: str | None = None) -> str:
    """The path of an installed program; see `lacking`.

    `package` is Debian's package of it. Without one CI cannot install it, and the test is skipped there too.
    """
    if found := shutil.which(program, path=path):
        return found
    if package is None:
        pytest.skip(f"{program} is not installed: NOT tested")
    return lacking(f"{program} (apt-get install {package})")


def lacking(what: str) -> NoReturn:
    """Skip the test because `what` is not installed; in CI, where it has to be, the test fails."""
    told = f"{what} is not installed: NOT tested"
    if os.environ.get("CI"):
        pytest.fail(told, pytrace=False)
    pytest.skip(told)
