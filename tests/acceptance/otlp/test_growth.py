"""The memory of exports does not grow when the exported series change."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from tests.bed.growth import CHANGES
from tests.bed.process import Process

EXPORTS = 300
MEGABYTE = 2**20


@pytest.mark.timeout(700)
@pytest.mark.parametrize("change", CHANGES)
def test_the_memory_of_exports_is_bounded_when_series_change(
    start_process: Callable[..., Process], change: str
) -> None:
    process = start_process([sys.executable, "-m", "tests.bed.growth", change, str(EXPORTS)])
    assert process.wait(600) == 0, str(process)[-2000:]
    early, late = (int(line) for line in process.stdout.splitlines())
    assert late - early < 3 * MEGABYTE
