"""Queries that `try` and `new` add to a file: names in use, and the value of POLLER_QUERIES to set."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from poller.cli.options import draft_settings
from poller.config.load_settings import load
from poller.model.errors import ConfigError
from poller.tools.draft.save import (
    DraftSettings,
    append_all,
    names_in_use,
    refuse_conflicts,
    warn_of_conflicts,
)

METRIC = {"name": "new", "description": "New things.", "unit": "{thing}", "value_column": "n"}
NEW = {"name": "new", "sql": "SELECT 1 AS n", "metrics": [METRIC]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a folder `mine`."""
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    return tmp_path


def settings(queries: str = "shipped") -> DraftSettings:
    return draft_settings(load({"POLLER_QUERIES": queries}))


def appended(file: str, queries: str = "shipped", query: Mapping[str, object] = NEW) -> list[str]:
    """Add a query and return the messages."""
    console = Console(file=io.StringIO(), width=1000)
    append_all(Path(file), [query], settings(queries), console)
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue().splitlines()


def test_names_of_the_folder_are_in_use_even_if_the_daemon_does_not_read_it(folder: Path) -> None:
    del folder
    appended("mine/a.yaml")
    with pytest.raises(ConfigError) as caught:
        refuse_conflicts(Path("mine/b.yaml"), [NEW], settings())
    assert (
        str(caught.value)
        == "--name: the query name 'new' is already used at mine/a.yaml:2; write --name new_2"
    )
    assert "new" in names_in_use(settings(), Path("mine/b.yaml"))
    assert "new" not in names_in_use(settings(), None)
    Path("odd.yaml").write_text("queries: [{name: odd, metrics: 7}, 8]")
    assert "odd" in names_in_use(settings("odd.yaml"), None)


def test_the_advice_for_a_name_in_use_is_valid_for_several_queries(folder: Path) -> None:
    del folder
    appended("mine/a.yaml")
    other = {**NEW, "name": "b", "metrics": [{**METRIC, "name": "b"}]}
    with pytest.raises(ConfigError) as caught:
        refuse_conflicts(Path("mine/b.yaml"), [other, NEW], settings())
    assert str(caught.value) == (
        "--name: the query name 'new' is already used at mine/a.yaml:2; write --name new_2, "
        "with this aggregate alone"
    )


NOT_READ = "the daemon does not read this file yet: export POLLER_QUERIES="


def test_the_necessary_value_of_poller_queries_is_printed(folder: Path) -> None:
    assert appended("mine/a.yaml") == ["added to mine/a.yaml:2", f"{NOT_READ}shipped:mine"]
    second = {**NEW, "name": "b", "metrics": [{**METRIC, "name": "b"}]}
    assert appended("mine/b.yaml", "mine", second) == ["added to mine/b.yaml:2"]
    (folder / "mine" / "other.yaml").write_text("services: {}")
    third = {**NEW, "name": "c", "metrics": [{**METRIC, "name": "c"}]}
    assert appended("mine/c.yaml", "mine/a.yaml", third)[-1] == f"{NOT_READ}mine/a.yaml:mine/c.yaml"
    assert appended("alone.yaml")[-1] == f"{NOT_READ}shipped:alone.yaml"
    assert len(appended("mine/d.yaml", "nowhere", {**NEW, "name": "d"})) == 1, "the setting is wrong"
    Path("shipped").mkdir()
    assert appended("shipped/a.yaml")[-1] == f"{NOT_READ}shipped:{folder}/shipped"


def test_conflicts_of_pasted_queries_are_printed(folder: Path) -> None:
    del folder
    appended("mine/a.yaml")
    console = Console(file=io.StringIO(), width=1000)
    clash = {**NEW, "name": "b", "metrics": [{**METRIC, "unit": "By"}]}
    warn_of_conflicts([NEW, clash], settings("mine"), console)
    warn_of_conflicts([NEW, clash], settings(), console)
    output = console.file
    assert isinstance(output, io.StringIO)
    assert output.getvalue().splitlines() == [
        "warning: --name: the query name 'new' is already used at mine/a.yaml:2; write --name new_2",
        (
            "warning: the query:7: queries[0].metrics[0].unit: differs from the unit of 'new' at "
            "mine/a.yaml:7; write the same, or rename one"
        ),
    ]
