"""Catalogue loader for the query files that the settings name."""

from __future__ import annotations

from poller.config.queries.files import resolve
from poller.config.queries.load import load
from poller.config.settings import Settings
from poller.model.catalog import Catalog


def open_catalog(settings: Settings) -> Catalog:
    """Load the query files; raises ConfigError with every problem in every file."""
    return load(resolve(settings.queries), settings.defaults)
