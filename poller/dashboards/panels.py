"""Build the kinds of panels that the dashboards are made of, with Grafana's own builders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel = Builder[model.Panel]
SOURCE = model.DataSourceRef("prometheus", "${datasource}")
"""What is chosen by the dashboard's variable `datasource`."""
_REFS = "ABCDEFGHIJ"
WIDTH = 24
"""Columns of Grafana's grid."""
DASHED = {"fill": "dash", "dash": [10, 10]}
DOTTED = {"fill": "dot", "dash": [0, 10]}


@dataclass(frozen=True, slots=True)
class Target:
    """One expression of a panel, and what its series are called; `line` and `color` mark them."""

    expr: str
    legend: str = ""
    line: Mapping[str, object] | None = None
    color: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """What a panel says of itself."""

    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Level:
    """From `least` on a value has this colour."""

    least: float | None
    color: str


def graph(
    text: Text, unit: str, targets: Sequence[Target], *, span: int = 12, height: int = 8, bars: bool = False
) -> Panel:
    """Lines over time (or, of what happened in each step, stacked bars)."""
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
        .show_points(looks.VisibilityMode.AUTO)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(looks.LegendDisplayMode.LIST)
            .placement(looks.LegendPlacement.BOTTOM)
        )
        .tooltip(
            common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING)
        )
    )
    if bars:
        panel.draw_style(looks.GraphDrawStyle.BARS)
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("A"))
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
    targets: Sequence[Target],
    *,
    span: int = 4,
    height: int = 4,
    levels: Sequence[Level] = (),
    trend: bool = False,
    none: str | None = None,
) -> Panel:
    """Big numbers, the newest of each series; `none` is said where there is no series."""
    panel = (
        stat.Panel()
        .title(text.title)
        .description(text.description)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(height)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(looks.BigValueGraphMode.AREA if trend else looks.BigValueGraphMode.NONE)
        .color_mode(looks.BigValueColorMode.VALUE)
        .text_mode(looks.BigValueTextMode.VALUE_AND_NAME if len(targets) > 1 else looks.BigValueTextMode.AUTO)
        .thresholds(_thresholds(levels))
    )
    if none is not None:
        panel.no_value(none)
    for ref, target in zip(_REFS, targets, strict=False):
        panel.with_target(_query(ref, target, instant=not trend))
    return panel


def states(
    text: Text, target: Target, words: Mapping[int, tuple[str, str]], *, span: int = WIDTH, height: int = 10
) -> Panel:
    """A band per series, coloured by what its value stands for: `words` gives word and colour."""
    told = {
        str(value): model.ValueMappingResult(text=word, color=color, index=index)
        for index, (value, (word, color)) in enumerate(words.items())
    }
    return (
        statetimeline.Panel()
        .title(text.title)
        .description(text.description)
        .datasource(SOURCE)
        .span(span)
        .height(height)
        .mappings([model.ValueMap(told)])
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color("text"))
        .show_value(looks.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(looks.LegendDisplayMode.LIST)
            .placement(looks.LegendPlacement.BOTTOM)
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
    """A table: a line per set of `labels` (label: heading), a column per target (heading: expression)."""
    headings = {f"Value #{ref}": heading for ref, heading in zip(_REFS, targets, strict=False)}
    if len(targets) == 1:
        headings = {"Value": next(iter(targets))}  # `merge` numbers the columns where there are several
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
        panel.with_target(_query(ref, Target(expr), instant=True).format(PromQueryFormat.TABLE))
    return panel


def _query(ref: str, target: Target, *, instant: bool = False) -> Dataquery:
    query = Dataquery().ref_id(ref).expr(target.expr).legend_format(target.legend).datasource(SOURCE)
    return query.instant() if instant else query.range()


def _thresholds(levels: Sequence[Level]) -> build.ThresholdsConfig:
    steps = levels or (Level(None, "text"),)
    return (
        build.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(step.least, step.color) for step in steps])
    )
