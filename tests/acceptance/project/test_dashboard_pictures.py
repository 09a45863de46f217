"""The pictures of the dashboards show what their expressions give for a recorded day of a real poller.

`pytest --update` draws them again, and `python -m tests.bed.recording` records the day again. The test
compares the texts, and the coordinates with a tolerance of a point: versions of matplotlib differ in markup,
and versions of Prometheus in the last digits of a value.
"""

from __future__ import annotations

import json
import lzma
import re
from pathlib import Path

import pytest

from tests.bed.process import ROOT
from tests.bed.programs import need
from tests.bed.prometheus import Prometheus
from tests.bed.recording import END, FILE, unpacked

GRAFANA, IMAGES = ROOT / "deploy" / "grafana", ROOT / "docs" / "images"


@pytest.mark.timeout(400)
def test_the_pictures_show_the_dashboards(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Every panel has data."""
    from tests.bed.dashboards import Board  # loads matplotlib, which every run of any test would wait for

    need("prometheus", "prometheus")
    samples = unpacked(lzma.decompress(FILE.read_bytes()).decode())
    with Prometheus(tmp_path, samples, END) as prometheus:
        drawn = {
            IMAGES / f"dashboard-{file.stem}.svg": Board(
                json.loads(file.read_text(encoding="utf-8")), prometheus, hours=24
            ).draw()
            for file in sorted(GRAFANA.glob("*.json"))
        }
    for picture, (svg, empty) in drawn.items():
        if request.config.getoption("update"):
            picture.write_text(svg, encoding="utf-8")
        stored = picture.read_text(encoding="utf-8")
        assert empty == []
        assert texts(svg) == texts(stored)
        assert coordinates(svg) == pytest.approx(coordinates(stored), abs=1)


def texts(svg: str) -> list[str]:
    """Titles, values, legends and labels, in order."""
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg)


def coordinates(svg: str) -> list[float]:
    """Coordinates of all lines and areas, in order."""
    paths = " ".join(re.findall(r' d="([^"]*)"', svg))
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", paths)]
