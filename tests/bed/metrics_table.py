"""Write the README's table of metrics from the catalogue itself: python -m tests.bed.metrics_table."""

from __future__ import annotations

from pathlib import Path

from poller.config.queries.files import resolve
from poller.config.queries.load import load
from poller.events.catalog import declared
from poller.model.catalog import Defaults
from poller.tools.generate.metric_catalog import all_metrics, to_markdown

README = Path(__file__).parents[2] / "README.md"
START, END = "<!-- generated: metrics -->", "<!-- end: metrics -->"


def table() -> str:
    """What `poller catalog` prints when nothing is set."""
    return to_markdown(all_metrics(load(resolve("shipped"), Defaults(300, 30, 1000)), declared()))


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    before, after = text[: text.index(START) + len(START)], text[text.index(END) :]
    README.write_text(f"{before}\n{table()}\n\n{after}", encoding="utf-8")
