"""Put panels on a dashboard: its rows, its variables, its JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from poller.dashboards.panels import SOURCE, Panel


@dataclass(frozen=True, slots=True)
class Section:
    """A headed row of panels."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Frame:
    """What a dashboard is apart from its panels."""

    uid: str
    title: str
    description: str
    since: str
    """Start of the time range shown at first."""
    instances: bool
    """Whether several instances may be looked at together."""
    link: tuple[str, str]
    """Title and uid of the other dashboard."""


def to_json(frame: Frame, sections: Sequence[Section]) -> str:
    """The dashboard as Grafana imports and provisions it, the same text each time."""
    title, uid = frame.link
    board = (
        build.Dashboard(frame.title)
        .uid(frame.uid)
        .description(frame.description)
        .tags(["obscura-poller"])
        .editable()
        .refresh("1m")
        .time(frame.since, "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink(title)
            .type(model.DashboardLinkType.LINK)
            .url(f"/d/{uid}")
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(build.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("job", "Service", "label_values(poller_query_series, job)"))
        .with_variable(
            _variable(
                "instance",
                "Poller",
                'label_values(poller_query_series{job=~"$job"}, instance)',
                several=frame.instances,
            )
        )
    )
    number = 0
    for section in sections:
        row = build.Row(section.title)
        if section.title:
            number += 1
            board.with_row(row.id(number))
        for panel in section.panels:
            number += 1
            panel.build().id_val = number
            board.with_panel(panel)
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _variable(name: str, label: str, query: str, *, several: bool = False) -> build.QueryVariable:
    variable = (
        build.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": name})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    if several:
        variable.multi(True).include_all(True)
        variable.current(model.VariableOption(selected=True, text="All", value="$__all"))
    return variable
