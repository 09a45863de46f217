"""Prometheus' own tools, if the distribution has them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.bed.programs import need


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool; its output contains the errors."""
    return subprocess.run(
        [need("promtool", "prometheus"), *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
