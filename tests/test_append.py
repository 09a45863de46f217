"""A query is put into a file without a change to anything that is there, or the file stays as it was."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.config.queries.load import load
from poller.config.queries.query_file import QueryFile, read
from poller.model.catalog import Defaults
from poller.model.errors import ConfigError
from poller.tools.draft.append import append, refuse
from poller.tools.draft.yaml_writer import to_file

DEFAULTS = Defaults(300.0, 30.0, 1000)
METRIC = {"name": "new", "description": "New things.", "unit": "{thing}", "value_column": "n"}
NEW = {"name": "new", "sql": "SELECT 1 AS n", "metrics": [METRIC]}
ADDED = """\
- name: new
  sql: SELECT 1 AS n
  metrics:
    - name: new
      description: New things.
      unit: "{thing}"
      value_column: n
"""

OLD = """\
# What I wrote, as I like it.
queries:
  -   name:   a      # odd
      sql: "SELECT 1 AS n"
      metrics: [{name: a, unit: "{x}", description: 'x', value_column: n}]
"""


def indented(text: str, blanks: int) -> str:
    return "".join(" " * blanks + line for line in text.splitlines(keepends=True))


def added(folder: Path, text: str) -> str:
    """The file after one more query."""
    file = folder / "q.yaml"
    file.write_bytes(text.encode())
    line = append(file, NEW, DEFAULTS)
    after = file.read_bytes().decode()
    assert after.splitlines()[line - 1].strip() == "- name: new"
    assert [one.name for one in load([file], DEFAULTS).queries][-1] == "new"
    return after


def refused(
    file: Path, query: Mapping[str, object] = NEW, beside: list[QueryFile] | None = None
) -> list[str]:
    """Why nothing was added."""
    before = file.read_bytes() if file.exists() else None
    with pytest.raises(ConfigError) as caught:
        append(file, query, DEFAULTS, beside or [])
    assert (file.read_bytes() if file.exists() else None) == before
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []
    return [str(problem) for problem in caught.value.problems]


def test_a_file_that_is_missing_is_made(tmp_path: Path) -> None:
    file = tmp_path / "q.yaml"
    assert append(file, NEW, DEFAULTS) == 2
    assert file.read_text() == "queries:\n" + indented(ADDED, 2)


@pytest.mark.parametrize(
    ("text", "behind"),
    [
        (OLD, ""),
        (OLD + "\n\n# the end, with a comment\n", ""),
        (OLD.removesuffix("\n"), ""),
        (OLD, "...\n"),
        (OLD, "snapshot: false\n"),
        (OLD, "\n# of what follows\nsnapshot: false # why\n"),
    ],
)
def test_comments_and_spacing_stay_and_the_query_stands_at_the_end_of_the_list(
    tmp_path: Path, text: str, behind: str
) -> None:
    after = added(tmp_path, text + behind)
    lines = text.rstrip("\n") + "\n" * max(1, len(text) - len(text.rstrip("\n")))

    assert after == f"{lines}\n{indented(ADDED, 2)}" + (f"\n{behind}" if behind else "")


def test_a_list_that_is_not_indented_or_has_no_blank_lines_goes_on_so(tmp_path: Path) -> None:
    metrics = "{name: a, unit: s, description: x, value_column: n}"
    flat = f"queries:\n- name: a\n  sql: SELECT 1 AS n\n  metrics:\n  - {metrics}\n"
    two = flat + flat.removeprefix("queries:\n").replace("name: a", "name: b")
    assert added(tmp_path, two) == two + ADDED
    spaced = flat + "\n" + flat.removeprefix("queries:\n").replace("name: a", "name: b")
    assert added(tmp_path, spaced) == f"{spaced}\n{ADDED}"


def test_a_text_that_keeps_its_blank_lines_gets_none(tmp_path: Path) -> None:
    text = OLD.replace("SELECT 1 AS n", "SELECT 2 AS n") + "      group: |+\n        kept\n"
    assert added(tmp_path, text) == text + indented(ADDED, 2)


def test_windows_lines_and_a_byte_order_mark_stay(tmp_path: Path) -> None:
    text = "\ufeff" + OLD.replace("\n", "\r\n")
    after = added(tmp_path, text)
    assert after == text + "\r\n" + indented(ADDED, 2).replace("\n", "\r\n")


def test_anchors_and_merge_keys_stay_what_they_are(tmp_path: Path) -> None:
    text = (
        OLD.replace("-   name", "- &a\n      name")
        + "  - {<<: *a, name: b, metrics: [{name: b, unit: s, description: x, value_column: n}]}\n"
    )
    assert added(tmp_path, text).startswith(text)


def test_rights_and_links_stay(tmp_path: Path) -> None:
    real = tmp_path / "real.yaml"
    real.write_text(OLD)
    real.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(real)
    append(link, NEW, DEFAULTS)

    assert link.is_symlink()
    assert real.read_text() == f"{OLD}\n{indented(ADDED, 2)}"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_name_that_is_taken_is_refused_with_one_that_is_free(tmp_path: Path) -> None:
    file = tmp_path / "q.yaml"
    append(file, NEW, DEFAULTS)
    assert refused(file) == [f"--name: 'new' is also the query at {file}:2; write --name new_2"]
    append(file, {**NEW, "name": "new_2", "metrics": [{**METRIC, "name": "other"}]}, DEFAULTS)
    assert refused(file) == [f"--name: 'new' is also the query at {file}:2; write --name new_3"]


def test_a_name_of_a_file_beside_it_is_taken_too_and_so_is_a_metric_of_another_meaning(
    tmp_path: Path,
) -> None:
    beside = tmp_path / "beside.yaml"
    append(beside, NEW, DEFAULTS)
    file = tmp_path / "q.yaml"
    files = [QueryFile(0, beside, read(beside))]
    assert refused(file, beside=files) == [
        f"--name: 'new' is also the query at {beside}:2; write --name new_2"
    ]
    other = {**NEW, "name": "b", "metrics": [{**METRIC, "unit": "By"}]}
    assert refused(file, other, files) == [
        (
            f"{file}:7: queries[0].metrics[0].unit: differs from the unit of 'new' at {beside}:7; write "
            f"the same, "
            "or rename one"
        )
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            json.dumps({"queries": [{**NEW, "name": "a"}]}),
            ("--write: the queries of FILE are no list with a dash before each; paste the YAML by hand, or "
            "choose another file"),
        ),
        ("queries: [\n", "--write: FILE has problems; mend them first"),
        ("# \xe4\n[", "--write: FILE has problems; mend them first"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_added_to_stays_as_it_is(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "q.yaml"
    file.write_text(text)
    assert refused(file)[0] == why.replace("FILE", str(file))


@pytest.mark.parametrize("text", ["", "\n", "# Mine.\n", "\ufeff# Mine.\r\n", "# Mine."])
def test_a_file_that_says_nothing_yet_is_filled(tmp_path: Path, text: str) -> None:
    after = added(tmp_path, text)
    assert after.startswith(text)
    assert after.replace("\r\n", "\n").endswith("queries:\n" + indented(ADDED, 2))


def test_a_file_of_cases_is_refused_as_no_poll_reads_it(tmp_path: Path) -> None:
    assert refused(tmp_path / "q.test.yaml") == [
        (
            f"--write: {tmp_path}/q.test.yaml holds cases for `poller test`, which no poll reads; "
            f"write {tmp_path}/q.yaml"
        )
    ]


def test_a_file_that_nobody_may_write_stays_as_it_is(tmp_path: Path) -> None:
    """For root too, who could."""
    file = tmp_path / "q.yaml"
    file.write_text(OLD)
    file.chmod(0o444)
    assert refused(file) == [f"--write: {file} is read-only; chmod u+w it, or write another name"]


def test_all_that_would_be_refused_is_known_before_anything_is_written(tmp_path: Path) -> None:
    file = tmp_path / "q.yaml"
    file.write_text(OLD)
    refuse(file, NEW, DEFAULTS)
    assert file.read_text() == OLD
    with pytest.raises(ConfigError, match="differs from the unit of 'a' at"):
        refuse(file, {**NEW, "metrics": [{**METRIC, "name": "a"}]}, DEFAULTS)
    file.write_text(json.dumps({"queries": [{**NEW, "name": "a"}]}))
    with pytest.raises(ConfigError, match="no list with a dash before each"):
        refuse(file, NEW, DEFAULTS)


def test_a_place_where_nothing_can_be_written_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "q.yaml"
    with pytest.raises(ConfigError) as caught:
        append(missing, NEW, DEFAULTS)
    assert str(caught.value) == f"--write: the folder {missing.parent} does not exist; make it first"
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"folder\.yaml is no regular file; write another name"):
        append(folder, NEW, DEFAULTS)
    os.mkfifo(cycle := tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"pipe\.yaml is no regular file; write another name"):
        append(cycle, NEW, DEFAULTS)
    with pytest.raises(ConfigError, match=r"q\.txt is no query file; write a name that ends in \.yaml"):
        append(tmp_path / "q.txt", NEW, DEFAULTS)
    with pytest.raises(ConfigError, match=r"/proc/q\.yaml cannot be written: "):
        append(Path("/proc/q.yaml"), NEW, DEFAULTS)


TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n:#-{}[]'\"|>&*!%@ ~0e"), min_size=1
)


@given(TEXTS)
def test_any_text_comes_back_from_the_yaml_as_it_went_in(text: str) -> None:
    from poller.config.queries.yaml_reader import parse

    query = {**NEW, "sql": text, "group": text.strip() or "x"}
    document = parse(to_file(query).encode())
    assert document.flaws == []
    assert document.data == {"queries": [query]}


def test_what_two_metrics_share_is_written_twice_as_people_do() -> None:
    shared = {"kind": ["a", "b"]}
    metrics = [{**METRIC, "name": name, "attribute_values": shared} for name in ("x", "y")]
    assert to_file({**NEW, "metrics": metrics}).count("kind: [a, b]") == 2
