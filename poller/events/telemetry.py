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
"""PF_FORKNOEXEC of Linux's include/linux/sched.h: the process was forked and has not called exec since."""

_POLL = 0.05
"""Seconds between two checks whether the server has ended."""


class Telemetry:
    """Telemetry configuration of the process; there is one instance."""

    def __init__(self, settings: TelemetrySettings, pipelines: Pipelines) -> None:
        self.settings = settings
        self._pipelines = pipelines
        self._ended_in: int | None = None
        self._spent = 0.0
        self._reported: list[str] = []

    def flush(self, timeout: float = 10.0) -> bool:
        """Export all pending telemetry; return whether all of it was delivered within `timeout` seconds."""
        return not self._pipelines.flush(timeout)

    def flush_at_end(self) -> None:
        """Export pending telemetry at the end of the ASGI lifespan.

        Some servers do not run atexit functions after it. Together with `shutdown` it takes no longer
        than the shutdown timeout.
        """
        began = time.monotonic()
        self._report(self._pipelines.flush(self.settings.shutdown_timeout))
        self._spent = time.monotonic() - began

    def shutdown(self, timeout: float | None = None) -> bool:
        """Export pending telemetry and stop, within `timeout` seconds even if the collector is down.

        The default timeout is OBSCURA_SERVER_SHUTDOWN_TIMEOUT_SECS, or 5 s.

        Returns whether all of it was delivered. It runs automatically when the process exits; a second call
        does nothing. Logs are still written to stderr.
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
            where = {
                "endpoint": ", ".join(sorted({str(target) for target in self.settings.targets.values()}))
            }
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
    """Set up traces, metrics and logs over OTLP if an endpoint is set, otherwise logs to stderr only.

    Call it once, before the first request, at the top of the server's module: before a fork (gunicorn's
    `preload_app`) or after it. A second call changes nothing and returns the first result.

    The resource contains `service_name` and `service_version` unless OTEL_SERVICE_NAME or
    OTEL_RESOURCE_ATTRIBUTES override them. `instance` is the `service.instance.id`. The default is a random
    value, so that no two processes share it. In a worker process, the process id is appended to an explicit
    value from here or from OTEL_RESOURCE_ATTRIBUTES. `configure_logs=False` does not change logging.
    `libraries` get spans from OpenTelemetry's instrumentation packages.

    Only the W3C trace context is propagated between processes, without baggage, unless OTEL_PROPAGATORS is
    set.

    Raises TelemetryError with every problem in the environment, or if another tracer or meter provider is
    already set.
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
    for warning in settings.warnings:
        logger.warning("%s", warning)
    if not settings.targets:
        logger.info("no OTLP endpoint is set: logs only")
    return telemetry


def _flush_when_terminated(telemetry: Telemetry) -> None:
    """Export pending telemetry if SIGTERM ends the process, because Python then runs no exit functions.

    An existing handler is kept, except uvicorn's (0.54).
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
    """Export pending telemetry between the end of uvicorn's server and the SIGTERM that ends the process.

    After its last request, uvicorn restores the previous handler, which is the default one if uvicorn imports
    the application itself, and sends the signal to its own thread again. That thread blocks the signal here,
    so that another thread can wait for the server's end, export, and then send the signal to the process.
    """

    ending: threading.Thread | None = None

    def chained(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        before(number, frame)
        if ending is None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})
            # Not a daemon thread: Python waits for it before it runs the functions of `atexit`.
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
    is_global = trace.get_tracer_provider() is pipelines.tracer_provider and pipelines.meter_provider in (
        None,
        metrics.get_meter_provider(),
    )
    if not is_global:
        problem = "another tracer or meter provider is already set"
        advice = "call configure_telemetry first, and do not use opentelemetry-instrument"
        raise TelemetryError([f"{problem}; {advice}"])


def _resource(
    settings: TelemetrySettings, name: str, version: str | None, instance: str | None
) -> dict[str, str]:
    defaults = {"service.name": name} | ({"service.version": version} if version else {})
    attributes = {**defaults, **settings.resource}
    if instance := instance or attributes.get("service.instance.id"):
        attributes["service.instance.id"] = f"{instance}.{os.getpid()}" if _is_worker() else instance
    return attributes


def _is_worker() -> bool:
    """Return whether this process appears to be one of several workers of its program."""
    if multiprocessing.parent_process() is not None:
        return True  # started by uvicorn or hypercorn
    try:
        state = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
        return bool(int(state.rpartition(")")[2].split()[6]) & _FORKED)  # forked by gunicorn or uwsgi
    except (OSError, ValueError, IndexError):
        return False
