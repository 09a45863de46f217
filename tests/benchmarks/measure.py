"""Measurements of programs on loads, in sequence."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from poller.demo.postgres import PostgresServer
from poller.otlp.request import Request
from poller.otlp.sending_queue import SendingQueue
from poller.receiver.receiver import Receiver
from tests.bed.proxy import Proxy
from tests.benchmarks import backend, idle
from tests.benchmarks.figures import cpu, cpu_of_tree, memory, threads
from tests.benchmarks.loads import Load
from tests.benchmarks.measured_programs import HOURLY, MeasuredProgram, Ours, Start, ours
from tests.benchmarks.results import Results

CPU, WALL = "CPU per poll and export (ms)", "wall per poll and export (ms)"
_LINK_SECONDS = 0.010
"""Delay of each direction: a link of 20 ms."""
_REQUESTS = 200


class Bench:
    """Measures on one standby and adds the figures to the results."""

    def __init__(
        self, standby: PostgresServer, results: Results, polls: int, warn: Callable[[str], None]
    ) -> None:
        """A figure of one round is the mean of `polls` polls; `warn` receives the problems."""
        self._standby = standby
        self._dsn = standby.dsn()
        self._results = results
        self._polls = polls
        self._warn = warn

    def costs(self, name: str, start: Start, load: Load) -> None:
        """Measure CPU of the program and of the server, start, size, and wall time of polls on request."""
        with self._running(name, start, load, self._dsn) as program:
            if program is None:
                return
            self._poll(program, 2)
            before, server = cpu(program.pid), cpu_of_tree(self._standby.pid)
            walls = self._poll(program, self._polls)
            self._add(CPU, load, name, 1e3 * (cpu(program.pid) - before) / self._polls)
            self._add(
                "server CPU per poll (ms)",
                load,
                name,
                1e3 * (cpu_of_tree(self._standby.pid) - server) / self._polls,
            )
            self._add(WALL, load, name, *(1e3 * wall for wall in walls))
            self._add("cold start to the first value (s)", load, name, program.cold_start)
            self._add("bytes of an export", load, name, program.exported)
            self._add("RSS (MB)", load, name, memory(program.pid).rss)

    def in_process(
        self, name: str, load: Load, *, protocol: str = "grpc", dsn: str = "", self_metrics: str = "query"
    ) -> None:
        """Measure wall time of the poller: the daemon's code, on request."""
        result = self._in_process(load, protocol, self._polls, dsn or self._dsn, self_metrics)
        self._add(WALL, load, name, *(1e3 * wall for wall in result["wall"]))
        self._add(
            "CPU of a poll and export without the schedule (ms)",
            load,
            name,
            *(1e3 * seconds for seconds in result["cpu"]),
        )

    def lasting(self, name: str, load: Load, early: int) -> None:
        """Measure the poller's memory after `early` polls and after 200 times as many, at full speed."""
        polls = max(200 * early, 60)
        result = self._in_process(load, "grpc", polls, self._dsn)
        (before,), (after,) = result["rss_early"], result["rss"]
        self._results.add("RSS growth after the 50th poll (MB)", f"{polls} polls", name, after - before)

    def walls(self, name: str, start: Start, load: Load) -> None:
        """Measure wall time of polls on the program's own schedule; `start` makes it report their start."""
        with self._running(name, start, load, self._dsn) as program:
            if program is not None:
                self._poll(program, 1)
                self._add(WALL, load, name, *(1e3 * wall for wall in self._poll(program, self._polls)))

    def floor(self, name: str, load: Load) -> None:
        """Measure libpq alone, with `floor`."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "queries.sql")
            file.write_text("".join(f"{_line(query.sql)}\n" for query in load.queries))
            result = _child("tests.benchmarks.floor", file, self._dsn, self._polls)
        self._add(WALL, load, name, *(1e3 * wall for wall in result["wall"]))
        self._add(CPU, load, name, *(1e3 * seconds for seconds in result["cpu"]))

    def psql(self, name: str, load: Load) -> None:
        """Measure psql with the file of all queries, including its start."""
        if (program := shutil.which("psql")) is None:
            self._skip(name, "there is no psql")
            return
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "queries.sql")
            file.write_text("".join(f"{_line(query.sql)};\n" for query in load.queries))
            wall, used = _timed([program, "-qAtX", "-f", file, self._dsn])
        self._add(WALL, load, name, 1e3 * wall)
        self._add(CPU, load, name, 1e3 * used)

    def commands(self, name: str) -> None:
        """Measure `poller --help` and `poller health` as processes."""
        for arguments in (["--help"], ["health"]):
            wall, used = _timed([sys.executable, "-m", "poller", *arguments])
            self._results.add("wall of a command (ms)", f"poller {arguments[0]}", name, 1e3 * wall)
            self._results.add("CPU of a command (ms)", f"poller {arguments[0]}", name, 1e3 * used)

    def traffic(self, name: str, start: Start, load: Load) -> None:
        """Count round trips, statements and bytes to and from the server, and connections."""
        with Proxy(self._standby.port) as proxy, ExitStack() as stack:
            proxy.record = []
            program = stack.enter_context(self._running(name, start, load, self._through(proxy)))
            if program is None:
                return
            self._poll(program, 2)
            trips, size, opened = proxy.round_trips, proxy.bytes_up + proxy.bytes_down, proxy.connections
            sent = _statements(proxy)
            self._poll(program, self._polls)
            self._add("statements per poll", load, name, (_statements(proxy) - sent) / self._polls)
            self._add("round trips per poll", load, name, (proxy.round_trips - trips) / self._polls)
            self._add(
                "bytes to and from the server per poll",
                load,
                name,
                (proxy.bytes_up + proxy.bytes_down - size) / self._polls,
            )
            self._add("connections opened, all in all", load, name, proxy.connections)
            self._add("connections opened per poll", load, name, (proxy.connections - opened) / self._polls)

    def link(self, name: str, start: Start, load: Load) -> None:
        """Measure wall time of a poll with round trips of 20 ms."""
        slow_load = replace(load, name=f"{load.name}, a link of 20 ms")
        with Proxy(self._standby.port) as proxy:
            proxy.delay_up = proxy.delay_down = _LINK_SECONDS
            if start is Ours:
                self.in_process(name, slow_load, dsn=self._through(proxy))
                return
            with self._running(name, start, slow_load, self._through(proxy)) as program:
                if program is not None:
                    self._add(
                        WALL, slow_load, name, *(1e3 * wall for wall in self._poll(program, self._polls))
                    )

    def memories(self, starts: Mapping[str, Start], load: Load, polls: int) -> None:
        """Measure memory and threads of all programs, running at the same time, after so many polls."""
        running: dict[str, MeasuredProgram] = {}
        try:
            for name, start in starts.items():
                running[name] = start(load, self._dsn)
            for number in range(polls):
                for name, program in running.items():
                    if number == 0 or not name.startswith(("ours", "sql_exporter", "sqlqueryreceiver")):
                        program.poll()
            deadline = time.monotonic() + polls
            while time.monotonic() < deadline:
                time.sleep(0.1)
            for name, program in running.items():
                usage = memory(program.pid)
                name_of_load = f"{load.name}, after {polls} polls"
                for figure, value in (("RSS", usage.rss), ("PSS", usage.pss), ("own memory", usage.own)):
                    self._results.add(f"{figure} (MB)", name_of_load, name, value)
                self._results.add("threads", name_of_load, name, threads(program.pid))
        finally:
            for program in running.values():
                program.close()

    def backend(self, name: str, queries: int, ticks: int) -> None:
        """Measure the server's CPU for a tick, with `backend`."""
        cost = backend.measured(self._dsn, queries, ticks)
        self._results.add("server CPU of a tick, connection kept (ms)", f"{queries} trivial", name, cost)

    def idle(self, name: str, seconds: float) -> None:
        """Measure CPU and wake-ups of an almost idle daemon, with `idle`."""
        results = idle.measured(self._dsn, seconds, ["grpc", "http"], traces=False)
        for protocol, figures in results.items():
            for figure, value in figures.items():
                self._results.add(f"idle, {figure}", "4 state, every 5 min", f"{name}, {protocol}", value)

    def queue(self, name: str) -> None:
        """Measure how fast the queue writes requests of a thousand points to the disk and reads them."""
        body = os.urandom(90_000)
        with tempfile.TemporaryDirectory() as folder:
            queue = SendingQueue(Path(folder), max_size=2**30, max_age=86400.0)
            began = time.monotonic()
            for _ in range(_REQUESTS):
                queue.append([Request(body, 1000)])
            stored = time.monotonic()
            while request := queue.take():
                queue.remove(request.id)
            ended = time.monotonic()
            queue.close()
        self._results.add("spool, requests of 90 kB a second", "kept", name, _REQUESTS / (stored - began))
        self._results.add("spool, requests of 90 kB a second", "taken", name, _REQUESTS / (ended - stored))

    def _in_process(
        self, load: Load, protocol: str, polls: int, dsn: str, self_metrics: str = "query"
    ) -> dict[str, list[float]]:
        with tempfile.TemporaryDirectory() as folder, Receiver(keep=1) as receiver:
            file = Path(folder, "queries.yaml")
            file.write_text(json.dumps(ours(load, HOURLY)))
            endpoint = receiver.grpc_endpoint if protocol == "grpc" else receiver.http_endpoint
            return _child(
                "tests.benchmarks.inprocess", file, dsn, endpoint, protocol, "false", polls, self_metrics
            )

    @contextmanager
    def _running(self, name: str, start: Start, load: Load, dsn: str) -> Iterator[MeasuredProgram | None]:
        """Yield the running program; if it fails to start, warn and yield None."""
        try:
            program = start(load, dsn)
        except (OSError, RuntimeError) as error:
            self._skip(f"{name}, {load.name}", str(error))
            yield None
            return
        try:
            yield program
        finally:
            program.close()

    def _through(self, proxy: Proxy) -> str:
        """Return the DSN with the proxy in place of the server, as a URL: some programs require one."""
        return self._dsn.replace(f":{self._standby.port}/", f":{proxy.port}/")

    def _poll(self, program: MeasuredProgram, times: int) -> list[float]:
        return [wall for _ in range(times) if (wall := program.poll()) is not None]

    def _add(self, figure: str, load: Load, name: str, *values: float) -> None:
        self._results.add(figure, load.name, name, *values)

    def _skip(self, figure: str, reason: str) -> None:
        if figure not in self._results.skipped:
            self._results.skipped[figure] = reason
            self._warn(f"SKIPPED: {figure}: {reason}")


def _statements(proxy: Proxy) -> int:
    """Return how many statements the clients of a recording proxy have sent.

    They are messages `Query` and `Execute` of PostgreSQL's protocol. A client's first messages have no type.
    """
    count = 0
    for sent, _ in list(proxy.record or ()):
        message, position, started = bytes(sent), 0, False
        while position + 8 <= len(message) or (started and position + 5 <= len(message)):
            kind = message[position : position + started]
            position += started
            length = int.from_bytes(message[position : position + 4])
            count += kind in (b"Q", b"E")
            started = started or message[position + 4 : position + 6] == b"\x00\x03"  # protocol 3
            position += length
    return count


def _line(sql: str) -> str:
    return " ".join(sql.split())


def _child(module: str, *arguments: object) -> dict[str, list[float]]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _timed(command: Sequence[object]) -> tuple[float, float]:
    """Return the seconds of wall time and of CPU of a command, with any exit code."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(list(map(str, command)), capture_output=True)
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
