"""Pytest fixture `event_recorder` (in conftest.py: `pytest_plugins = ["poller.events.fixtures"]`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from poller.events.testing import Recorder


@pytest.fixture
def event_recorder() -> Iterator[Recorder]:
    """A recorder for one test, which fails where a value was told that the catalogue does not declare."""
    recorder = Recorder()
    yield recorder
    recorder.assert_declared()
    recorder.close()
