"""Pictures of Grafana dashboards: the panels of a dashboard, drawn with matplotlib from Prometheus' answers.

Position, size, type, title, unit, colours, legend, mappings and transformations of each panel are those of
the dashboard's JSON. The pixels are not Grafana's.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from tests.bed.prometheus import Labels, Prometheus

Json = dict[str, Any]
_WIDTH, _ROW = 1000, 30
"""Width of the picture, and height of a row of the grid, in points."""
_CHAR = 5.6
"""Width of a letter of size 9 in points; wider than most are."""
_DARK, _PANEL, _LINE, _TEXT = "#111217", "#181b1f", "#2c3235", "#ccccdc"
_COLORS = {
    "text": _TEXT,
    "green": "#73bf69",
    "yellow": "#fade2a",
    "red": "#f2495c",
    "blue": "#5794f2",
    "orange": "#ff9830",
    "purple": "#b877d9",
    "gray": "#8e8e99",
}
_PALETTE = ["#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0"]
_DASHES: Any = {"solid": "-", "dash": "--", "dot": ":"}
_STYLE: Any = {
    "svg.hashsalt": "dashboards",  # the same ids in each drawing
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "axes.facecolor": _PANEL,
    "axes.spines.bottom": False,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": _LINE,
    "text.parse_math": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.2,
    "legend.columnspacing": 1.2,
    "legend.labelspacing": 0.3,
}
_SCALES: dict[str, list[tuple[float, str]]] = {
    "s": [(86400, " days"), (3600, " hours"), (60, " mins"), (1, " s"), (1e-3, " ms"), (1, " s")],
    "bytes": [(2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"), (1, " B")],
    "short": [(1e6, " Mil"), (1e3, " K"), (1, "")],
    "percentunit": [(0.01, "%")],
    "none": [(1, "")],
}
"""Factors and names of each unit of Grafana; the last ones are for values below all of them."""


class Series(NamedTuple):
    """Values of one series of a panel's query."""

    ref: str
    name: str
    labels: Labels
    values: list[float]
    """One for each step of the range, NaN if there is none; the current value alone for an instant query."""

    @property
    def last(self) -> float:
        return next(value for value in reversed(self.values) if not math.isnan(value))


@dataclass
class Board:
    """A dashboard and the Prometheus that answers its queries, for the hours that end now."""

    definition: Json
    prometheus: Prometheus
    hours: int
    step: int = 600

    def __post_init__(self) -> None:
        self._variables: dict[str, str] = {}
        for variable in self.definition["templating"]["list"]:
            if variable["type"] == "query":
                values = sorted(set(self._values(variable)))
                # As Grafana: all values of a variable with "All", else the first.
                self._variables[variable["name"]] = "|".join(values) if variable["includeAll"] else values[0]

    def _values(self, variable: Json) -> list[str]:
        query = variable["query"]["query"]
        if match := re.fullmatch(r"label_values\((.+), (\w+)\)", query):
            return self.prometheus.label_values(match[2], self._filled(match[1]))
        match = re.fullmatch(r"query_result\((.+)\)", query)
        assert match, variable
        answer = self.prometheus.values(self._filled(match[1].replace("$__range", f"{self.hours}h")))
        # As Grafana: the regular expression selects a part of each series as text.
        series = (f'{{instance="{labels["instance"]}"}} {value}' for labels, value in answer)
        matches = [re.search(variable["regex"].strip("/"), text) for text in series]
        return [match[1] for match in matches if match]

    def _filled(self, text: str) -> str:
        return re.sub(r"\$(\w+)", lambda match: self._variables[match[1]], text)

    def series(self, panel: Json) -> Iterator[Series]:
        """Yield what the queries of a panel answer."""
        since = self.prometheus.now - self.hours * 3600
        steps = range(int(since), int(self.prometheus.now) + 1, self.step)
        for target in panel["targets"]:
            expr = self._filled(target["expr"])
            answer = (
                [
                    (labels, [at.get(step, math.nan) for step in steps])
                    for labels, at in self.prometheus.ranges(expr, since, self.step)
                ]
                if target["range"]
                else [(labels, [value]) for labels, value in self.prometheus.values(expr)]
            )
            for labels, values in sorted(answer, key=lambda item: sorted(item[0].items())):
                legend = target["legendFormat"]
                for name in re.findall(r"\{\{(\w+)\}\}", legend):
                    legend = legend.replace(f"{{{{{name}}}}}", labels.get(name, ""))
                yield Series(target["refId"], legend.strip(), labels, values)

    def draw(self) -> tuple[str, list[str]]:
        """Return the SVG, and the titles of the panels without data."""
        panels = self.definition["panels"]
        rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
        empty: list[str] = []
        with mpl.rc_context(_STYLE):
            figure = Figure((_WIDTH / 72, rows * _ROW / 72), dpi=72, facecolor=_DARK)
            grid = figure.add_gridspec(rows, 24)
            for panel in panels:
                at = panel["gridPos"]
                place = figure.add_subfigure(
                    grid[at["y"] : at["y"] + at["h"], at["x"] : at["x"] + at["w"]],
                    facecolor=_DARK if panel["type"] == "row" else _PANEL,
                    edgecolor=_DARK,
                    linewidth=6,
                )
                _write(place, 12, 20, panel["title"], weight="bold")
                if panel["type"] == "row":
                    continue
                series = list(self.series(panel))
                if series or "noValue" in panel["fieldConfig"]["defaults"]:
                    _DRAW[panel["type"]](place, panel, series, self.hours)
                else:
                    place.text(0.5, 0.5, "No data", ha="center")
                    empty.append(panel["title"])
            file = io.StringIO()
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
        return _rounded(file.getvalue()), empty


def _rounded(svg: str) -> str:
    """The SVG with coordinates in tenths of a point, without spaces at the ends of lines."""

    def rounded(match: re.Match[str]) -> str:
        return re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), match[0])

    svg = re.sub(r' (?:d|x|y|width|height)="[^"]*"', rounded, svg)
    return re.sub(r" +\n", "\n", svg)


def formatted(value: float, unit: str) -> str:
    """A value with its unit, as Grafana shows it."""
    factor, name = _scale(value, unit)
    return f"{float(f'{value / factor:.3g}'):.10g}{name}"


def _scale(value: float, unit: str) -> tuple[float, str]:
    scale = _SCALES[unit]
    return next((each for each in scale if abs(value) >= each[0]), scale[-1])


def _write(place: SubFigure, x: float, y: float, text: str, **style: Any) -> None:
    """Write at a distance in points from the upper left corner of a panel."""
    place.text(x / place.bbox.width, 1 - y / place.bbox.height, text, **style)


def _axes(place: SubFigure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Axes that fill a panel except for these margins, in points."""
    width, height = place.bbox.size
    size = (width - left - right) / width, (height - top - bottom) / height
    return place.add_axes((left / width, bottom / height, *size))


def _hours_axes(place: SubFigure, left: float, handles: Sequence[Any], hours: int) -> Axes:
    """Axes over the hours of the picture, above a legend."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(place.bbox.width / (longest * _CHAR + 30))))
    place.legend(handles=handles, loc="lower left", ncols=columns)
    axes = _axes(place, left, 32, 18, math.ceil(len(handles) / columns) * 13 + 26)
    axes.set_xlim(0, hours)
    ticks = range(0, hours + 1, 4 if place.bbox.width > 400 else 8)
    axes.set_xticks(ticks, [f"{hour:02}:00" for hour in ticks])
    axes.tick_params(length=0, labelsize=8)
    return axes


def _timeseries(place: SubFigure, panel: Json, series: Sequence[Series], hours: int) -> None:
    overrides = {
        item["matcher"]["options"]: {each["id"]: each["value"] for each in item["properties"]}
        for item in panel["fieldConfig"]["overrides"]
    }
    lines = []
    for number, item in enumerate(series):
        style = overrides.get(item.ref, {})
        color = style.get("color", {}).get("fixedColor")
        gaps = [math.isnan(value) for value in [math.nan, *item.values, math.nan]]
        lines.append(
            Line2D(
                [hours * at / (len(item.values) - 1) for at in range(len(item.values))],
                item.values,
                label=item.name or "Value",
                color=_COLORS[color] if color else _PALETTE[number % len(_PALETTE)],
                linestyle=_DASHES[style.get("custom.lineStyle", {}).get("fill", "solid")],
                linewidth=1.2,
                marker=".",
                markersize=4,
                markevery=[at for at in range(len(item.values)) if gaps[at] and gaps[at + 2]],
            )
        )
    axes = _hours_axes(place, 66, lines, hours)
    axes.grid(visible=True, linewidth=0.6)
    for line in lines:
        axes.add_line(line)
    low, top = min(0, axes.dataLim.y0), axes.dataLim.y1 * 1.05 or 1
    unit = panel["fieldConfig"]["defaults"]["unit"]
    factor, _ = _scale(top, unit)
    ticks = [tick * factor for tick in MaxNLocator(4).tick_values(low / factor, top / factor)]
    axes.set_yticks(ticks, [formatted(tick, unit) for tick in ticks])
    axes.set_ylim(low, top)


def _timeline(place: SubFigure, panel: Json, series: Sequence[Series], hours: int) -> None:
    states = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    legend = [Patch(color=_COLORS[item["color"]], label=item["text"]) for item in states.values()]
    axes = _hours_axes(place, 150, legend, hours)
    for row, item in enumerate(series):
        step, at = hours / (len(item.values) - 1), 0
        for value, run in groupby(item.values):
            length = len(list(run))
            if not math.isnan(value):
                color = _COLORS[states[f"{value:g}"]["color"]]
                axes.broken_barh([(at * step, length * step)], (row - 0.4, 0.8), facecolors=color)
            at += length
    axes.set_yticks(range(len(series)), [item.name for item in series])
    axes.set_ylim(len(series) - 0.5, -0.5)


def _stat(place: SubFigure, panel: Json, series: Sequence[Series], _: int) -> None:
    options, defaults = panel["options"], panel["fieldConfig"]["defaults"]
    names = options["textMode"] == "value_and_name"
    share = place.bbox.width / len(series)
    for number, item in enumerate(series):
        reached = [
            step["color"]
            for step in defaults["thresholds"]["steps"]
            if step["value"] is None or item.last >= step["value"]
        ]
        color, middle = _COLORS[reached[-1]], (number + 0.5) / len(series)
        text = formatted(item.last, defaults["unit"])
        place.text(middle, 0.4, text, ha="center", color=color, size=22 if names else 28, weight="bold")
        if names:
            place.text(middle, 0.65, item.name, ha="center", size=11)
        if options["graphMode"] == "area":
            right = place.bbox.width - share * (number + 1)
            axes = _axes(place, share * number + 14, place.bbox.height * 0.68, right + 14, 14)
            axes.plot(item.values, color=color, linewidth=1)
            axes.set_xlim(0, len(item.values) - 1)
            axes.axis("off")


def _table(place: SubFigure, panel: Json, series: Sequence[Series], _: int) -> None:
    defaults, options = panel["fieldConfig"]["defaults"], panel["transformations"][-1]["options"]
    names: dict[str, str] = options["renameByName"]
    rows = [names, *({**item.labels, "Value": formatted(item.last, defaults["unit"])} for item in series)]
    if not series:
        place.text(0.5, 0.5, defaults["noValue"], ha="center")
        return
    at = 12.0
    for column in sorted(names, key=lambda name: options["indexByName"][name]):
        for number, row in enumerate(rows):
            color = _COLORS["blue"] if number == 0 else _TEXT
            _write(place, at, 46 + 20 * number, row.get(column, ""), color=color)
        at += (max(len(row.get(column, "")) for row in rows) + 3) * _CHAR


_DRAW = {"timeseries": _timeseries, "state-timeline": _timeline, "stat": _stat, "table": _table}
