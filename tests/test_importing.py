"""What other tools' files become: features are kept, losses told, rows accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from poller.catalog import load
from poller.errors import PollError
from poller.importing.formats import FORMATS
from poller.mapping import to_samples
from poller.replica import Replica
from poller.result import Answer
from tests.bed.imported import DEFAULTS, Case, cases, imported
from tests.bed.postgres import Site

CASES = list(cases())
RUN = [case for case in CASES if "primary" in case.sections]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_written_and_what_is_told(case: Case, folder: Path) -> None:
    """`python -m tests.bed.imported` writes both anew."""
    written, told = imported(case, folder)

    assert written == case.sections["written"]
    assert told == case.sections["told"]
    assert "s3cr3t" not in written + told
    if written:
        (folder / "written.yaml").write_text(written, encoding="utf-8")
        load([folder / "written.yaml"], DEFAULTS)


def test_every_format_has_cases_and_one_that_is_run() -> None:
    assert {case.form for case in CASES} == set(FORMATS)
    assert sorted(case.form for case in RUN) == sorted(FORMATS)


@pytest.mark.postgres
@pytest.mark.parametrize("case", RUN, ids=str)
def test_every_row_of_imported_queries_is_accounted_for(case: Case, site: Site, folder: Path) -> None:
    """On the primary and on the standby: exported, or left out or skipped with its reason."""
    if site.standby is None:
        pytest.skip("needs a streaming standby")
    written, _ = imported(case, folder)
    (folder / "written.yaml").write_text(written, encoding="utf-8")
    queries = load([folder / "written.yaml"], DEFAULTS).queries
    for role, dsn in (("primary", site.primary), ("standby", site.standby)):
        with asking(dsn) as replica:
            told = [f"{answer.query.name}: {account(answer)}" for answer in replica.ask(queries)]
        assert told == case.sections[role].splitlines()


@contextmanager
def asking(dsn: str) -> Iterator[Replica]:
    replica = Replica(lambda: dsn, connect_timeout=30.0, lock_timeout=1.0)
    try:
        yield replica
    finally:
        replica.close()


def account(answer: Answer) -> str:
    """What became of a query, and of each of its rows for each of its metrics."""
    if answer.skipped is not None:
        return f"skipped, {answer.skipped.reason}"
    if answer.error is not None:
        return f"{answer.error.kind}, {answer.error.sqlstate}"
    assert answer.rows is not None
    try:
        mapped = to_samples(answer.query, answer.rows)
    except PollError as error:
        return error.kind
    left_out = sum(mapped.quarantined.values())
    assert len(mapped.samples) + left_out == len(answer.rows.values) * len(answer.query.metrics)
    reasons = "".join(f", {count} {reason}" for reason, count in sorted(mapped.quarantined.items()))
    return f"{len(mapped.samples)} exported{reasons}"
