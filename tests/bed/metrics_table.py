"""Table of the metrics of the catalogue for the documentation."""

from __future__ import annotations

from poller.config.queries.files import resolve
from poller.config.queries.load import load
from poller.events.catalog import declared
from poller.model.catalog import Defaults
from poller.tools.generate.metric_catalog import all_metrics, to_markdown


def table() -> str:
    """Return the output of `poller catalog` without settings."""
    return to_markdown(all_metrics(load(resolve("shipped"), Defaults(300, 30, 1000)), declared()))
