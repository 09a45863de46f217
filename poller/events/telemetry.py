"""Configuration of a server's traces, metrics and logs from its environment."""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from opentelemetry import _logs, metrics, propagate, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from poller.events import logs
from poller.events._asgi import lifespan
from poller.events._export.settings import TelemetryError, TelemetrySettings, load
from poller.events._logging.otlp_handler import Bridge
from poller.events.libraries import Library, instrument

if TYPE_CHECKING:
    from poller.events._export.providers import Pipelines

__all__ = ["Telemetry", "TelemetryError", "configure_telemetry"]

logger = logging.getLogger(__name__)

_FORKED = 0x40
"""PF_FORKNOEXEC of Linux's include/linux/sched.h: forked, and no other program begun since."""

_POLL = 0.05
"""Seconds between two looks whether the server has ended."""


class Telemetry:
    """What is configured; the process has one."""

    def __init__(self, settings: TelemetrySettings, pipelines: Pipelines) -> None:
        self.settings = settings
        self._pipelines = pipelines
        self._ended_in: int | None = None
        self._spent = 0.0
        self._reported: list[str] = []

    def flush(self, timeout: float = 10.0) -> bool:
        """Push all there is now; returns whether all of it arrived within `timeout` seconds."""
        return not self._pipelines.flush(timeout)

    def flush_at_end(self) -> None:
        """Push all there is at the end of the application's lifespan: some servers then end without atexit.

        It and `shutdown` together take no longer than the shutdown timeout.
        """
        began = time.monotonic()
        self._report(self._pipelines.flush(self.settings.shutdown_timeout))
        self._spent = time.monotonic() - began

    def shutdown(self, timeout: float | None = None) -> bool:
        """Push all there is and end, within `timeout` seconds even where the collector is gone.

        Without one it is OBSCURA_SERVER_SHUTDOWN_TIMEOUT_SECS, or 5 s.

        Returns whether all of it arrived. At the end of the process it is called by itself; a second call
        does nothing. Logs go on to stderr.
        """
        if self._ended_in == os.getpid():
            return True
        self._ended_in = os.getpid()
        if timeout is None:
            timeout = max(0.0, self.settings.shutdown_timeout - self._spent)
        missing = self._pipelines.shutdown(timeout)
        self._report(missing)
        return not missing

    def _report(self, missing: list[str]) -> None:
        if missing and not self._reported:
            where = {"endpoint": ", ".join(sorted({str(one) for one in self.settings.targets.values()}))}
            logger.warning("not delivered at the end: %s", ", ".join(missing), extra=where)
        self._reported = missing


_configured: dict[str, Telemetry] = {}


def configure_telemetry(
    service_name: str = "obscura-server",
    *,
    service_version: str | None = None,
    instance: str | None = None,
    configure_logs: bool = True,
    libraries: Collection[Library] = (),
) -> Telemetry:
    """Set up traces, metrics and logs by OTLP where an endpoint is set, and logs alone where none is.

    Call it once, before the first request, at the top of the server's module: before a fork (gunicorn's
    `preload_app`) or after it. A second call changes nothing and returns what the first did.

    `service_name` and `service_version` stand in the resource unless OTEL_SERVICE_NAME or
    OTEL_RESOURCE_ATTRIBUTES say otherwise. `instance` is the `service.instance.id`; left out, it is random,
    so that no two processes have the same. One that is given, here or in OTEL_RESOURCE_ATTRIBUTES, gets the
    process id behind it where the process is a worker, one of several. `configure_logs=False` leaves logging
    as it is. `libraries` get spans by OpenTelemetry's instrumentation packages.

    Only W3C trace context crosses the process's border, no baggage, unless OTEL_PROPAGATORS wants it.

    Raises TelemetryError with every problem that the environment has, or where another tracer or meter
    provider was there before.
    """
    if before := _configured.get("telemetry"):
        return before
    settings = load(os.environ)
    from poller.events._export.providers import Pipelines

    if configure_logs:
        logs.configure(settings.log_format, settings.log_level)
    pipelines = Pipelines(settings, _resource(settings, service_name, service_version, instance))
    _make_global(pipelines)
    if not settings.propagators_chosen:
        propagate.set_global_textmap(TraceContextTextMapPropagator())
    if configure_logs and pipelines.logger_provider is not None:
        logs.send_also(Bridge(pipelines.logger_provider))
    instrument(libraries)
    telemetry = _configured["telemetry"] = Telemetry(settings, pipelines)
    lifespan.at_end.append(telemetry.flush_at_end)
    atexit.register(telemetry.shutdown)
    _flush_when_terminated(telemetry)
    for unsent in sorted({target.unsent for target in settings.targets.values() if target.unsent}):
        logger.warning("%s", unsent)
    if not settings.targets:
        logger.info("no OTLP endpoint is set: logs only")
    return telemetry


def _flush_when_terminated(telemetry: Telemetry) -> None:
    """Push the last of it also if SIGTERM ends the process: Python runs nothing at such an end by itself.

    A handler that is there already is left alone, except uvicorn's (0.54).
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        return
    if callable(before) and getattr(before, "__module__", None) == "uvicorn.server":
        _flush_after_uvicorn(telemetry, before)
    if before is not signal.SIG_DFL:
        return

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        telemetry.shutdown()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, end)


def _flush_after_uvicorn(telemetry: Telemetry, before: Callable[[int, FrameType | None], object]) -> None:
    """Push the last of it between the end of uvicorn's server and the SIGTERM that ends the process.

    After its last request, uvicorn restores the handler that it found, which is none if it imports the
    application itself, and sends the signal to its own thread again. That thread blocks the signal here, so
    that another thread can wait for the server's end, push, and then send the signal to the process.
    """

    ending: threading.Thread | None = None

    def chained(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        before(number, frame)
        if ending is None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})
            # Not a daemon: Python waits for it before it runs the functions of `atexit`.
            ending = threading.Thread(target=end, args=(number,), name="last telemetry")
            ending.start()

    def end(number: int) -> None:
        while signal.getsignal(number) is chained:
            time.sleep(_POLL)
        try:
            telemetry.shutdown()
        finally:
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, chained)


def _make_global(pipelines: Pipelines) -> None:
    trace.set_tracer_provider(pipelines.tracer_provider)
    if pipelines.meter_provider is not None:
        metrics.set_meter_provider(pipelines.meter_provider)
    if pipelines.logger_provider is not None:
        _logs.set_logger_provider(pipelines.logger_provider)
    ours = trace.get_tracer_provider() is pipelines.tracer_provider and pipelines.meter_provider in (
        None,
        metrics.get_meter_provider(),
    )
    if not ours:
        what = "another tracer or meter provider is set already, so that nothing would come here"
        raise TelemetryError([f"{what}; configure telemetry first, and not by opentelemetry-instrument"])


def _resource(
    settings: TelemetrySettings, name: str, version: str | None, instance: str | None
) -> dict[str, str]:
    ours = {"service.name": name} | ({"service.version": version} if version else {})
    given = {**ours, **settings.resource}
    if instance := instance or given.get("service.instance.id"):
        given["service.instance.id"] = f"{instance}.{os.getpid()}" if _is_worker() else instance
    return given


def _is_worker() -> bool:
    """Whether this process is one of several of its program, as far as it can know."""
    if multiprocessing.parent_process() is not None:
        return True  # uvicorn's, hypercorn's
    try:
        state = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
        return bool(int(state.rpartition(")")[2].split()[6]) & _FORKED)  # gunicorn's, uwsgi's
    except (OSError, ValueError, IndexError):
        return False
