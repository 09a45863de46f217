"""Pytest fixture `event_recorder` (in conftest.py: `pytest_plugins = ["poller.events.fixtures"]`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from poller.events.testing import Recorder


@pytest.fixture
def event_recorder() -> Iterator[Recorder]:
    """Yield a recorder for one test; the test fails if a value was recorded that is not declared."""
    recorder = Recorder()
    yield recorder
    recorder.assert_declared()
    recorder.close()
