"""Command `alerts`: Prometheus alerting rules for the query files and for the poller itself."""

from __future__ import annotations

from typing import Annotated

import typer

from poller.cli.options import with_settings
from poller.config.queries.load import open_catalog
from poller.config.settings import Settings
from poller.tools.generate.alert_rules import query_rules, to_yaml
from poller.tools.generate.alert_rules_poller import AlertLimits, poller_rules

RUNBOOK = "docs/runbook.md"
REPLAY_LAG = 300.0
"""Seconds; the alert's limit if POLLER_MAX_REPLAY_LAG is unset."""
_HEAD = """\
Written by `poller alerts`. Do not edit; change the query files or the options of the command.
Metric names follow the defaults of Prometheus' OTLP receiver (suffixes for units, _total for counters)."""


@with_settings(
    "queries",
    "interval",
    "timeout",
    "max_series",
    "namespace",
    "service_name",
    "max_replay_lag",
    "spool_max_size",
    warn=True,
)
def alerts(
    settings: Settings,
    runbook: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address of the runbook that alerts link to.")
    ] = RUNBOOK,
) -> None:
    """Write Prometheus alerting rules (a rule file) to stdout, without a database.

    The rules cover the poller itself and every `alert:` of the query files. Exit code 2: the query files are
    invalid.
    """
    catalog = open_catalog(settings)
    limits = AlertLimits(
        settings.service_name,
        REPLAY_LAG if settings.max_replay_lag is None else settings.max_replay_lag,
        settings.spool_max_size,
        settings.interval / 2,
    )
    groups = {
        "obscura-poller": list(poller_rules(limits, runbook)),
        "obscura-poller-queries": list(query_rules(catalog.queries, runbook)),
    }
    typer.echo(to_yaml(groups, _HEAD), nl=False)
