"""Prometheus' own tools, where the distribution has them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def need(program: str) -> str:
    """The path of a program of Debian's package prometheus; skips the test where it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed (apt-get install prometheus): NOT tested against Prometheus")
    return found


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool; its output holds what is wrong."""
    return subprocess.run(
        [need("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
