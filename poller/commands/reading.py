"""Read the query files that the settings name."""

from __future__ import annotations

from poller.catalog import Catalog
from poller.queryfiles import load
from poller.settings import Settings
from poller.sources import resolve


def open_catalog(settings: Settings) -> Catalog:
    """Read the query files; raises ConfigError with every problem of every file."""
    return load(resolve(settings.queries), settings.defaults)
