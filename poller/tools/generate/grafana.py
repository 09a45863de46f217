"""Panels, dashboards and units of Grafana, built with Grafana's own builders."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel = Builder[model.Panel]
SOURCE = model.DataSourceRef("prometheus", "${datasource}")
"""Data source that the dashboard's variable `datasource` selects."""
_REFS = "ABCDEFGHIJ"
WIDTH = 24
"""Columns of Grafana's grid."""
DASHED = {"fill": "dash", "dash": [10, 10]}
DOTTED = {"fill": "dot", "dash": [0, 10]}


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression of a panel, with the legend and the style of its series."""

    expr: str
    legend: str = ""
    line: Mapping[str, object] | None = None
    color: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """Title and description of a panel."""

    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Level:
    """Colour of values from `least` on."""

    least: float | None
    color: str


def graph(
    text: Text,
    unit: str,
    targets: Sequence[Expression],
    *,
    span: int = 12,
    height: int = 8,
    bars: bool = False,
) -> Panel:
    """Time series as lines, or as stacked bars for events per step."""
    panel = (
        timeseries.Panel()
        .title(text.title)
        .description(text.description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(height)
        .axis_soft_min(0)
        .line_width(1)
        .fill_opacity(60 if bars else 8)
        .show_points(common_models.VisibilityMode.AUTO)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.DESCENDING)
        )
    )
    if bars:
        panel.draw_style(common_models.GraphDrawStyle.BARS)
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    for ref, target in zip(_REFS, targets, strict=False):
        panel.with_target(_query(ref, target))
        marks: list[model.DynamicConfigValue] = []
        if target.line is not None:
            marks.append(model.DynamicConfigValue("custom.lineStyle", target.line))
            marks.append(model.DynamicConfigValue("custom.fillOpacity", 0))
        if target.color is not None:
            fixed = {"mode": "fixed", "fixedColor": target.color}
            marks.append(model.DynamicConfigValue("color", fixed))
        if marks:
            panel.override_by_query(ref, marks)
    return panel


def numbers(
    text: Text,
    unit: str,
    targets: Sequence[Expression],
    *,
    span: int = 4,
    height: int = 4,
    levels: Sequence[Level] = (),
    trend: bool = False,
    none: str | None = None,
) -> Panel:
    """Newest value of each series as a big number; `none` is the text if there is no series."""
    panel = (
        stat.Panel()
        .title(text.title)
        .description(text.description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(height)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common_models.BigValueGraphMode.AREA if trend else common_models.BigValueGraphMode.NONE)
        .color_mode(common_models.BigValueColorMode.VALUE)
        .text_mode(
            common_models.BigValueTextMode.VALUE_AND_NAME
            if len(targets) > 1
            else common_models.BigValueTextMode.AUTO
        )
        .thresholds(_thresholds(levels))
    )
    if none is not None:
        panel.no_value(none)
    for ref, target in zip(_REFS, targets, strict=False):
        panel.with_target(_query(ref, target, instant=not trend))
    return panel


def states(
    text: Text,
    target: Expression,
    names: Mapping[int, tuple[str, str]],
    *,
    span: int = WIDTH,
    height: int = 10,
) -> Panel:
    """A band per series, coloured by state; `names` maps each value to its name and colour."""
    mapping = {
        str(value): model.ValueMappingResult(text=name, color=color, index=index)
        for index, (value, (name, color)) in enumerate(names.items())
    }
    return (
        statetimeline.Panel()
        .title(text.title)
        .description(text.description)
        .datasource(SOURCE)
        .span(span)
        .height(height)
        .mappings([model.ValueMap(mapping)])
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color("text"))
        .show_value(common_models.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
        )
        .with_target(_query("A", target))
    )


def listing(
    text: Text,
    unit: str,
    targets: Mapping[str, str],
    labels: Mapping[str, str],
    *,
    span: int = 12,
    height: int = 8,
    none: str | None = None,
) -> Panel:
    """Table: a row per set of `labels` (label: heading), a column per target (heading: expression)."""
    headings = {f"Value #{ref}": heading for ref, heading in zip(_REFS, targets, strict=False)}
    if len(targets) == 1:
        headings = {"Value": next(iter(targets))}  # `merge` numbers the columns only if there are several
    hidden = ("Time", "__name__", "job")
    panel = (
        table.Panel()
        .title(text.title)
        .description(text.description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(height)
        .filterable(True)
        .with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {name: True for name in hidden if name not in labels},
                    "indexByName": {name: at for at, name in enumerate((*labels, *headings))},
                    "renameByName": {**labels, **headings},
                },
            )
        )
        .sort_by([common.TableSortByFieldState().display_name(next(iter(targets))).desc(True)])
    )
    if none is not None:
        panel.no_value(none)
    for ref, expr in zip(_REFS, targets.values(), strict=False):
        panel.with_target(_query(ref, Expression(expr), instant=True).format(PromQueryFormat.TABLE))
    return panel


def _query(ref: str, target: Expression, *, instant: bool = False) -> Dataquery:
    query = Dataquery().ref_id(ref).expr(target.expr).legend_format(target.legend).datasource(SOURCE)
    return query.instant() if instant else query.range()


def _thresholds(levels: Sequence[Level]) -> build.ThresholdsConfig:
    steps = levels or (Level(None, "text"),)
    return (
        build.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(step.least, step.color) for step in steps])
    )


@dataclass(frozen=True, slots=True)
class Section:
    """Row of panels with a title."""

    title: str
    panels: Sequence[Panel]
    collapsed: bool = False


@dataclass(frozen=True, slots=True)
class DashboardProperties:
    """Properties of a dashboard other than its panels."""

    uid: str
    title: str
    description: str
    since: str
    """Start of the initial time range."""
    instances: bool
    """Whether several instances can be selected together."""
    link: tuple[str, str]
    """Title and uid of the other dashboard."""


def to_json(frame: DashboardProperties, sections: Sequence[Section]) -> str:
    """Dashboard as JSON for import and provisioning; the output is deterministic."""
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
        .with_variable(_variable("job", "Service", "label_values(poller_export_spool_requests, job)"))
        .with_variable(
            _variable(
                "instance",
                "Poller",
                'label_values(poller_export_spool_requests{job=~"$job"}, instance)',
                several=frame.instances,
            )
        )
        .with_variable(
            _variable("target", "Target", _TARGETS, several=frame.instances).regex('/instance="([^"]*)"/')
        )
    )
    number = 0
    for section in sections:
        row = build.Row(section.title)
        if section.title:
            number += 1
            row.id(number).collapsed(section.collapsed)
        for panel in section.panels:
            number += 1
            panel.build().id_val = number
            if section.collapsed:
                row.with_panel(panel)
        if section.title:
            board.with_row(row)
        if not section.collapsed:
            for panel in section.panels:
                board.with_panel(panel)
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


_TARGETS = (
    'query_result(group by (instance) (last_over_time(poller_query_series{job=~"$job",instance=~"$instance"}'
    '[$__range]) or last_over_time(poller_target_up{job=~"$job"}[$__range])))'
)
"""All targets. A poller without POLLER_TARGETS is its own target, so it is in the list if it is chosen."""


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


# Identifiers of Grafana's value formats (grafana-data, valueFormats/categories.ts).
_IDS = {
    "": "short", "1": "none", "%": "percent",
    "By": "bytes", "kBy": "deckbytes", "MBy": "decmbytes", "GBy": "decgbytes", "TBy": "dectbytes",
    "PBy": "decpbytes", "KiBy": "kbytes", "MiBy": "mbytes", "GiBy": "gbytes", "TiBy": "tbytes",
    "PiBy": "pbytes", "bit": "decbits",
    "ns": "ns", "us": "µs", "ms": "ms", "s": "s", "min": "m", "h": "h", "d": "d",
    "Hz": "hertz", "Cel": "celsius", "K": "kelvin", "deg": "degree",
    "mm": "lengthmm", "m": "lengthm", "km": "lengthkm", "mg": "massmg", "g": "massg", "kg": "masskg",
    "mL": "mlitre", "L": "litre", "Pa": "pressurepa", "kPa": "pressurekpa", "N": "forceN",
    "J": "joule", "mW": "mwatt", "W": "watt", "kW": "kwatt", "MW": "megwatt", "GW": "gwatt",
    "mV": "mvolt", "V": "volt", "kV": "kvolt", "mA": "mamp", "A": "amp", "kA": "kamp", "Ohm": "ohm",
    "By/s": "Bps", "kBy/s": "KBs", "MBy/s": "MBs", "GBy/s": "GBs", "bit/s": "bps",
    "/s": "cps", "/min": "cpm", "m/s": "velocityms", "km/h": "velocitykmh",
}  # fmt: skip


def unit_id(unit: str) -> str:
    """Grafana's identifier for a unit of a query file.

    A count of things, `{message}`, becomes a number that Grafana abbreviates. A unit that Grafana does not
    have becomes a suffix of the number.
    """
    bare = re.sub(r"\{[^}]*\}", "", unit)
    return _IDS.get(bare) or f"suffix: {bare}"
