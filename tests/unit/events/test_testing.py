"""The recorder for servers' tests returns recorded values, rejects misspelt names, and fails readably."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from poller.events.testing import Recorder
from tests.bed.process import ROOT

pytest_plugins = ["poller.events.fixtures"]


def test_totals_counts_and_values(event_recorder: Recorder) -> None:
    metrics = event_recorder.metrics
    for size in (10, 20):
        metrics.attachment_uploaded(size)
    metrics.message_sent("success", 3)
    metrics.message_sent("failure")
    metrics.health_checked("database", ok=False)

    assert event_recorder.total("messages_sent_total") == 4
    assert event_recorder.total("messages_sent_total", status="success") == 3
    assert event_recorder.total("attachments_upload_size_bytes") == 30
    assert event_recorder.count("attachments_upload_size_bytes") == 2
    assert event_recorder.value("health_status", component="database") == 0
    assert event_recorder.value("health_status", component="storage") is None
    event_recorder.assert_total("messages_sent_total", 1, status="failure")
    event_recorder.assert_count("attachments_upload_size_bytes", 2)
    event_recorder.assert_value("health_status", 0)


def test_a_failed_assertion_lists_the_recorded_series(event_recorder: Recorder) -> None:
    event_recorder.metrics.message_sent("failure", 2)
    event_recorder.metrics.messages_fetched(7)
    with pytest.raises(AssertionError) as failed:
        event_recorder.assert_total("messages_sent_total", 3, status="success")
    assert str(failed.value).splitlines()[0:4] == [
        "messages_sent_total{status=success} is 0 in total, not 3; recorded:",
        "  messages_sent_total{status=failure} 2",
        "  messages_sent_total{status=success} 0",
        "  messaging_fetch_batch_size{} 7 in 1",
    ]
    with pytest.raises(AssertionError, match=r"messaging_fetch_batch_size\{\} was recorded 1 times, not 2;"):
        event_recorder.assert_count("messaging_fetch_batch_size", 2)
    with pytest.raises(AssertionError, match=r"health_status\{component=storage\} is None, not 1;"):
        event_recorder.assert_value("health_status", 1, component="storage")


@pytest.mark.parametrize(
    ("metric", "attributes", "message"),
    [
        ("message_sent_total", {}, "has no metric 'message_sent_total'; did you mean 'messages_sent_total'?"),
        ("messages_sent_total", {"outcome": "success"}, "has no attribute 'outcome'; write one of status"),
        (
            "messages_sent_total",
            {"status": "sucess"},
            "'sucess' is not a value of status of messages_sent_total; did you mean 'success'?",
        ),
        ("users_registered_total", {"status": "x"}, "has no attribute 'status'; there are none"),
    ],
)
def test_a_misspelt_name_or_value_raises_an_error(
    event_recorder: Recorder, metric: str, attributes: dict[str, str], message: str
) -> None:
    for ask in (event_recorder.total, event_recorder.value):
        with pytest.raises(LookupError) as refused:
            ask(metric, **attributes)
        assert message in str(refused.value)


def test_a_method_that_does_not_fit_the_metric_raises_an_error(event_recorder: Recorder) -> None:
    with pytest.raises(LookupError, match="messages_sent_total is a counter, not a histogram"):
        event_recorder.count("messages_sent_total")
    with pytest.raises(LookupError, match="2 series match; write more attributes"):
        event_recorder.value("messages_sent_total")


def test_under_a_namespace_and_in_the_other_generation() -> None:
    recorder = Recorder("acme", "v0.9.4")
    recorder.metrics.logged_in()
    recorder.assert_total("acme_logins_total", 1)
    with pytest.raises(LookupError, match="did you mean 'acme_logins_total'"):
        recorder.total("obscura_logins_total")
    recorder.close()


def test_the_fixture_fails_a_test_that_recorded_an_undeclared_value(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["poller.events.fixtures"]\n', encoding="utf-8")
    (tmp_path / "test_a_server.py").write_text(
        "def test_right(event_recorder):\n"
        "    event_recorder.metrics.message_sent()\n"
        "    event_recorder.assert_total('messages_sent_total', 1)\n"
        "def test_wrong(event_recorder):\n"
        "    event_recorder.metrics.message_sent('sucess')\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""}
    )
    assert done.returncode == 1
    assert "2 passed, 1 error" in done.stdout
    assert "messages_sent_total{status=_OTHER} 1" in done.stdout
