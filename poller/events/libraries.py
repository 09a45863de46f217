"""Instrumentation of the database and storage libraries by OpenTelemetry's own packages."""

from __future__ import annotations

import os
from collections.abc import Collection
from importlib import import_module
from typing import Literal

from poller.events._export.settings import TelemetryError
from poller.model.text import install

Library = Literal["psycopg", "botocore"]

_INSTRUMENTORS: dict[str, str] = {"psycopg": "PsycopgInstrumentor", "botocore": "BotocoreInstrumentor"}
_STABILITY = "OTEL_SEMCONV_STABILITY_OPT_IN"


def instrument(libraries: Collection[Library]) -> None:
    """Enable spans for every call of these libraries; connections that are already open have none.

    Raises TelemetryError if a library is unknown or its instrumentation package cannot be imported.
    """
    if libraries:
        # Select the stable names (`server.address`, `db.query.text`) instead of those before semconv 1.24.
        os.environ.setdefault(_STABILITY, "http,database")
    problems = []
    for library in libraries:
        if library not in _INSTRUMENTORS:
            problems.append(f"{library!r} is not supported; write one of {', '.join(_INSTRUMENTORS)}")
            continue
        try:
            module = import_module(f"opentelemetry.instrumentation.{library}")
        except ImportError as error:
            problems.append(f"spans of {library} require an extra package ({error}): {install(library)}")
            continue
        instrumentor = getattr(module, _INSTRUMENTORS[library])()
        if not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument()
    if problems:
        raise TelemetryError(problems)
