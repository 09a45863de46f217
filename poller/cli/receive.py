"""Command `receive`: an OTLP receiver that prints what it accepts."""

from __future__ import annotations

import fnmatch
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from poller.cli.options import GrpcPort, HttpPort, ListenAddress, Listening, port_in_use, seconds_to_listen
from poller.daemon.signals import StopSignal
from poller.model.printable import one_line
from poller.model.text import value_text

if TYPE_CHECKING:
    from poller.receiver.decode import Distribution, LogRecord, Point, Span
    from poller.receiver.receiver import Received

_LONGEST_LINE = 2_000
"""Maximum number of characters of a printed line; a sender chooses names, attributes and texts."""


def receive(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of metrics and spans to print, such as 'orders*' (default: all)."),
    ] = None,
    duration: Listening = None,
    host: ListenAddress = "127.0.0.1",
    grpc_port: GrpcPort = 4317,
    http_port: HttpPort = 4318,
) -> None:
    """Receive OTLP and print every data point, span and log record, one line for each.

    As soon as several instances send data, such as the targets of a poller, each line has the name of its
    instance (`service.instance.id`).

    It replaces a collector in tests: it accepts everything, stores nothing and has no authentication. Exit
    code 0: it printed something; 1: it did not; 2: a port is in use.
    """
    from poller.receiver.receiver import Receiver

    seconds = seconds_to_listen(duration)
    stop = StopSignal()
    printed = threading.Event()
    lock = threading.Lock()
    instances = _Instances()

    def show(received: Received) -> None:
        texts = list(_texts(received, names or ["*"]))
        if not texts:
            return
        printed.set()
        at = time.strftime("%H:%M:%S", time.localtime(received.at))
        with lock:
            lines = "".join(f"{at} {one_line(text)[:_LONGEST_LINE]}\n" for text in instances.named(texts))
            try:
                sys.stdout.write(lines)
                sys.stdout.flush()
            except BrokenPipeError:
                os._exit(0)  # the reader is gone; a normal exit would try to flush again

    try:
        receiver = Receiver(host=host, grpc_port=grpc_port, http_port=http_port, keep=1, on_request=show)
    except OSError as error:
        raise port_in_use("poller receive", error) from None
    with receiver:
        until = f"for {duration}" if duration else "until Ctrl-C"
        typer.echo(
            f"receiving: grpc {receiver.grpc_endpoint}, http {receiver.http_endpoint}, {until}", err=True
        )
        stop.wait(seconds)
    raise typer.Exit(0 if printed.is_set() else 1)


class _Instances:
    """Names of the instances that send data, which are printed if there are several."""

    def __init__(self) -> None:
        self._first: str | None = None
        self._several = False

    def named(self, texts: Sequence[tuple[Mapping[str, object], str]]) -> list[str]:
        """Return the texts, each with the name of its resource from the second instance on."""
        names = [str(of.get("service.instance.id") or of.get("service.name") or "-") for of, _ in texts]
        for name in names:
            self._first = name if self._first is None else self._first
            self._several |= name != self._first
        if not self._several:
            return [text for _, text in texts]
        return [f"{name}: {text}" for name, (_, text) in zip(names, texts, strict=True)]


def _texts(received: Received, patterns: list[str]) -> Iterator[tuple[Mapping[str, object], str]]:
    """Return the resource and the text of each selected item."""

    def selected(name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    yield from ((point.resource, _point(point)) for point in received.points() if selected(point.metric))
    yield from ((span.resource, _span(span)) for span in received.spans() if selected(span.name))
    if "*" in patterns:
        yield from ((record.resource, _record(record)) for record in received.records())


def _point(point: Point) -> str:
    value = "no value" if point.value is None else point.value
    if not isinstance(value, int | float | str):
        value = _distribution(value)
    return f"metric {point.metric}{_labels(point.attributes)} {value} {point.unit}".rstrip()


def _distribution(value: Distribution) -> str:
    return f"count {value.count}" + ("" if value.sum is None else f", sum {value.sum:g}")


def _span(span: Span) -> str:
    milliseconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
    return f"span {span.name}{_labels(span.attributes)} {milliseconds:.1f} ms, trace {span.trace_id}"


def _record(record: LogRecord) -> str:
    parts = ("log", record.severity_text, str(record.body), _labels(record.attributes))
    trace = f", trace {record.trace_id}" if record.trace_id else ""
    return " ".join(filter(None, parts)) + trace


def _labels(attributes: Mapping[str, object]) -> str:
    pairs = (f"{name}={value_text(value)}" for name, value in attributes.items())
    return "{" + ", ".join(pairs) + "}" if attributes else ""
