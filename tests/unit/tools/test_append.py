"""Insertion of a query into a file: the rest of the file is unchanged, or the whole file if it fails."""

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
from poller.config.queries.query_file import QueryFile
from poller.config.yaml_file import read
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
    """Add a query and return the new text."""
    file = folder / "q.yaml"
    file.write_bytes(text.encode())
    line = append(file, NEW, DEFAULTS)
    after = file.read_bytes().decode()
    assert after.splitlines()[line - 1].strip() == "- name: new"
    assert [query.name for query in load([file], DEFAULTS).queries][-1] == "new"
    return after


def refused(
    file: Path, query: Mapping[str, object] = NEW, others: list[QueryFile] | None = None
) -> list[str]:
    """Check that nothing is added, and return the problems."""
    before = file.read_bytes() if file.exists() else None
    with pytest.raises(ConfigError) as caught:
        append(file, query, DEFAULTS, others or [])
    assert (file.read_bytes() if file.exists() else None) == before
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []
    return [str(problem) for problem in caught.value.problems]


def test_a_missing_file_is_created(tmp_path: Path) -> None:
    file = tmp_path / "q.yaml"
    assert append(file, NEW, DEFAULTS) == 2
    assert file.read_text() == "queries:\n" + indented(ADDED, 2)


@pytest.mark.parametrize(
    ("text", "after_list"),
    [
        (OLD, ""),
        (OLD + "\n\n# the end, with a comment\n", ""),
        (OLD.removesuffix("\n"), ""),
        (OLD, "...\n"),
        (OLD, "snapshot: false\n"),
        (OLD, "\n# of what follows\nsnapshot: false # why\n"),
    ],
)
def test_comments_and_spacing_stay_and_the_query_is_last_in_the_list(
    tmp_path: Path, text: str, after_list: str
) -> None:
    after = added(tmp_path, text + after_list)
    lines = text.rstrip("\n") + "\n" * max(1, len(text) - len(text.rstrip("\n")))

    assert after == f"{lines}\n{indented(ADDED, 2)}" + (f"\n{after_list}" if after_list else "")


def test_indentation_and_blank_lines_follow_the_existing_list(tmp_path: Path) -> None:
    metrics = "{name: a, unit: s, description: x, value_column: n}"
    flat = f"queries:\n- name: a\n  sql: SELECT 1 AS n\n  metrics:\n  - {metrics}\n"
    two = flat + flat.removeprefix("queries:\n").replace("name: a", "name: b")
    assert added(tmp_path, two) == two + ADDED
    spaced = flat + "\n" + flat.removeprefix("queries:\n").replace("name: a", "name: b")
    assert added(tmp_path, spaced) == f"{spaced}\n{ADDED}"


def test_no_blank_line_follows_a_text_that_would_contain_it(tmp_path: Path) -> None:
    text = OLD.replace("SELECT 1 AS n", "SELECT 2 AS n") + "      group: |+\n        kept\n"
    assert added(tmp_path, text) == text + indented(ADDED, 2)


def test_windows_lines_and_a_byte_order_mark_stay(tmp_path: Path) -> None:
    text = "\ufeff" + OLD.replace("\n", "\r\n")
    after = added(tmp_path, text)
    assert after == text + "\r\n" + indented(ADDED, 2).replace("\n", "\r\n")


def test_anchors_and_merge_keys_stay(tmp_path: Path) -> None:
    text = (
        OLD.replace("-   name", "- &a\n      name")
        + "  - {<<: *a, name: b, metrics: [{name: b, unit: s, description: x, value_column: n}]}\n"
    )
    assert added(tmp_path, text).startswith(text)


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    real = tmp_path / "real.yaml"
    real.write_text(OLD)
    real.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(real)
    append(link, NEW, DEFAULTS)

    assert link.is_symlink()
    assert real.read_text() == f"{OLD}\n{indented(ADDED, 2)}"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_name_in_use_is_rejected_with_a_free_name(tmp_path: Path) -> None:
    file = tmp_path / "q.yaml"
    append(file, NEW, DEFAULTS)
    assert refused(file) == [f"--name: the query name 'new' is already used at {file}:2; write --name new_2"]
    append(file, {**NEW, "name": "new_2", "metrics": [{**METRIC, "name": "other"}]}, DEFAULTS)
    assert refused(file) == [f"--name: the query name 'new' is already used at {file}:2; write --name new_3"]


def test_names_of_other_files_and_metrics_of_another_meaning_are_rejected(
    tmp_path: Path,
) -> None:
    other_file = tmp_path / "other.yaml"
    append(other_file, NEW, DEFAULTS)
    file = tmp_path / "q.yaml"
    files = [QueryFile(other_file, read(other_file))]
    assert refused(file, others=files) == [
        f"--name: the query name 'new' is already used at {other_file}:2; write --name new_2"
    ]
    other = {**NEW, "name": "b", "metrics": [{**METRIC, "unit": "By"}]}
    assert refused(file, other, files) == [
        (
            f"{file}:7: queries[0].metrics[0].unit: differs from the unit of 'new' at {other_file}:7; write "
            f"the same, "
            "or rename one"
        )
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            json.dumps({"queries": [{**NEW, "name": "a"}]}),
            ("--write: the queries of FILE are not a list with one dash per query; paste the YAML by hand, "
            "or choose another file"),
        ),
        ("queries: [\n", "--write: FILE has problems; fix them first"),
        ("# \xe4\n[", "--write: FILE has problems; fix them first"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_extended_is_unchanged(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "q.yaml"
    file.write_text(text)
    assert refused(file)[0] == why.replace("FILE", str(file))


@pytest.mark.parametrize("text", ["", "\n", "# Mine.\n", "\ufeff# Mine.\r\n", "# Mine."])
def test_an_empty_file_is_filled(tmp_path: Path, text: str) -> None:
    after = added(tmp_path, text)
    assert after.startswith(text)
    assert after.replace("\r\n", "\n").endswith("queries:\n" + indented(ADDED, 2))


def test_a_file_of_cases_is_rejected(tmp_path: Path) -> None:
    assert refused(tmp_path / "q.test.yaml") == [
        (
            f"--write: {tmp_path}/q.test.yaml contains cases for `poller test`, not queries; "
            f"write {tmp_path}/q.yaml"
        )
    ]


def test_a_read_only_file_is_unchanged(tmp_path: Path) -> None:
    """This also applies to root, who could write it."""
    file = tmp_path / "q.yaml"
    file.write_text(OLD)
    file.chmod(0o444)
    assert refused(file) == [f"--write: {file} is read-only; run chmod u+w, or write another name"]


def test_problems_are_detected_before_anything_is_written(tmp_path: Path) -> None:
    file = tmp_path / "q.yaml"
    file.write_text(OLD)
    refuse(file, NEW, DEFAULTS)
    assert file.read_text() == OLD
    with pytest.raises(ConfigError, match="differs from the unit of 'a' at"):
        refuse(file, {**NEW, "metrics": [{**METRIC, "name": "a"}]}, DEFAULTS)
    file.write_text(json.dumps({"queries": [{**NEW, "name": "a"}]}))
    with pytest.raises(ConfigError, match="not a list with one dash per query"):
        refuse(file, NEW, DEFAULTS)


def test_an_unusable_path_is_reported(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "q.yaml"
    with pytest.raises(ConfigError) as caught:
        append(missing, NEW, DEFAULTS)
    assert str(caught.value) == f"--write: the folder {missing.parent} does not exist; create it first"
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"folder\.yaml is not a regular file; write another name"):
        append(folder, NEW, DEFAULTS)
    os.mkfifo(cycle := tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"pipe\.yaml is not a regular file; write another name"):
        append(cycle, NEW, DEFAULTS)
    with pytest.raises(ConfigError, match=r"q\.txt is not a query file; write a name that ends in \.yaml"):
        append(tmp_path / "q.txt", NEW, DEFAULTS)
    with pytest.raises(ConfigError, match=r"/proc/q\.yaml cannot be written: "):
        append(Path("/proc/q.yaml"), NEW, DEFAULTS)


TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n:#-{}[]'\"|>&*!%@ ~0e"), min_size=1
)


@pytest.mark.slow
@given(TEXTS)
def test_any_text_survives_a_round_trip_through_yaml(text: str) -> None:
    from poller.config.yaml_reader import parse

    query = {**NEW, "sql": text, "group": text.strip() or "x"}
    document = parse(to_file(query).encode())
    assert document.problems == []
    assert document.data == {"queries": [query]}


def test_shared_data_of_two_metrics_is_written_twice() -> None:
    shared = {"kind": ["a", "b"]}
    metrics = [{**METRIC, "name": name, "attribute_values": shared} for name in ("x", "y")]
    assert to_file({**NEW, "metrics": metrics}).count("kind: [a, b]") == 2
