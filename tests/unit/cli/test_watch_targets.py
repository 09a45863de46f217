"""`poller watch` lists many targets, the most urgent first, and opens one."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from poller.cli.watch_view.show import Screen
from poller.cli.watch_view.source import PollerStatus, running_poller
from poller.cli.watch_view.target_list import columns
from poller.daemon.health import clock, details_path, process_namespace
from poller.polling.target_status import TargetStatus, encode_target
from tests.unit.cli.test_watch_view import FAILED, NOW, a_status


def a_target(name: str, **fields: object) -> TargetStatus:
    values: dict[str, object] = {
        "up": True,
        "last_success": NOW - 5,
        "lag": 0.0,
        "server": "standby db:5432, 0s behind",
        "statuses": (a_status(),),
        "states": {"ok": 1},
        **fields,
    }
    return TargetStatus(name=name, **values)  # type: ignore[arg-type] # the tests pass valid values


DOWN = a_target(
    "zz-down", up=False, last_success=None, lag=None, server="", states={"failed": 1}, statuses=(FAILED,)
)
SOME = [
    a_target("eu-1"),
    a_target("eu-2", states={"ok": 3, "estimated": 1, "failed": 2, "skipped": 5}),
    DOWN,
    a_target("new", up=None, last_success=None, lag=None, states={"stale": 4}),
]


def a_poller(targets: list[TargetStatus]) -> PollerStatus:
    return PollerStatus(True, "alive: process 7", "", (), targets=targets)


def drawn(screen: Screen, targets: list[TargetStatus], width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(screen.draw(a_poller(targets), NOW, width, height))
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [80, 109, 110, 200])
def test_the_columns_fill_the_line_exactly(width: int) -> None:
    layout = columns(width)
    assert sum(column.width for column in layout.values()) + len(layout) - 1 == width
    assert ("server" in layout) == (width >= 110)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50), (60, 10), (20, 5)])
def test_a_drawing_is_never_larger_than_the_screen(width: int, height: int) -> None:
    targets = [a_target(f"平板电脑{number:03}") for number in range(100)]
    lines = drawn(Screen(), targets, width, height)
    assert len(lines) <= max(height, 6)
    assert all(cell_len(line) <= width for line in lines)


def test_the_most_urgent_targets_are_first_until_they_are_sorted_by_name() -> None:
    screen = Screen()
    lines = drawn(screen, SOME)
    assert [line.split()[0] for line in lines[3:7]] == ["zz-down", "eu-2", "new", "eu-1"]
    assert lines[4].split() == ["eu-2", "up", "4", "2", "5", "0", "5s", "0s"]
    assert lines[5].split() == ["new", "-", "0", "0", "0", "4", "-", "-"]
    assert lines[-1].startswith("4 targets: 2 up, 1 down   ")
    screen.press("s")
    assert [line.split()[0] for line in drawn(screen, SOME)[3:7]] == ["eu-1", "eu-2", "new", "zz-down"]


def test_enter_opens_the_selected_target_and_escape_goes_back() -> None:
    screen = Screen()
    drawn(screen, SOME)
    screen.press("down")
    screen.press("up")
    screen.press("enter")
    lines = drawn(screen, SOME)
    assert lines[1] == "zz-down: down"
    assert any(line.startswith("slow ") for line in lines)
    assert lines[-1].endswith("Esc goes back, q quits")
    screen.press("escape")
    assert drawn(screen, SOME)[2].startswith("TARGET ")
    screen.press("end")
    screen.press("right")
    assert drawn(screen, SOME)[1] == "eu-1: up, standby db:5432, 0s behind"
    screen.press("left")
    assert drawn(screen, SOME)[2].startswith("TARGET ")


def test_the_selected_target_stays_visible_and_selected() -> None:
    screen = Screen()
    targets = [a_target(f"t{number:03}") for number in range(100)]
    drawn(screen, targets, height=12)
    for _ in range(30):
        screen.press("down")
    lines = drawn(screen, targets, height=12)
    assert lines[-3].startswith("t030 ")
    assert lines[-1].startswith("25-31 of 100 targets")
    screen.press("enter")
    assert drawn(screen, targets)[1].startswith("t030: up")
    screen.press("escape")
    screen.press("home")
    assert drawn(screen, targets, height=12)[3].startswith("t000 ")


def test_the_list_appears_when_the_opened_target_is_removed() -> None:
    screen = Screen("eu-1")
    assert drawn(screen, SOME)[1].startswith("eu-1: up")
    assert drawn(screen, SOME[1:])[2].startswith("TARGET ")
    screen.press("down")
    assert drawn(screen, [])[3].startswith("the poller has not written")


def write_heartbeat(path: Path, targets: list[TargetStatus], **of_details: object) -> None:
    identity = {"pid": os.getpid(), "process_namespace": process_namespace()}
    beat = {**identity, "boottime": clock(), "targets": {"all": len(targets), "up": 1}, "states": {"ok": 1}}
    path.write_text(json.dumps(beat))
    encoded = [json.loads(encode_target(target)) for target in targets]
    details_path(path).write_text(json.dumps({**identity, "targets": encoded, **of_details}))


def test_the_targets_are_read_from_the_details(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.json"
    write_heartbeat(path, SOME)
    read_status = running_poller([path])
    poller = read_status()
    assert poller.good
    assert [target.name for target in poller.targets or ()] == [target.name for target in SOME]
    assert read_status().targets is poller.targets, "an unchanged file is not parsed again"


def test_details_of_another_process_and_missing_ones_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "heartbeat.json"
    write_heartbeat(path, SOME, pid=1)
    assert running_poller([path])().targets == []
    details_path(path).unlink()
    assert running_poller([path])().targets == []


@pytest.mark.parametrize("broken", ["[]", '{"pid": ', '{OWN, "targets": [3]}'])
def test_details_of_another_version_are_no_traceback(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "heartbeat.json"
    write_heartbeat(path, SOME)
    own = json.dumps({"pid": os.getpid(), "process_namespace": process_namespace()})
    details_path(path).write_text(broken.replace("OWN", own[1:-1]))
    poller = running_poller([path])()
    assert not poller.good
    assert "of another version" in poller.state
