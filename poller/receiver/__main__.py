"""OTLP receiver that prints one line of JSON when ready, and one for each accepted metrics request."""

from __future__ import annotations

import argparse
import base64
import dataclasses
import json
import os
import signal
import sys
import threading
from typing import Any

from poller.receiver.receiver import Received, Receiver


def main() -> None:
    """Print a line of JSON when the receiver is ready, and a line for each accepted metrics request."""
    parser = argparse.ArgumentParser(prog="python -m poller.receiver", description=__doc__)
    parser.add_argument(
        "--grpc-port", type=int, default=0, help="port for gRPC; 0 (the default) is a free one"
    )
    parser.add_argument(
        "--http-port", type=int, default=0, help="port for HTTP; 0 (the default) is a free one"
    )
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()
    lock = threading.Lock()

    def show(line: dict[str, Any]) -> None:
        with lock:
            try:
                print(json.dumps(line, default=_jsonable), flush=True)  # noqa: T201 - standard output is the product
            except BrokenPipeError:
                os._exit(0)  # the reader is gone; a normal exit would try to flush again

    def show_received(received: Received) -> None:
        if received.answer.accepts and received.signal == "metrics":
            points = [dataclasses.asdict(point) for point in received.points()]
            show({"at": received.at, "protocol": received.protocol, "points": points})

    def end_with_input() -> None:
        sys.stdin.read()
        ended.set()

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with Receiver(
        grpc_port=arguments.grpc_port, http_port=arguments.http_port, keep=1, on_request=show_received
    ) as receiver:
        show({"grpc": receiver.grpc_endpoint, "http": receiver.http_endpoint})
        if arguments.until_eof:
            threading.Thread(target=end_with_input, daemon=True).start()
        while not ended.wait(1.0):
            pass  # a signal just before the thread sleeps would not wake it


def _jsonable(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


main()
