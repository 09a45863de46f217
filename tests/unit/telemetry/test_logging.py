"""The log: one line per record with every extra field, and with trace and span if there are any."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import poller.events.logs
from poller.model import redaction
from poller.model.log_format import JsonFormatter, RecordReader, TextFormatter
from poller.telemetry import log_exporter
from poller.telemetry import logging as logs


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def written(form: Any, *arguments: Any, level: str = "info", **keywords: Any) -> str:
    stream = io.StringIO()
    logs.configure(form, level, stream)
    logging.getLogger("poller.test").warning(*arguments, **keywords)
    return stream.getvalue()


def test_a_json_line_has_its_fields_and_every_extra() -> None:
    line = json.loads(
        written("json", "query %s failed", "users", extra={"error.type": "timeout", "queries": 3})
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "severity": "WARNING",
        "logger": "poller.test",
        "message": "query users failed",
        "trace_id": "",
        "span_id": "",
        "error.type": "timeout",
        "queries": 3,
    }


def test_a_text_line_has_every_extra_quoted_where_it_must_be() -> None:
    extra = {"query": "users", "hint": 'say "please"', "empty": ""}
    text = written("text", "failed", extra=extra)
    assert text.endswith(' WARNING poller.test: failed query=users hint="say \\"please\\"" empty=""\n')


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_message_of_several_lines_becomes_a_single_line(form: str) -> None:
    assert written(form, "ERROR: no such column\nLINE 1: select x", extra={"at": "a\nb"}).count("\n") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_message_cannot_control_the_terminal(form: str) -> None:
    assert "\x1b" not in written(form, "ERROR: \x1b[2J gone", extra={"hint": "\x1b[2J"})


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_line_within_a_span_has_its_ids(form: str) -> None:
    context = SpanContext(0xAB, 0xCD, is_remote=False, trace_flags=TraceFlags(1))
    with trace.use_span(NonRecordingSpan(context)):
        text = written(form, "inside")
    if form == "json":
        line = json.loads(text)
        assert (line["trace_id"], line["span_id"]) == ("ab".zfill(32), "cd".zfill(16))
    else:
        assert f"trace_id={'ab'.zfill(32)} span_id={'cd'.zfill(16)}" in text


def test_an_extra_never_replaces_a_field_and_is_always_valid_json() -> None:
    extra = {"severity": "mine", "age": float("nan"), "at": {1}, "rows": {("a", 1): float("inf")}, "n": 0.5}
    line = json.loads(written("json", "m", extra=extra), parse_constant=pytest.fail)
    assert line["severity"] == "WARNING"
    assert line["severity_"] == "mine"
    assert line["age"] == "nan"
    assert line["at"] == "{1}"
    assert line["rows"] == "{('a', 1): inf}"
    assert line["n"] == 0.5


def test_an_exception_is_written_in_both_formats() -> None:
    def fail(form: str) -> str:
        try:
            return str(int("gone"))
        except ValueError:
            return written(form, "failed", exc_info=True)

    assert (
        "ValueError: invalid literal for int() with base 10: 'gone'" in json.loads(fail("json"))["exception"]
    )
    assert fail("text").splitlines()[-1] == "    ValueError: invalid literal for int() with base 10: 'gone'"


def test_records_of_libraries_are_written_from_level_warning() -> None:
    stream = io.StringIO()
    logs.configure("text", "debug", stream)
    for name in ("apscheduler.executors.default", "urllib3.connectionpool", "opentelemetry.sdk"):
        logging.getLogger(name).info("chatter")
    logging.getLogger("poller.x").debug("ours")
    assert [line.split(": ")[1] for line in stream.getvalue().splitlines()] == ["ours"]


def test_python_s_warnings_become_records() -> None:
    stream = io.StringIO()
    logs.configure("json", "info", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old thing", UserWarning, stacklevel=1)
    assert "old thing" in json.loads(stream.getvalue())["message"]


def test_configuring_twice_writes_each_record_once() -> None:
    written("text", "first")
    assert written("text", "second").count("second") == 1


def test_logging_imports_no_tracing() -> None:
    code = (
        "import sys, logging; from poller.telemetry import logging as logs; logs.configure('json'); "
        "logging.getLogger('x').warning('y'); "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_colour_is_only_used_on_terminals_and_can_be_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def on_terminal() -> str:
        stream = Terminal()
        logs.configure("text", "info", stream)
        logging.getLogger("poller.test").warning("x")
        return stream.getvalue()

    assert "\x1b[" in on_terminal()
    assert "\x1b[" not in written("text", "x")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in on_terminal()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_record_whose_arguments_do_not_fit_is_written_without_them(form: Any) -> None:
    stream = io.StringIO()
    logs.configure(form, "info", stream)
    logging.getLogger("lib").warning("%d of %d", *["hunter2"])
    assert "%d of %d (its arguments do not fit: TypeError)" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_a_record_that_cannot_be_written_is_reported_without_its_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            if "hunter2" in text:
                raise RuntimeError
            return super().write(text)

    stream = Broken()
    logs.configure("text", "info", stream)
    logging.getLogger("lib").warning("hunter2")
    assert stream.getvalue() == "a record of logger lib could not be written: RuntimeError\n"
    assert capsys.readouterr() == ("", "")


def searched(work: Callable[[], object]) -> int:
    """Return the number of characters in which `work` searches for secrets."""
    count = 0

    def observe(frame: FrameType, event: str, _: object) -> None:
        nonlocal count
        code = frame.f_code
        if event == "call" and (code.co_filename, code.co_name) == (redaction.__file__, "mask"):
            count += len(frame.f_locals["text"])

    before = sys.getprofile()
    sys.setprofile(observe)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("form", ["text", "json", "filter", "otlp"])
def test_masking_a_long_record_takes_no_more_work_than_its_beginning(form: str) -> None:
    forms: dict[str, Callable[[logging.LogRecord], object]] = {
        "text": TextFormatter(logs.READER).format,
        "json": JsonFormatter(logs.READER).format,
        "filter": redaction.Redaction().filter,
        "otlp": log_exporter._otel_record,  # noqa: SLF001
    }

    def work(size: int) -> None:
        text = "x " * size
        error = ValueError(text)
        exc_info = (ValueError, error, None)
        record = logging.LogRecord("lib", logging.INFO, "", 0, "%s", (text,), exc_info, sinfo=text)
        record.__dict__ |= {"hint": text, "rows": [text, {text: text}]}
        forms[form](record)

    few, many, most = (searched(partial(work, redaction.LONGEST_BEGINNING * times)) for times in (1, 4, 16))
    assert 0 < few == many == most <= 6 * redaction.LONGEST_BEGINNING


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_secret_that_crosses_the_cut_of_a_log_line_leaves_nothing(form: Any) -> None:
    redaction.learn("SESAME-short", "SESAME-short-and-long")
    text = (
        "SESAME-short-and-long SESAME-short " + "x" * (redaction.LONGEST_BEGINNING - 40) + "SESAME-short-and-"
    )
    line = written(form, "%s", text + "y" * 100_000, extra={"hint": text + "long" + "y" * 100_000})
    assert "*** *** xxx" in line
    assert "SESAME" not in line
    assert "long" not in line
    assert len(line) < 2 * redaction.LONGEST_BEGINNING
    assert f"xxx... ({len(text) + 100_000} characters)" in line


class Hostile:
    def __str__(self) -> str:
        raise OverflowError("no text")


def nested(levels: int) -> object:
    value: list[object] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("reader", [logs.READER, poller.events.logs.READER], ids=["daemon", "events"])
@pytest.mark.parametrize("formatter", [JsonFormatter, TextFormatter])
@pytest.mark.parametrize(
    "value",
    [10**5000, -(10**5000), Hostile(), nested(100_000), {Hostile(): 1}, {"n": 10**5000}, float("nan")],
    ids=["huge", "negative", "raises", "nested", "key", "inner", "nan"],
)
def test_a_value_without_a_text_loses_no_record(
    reader: RecordReader, formatter: type[JsonFormatter] | type[TextFormatter], value: object
) -> None:
    record = logging.makeLogRecord({"msg": "hello", "levelname": "INFO", "strange": value, "good": 1})

    line = formatter(reader).format(record)

    assert "hello" in line
    assert '"good": 1' in line or "good=1" in line


@pytest.mark.parametrize("reader", [logs.READER, poller.events.logs.READER], ids=["daemon", "events"])
@pytest.mark.parametrize("parts", [{"msg": Hostile()}, {"msg": "%s", "args": (Hostile(),)}])
def test_a_message_without_a_text_loses_no_record(reader: RecordReader, parts: dict[str, object]) -> None:
    record = logging.makeLogRecord({**parts, "levelname": "INFO"})

    assert "its arguments do not fit: OverflowError" in TextFormatter(reader).format(record)
