"""Parts of the export of a server.

delivery   OTLP exporter wrapper that tracks whether the collector is reachable.
exporters  Factory of OpenTelemetry's OTLP exporters, configured by the standard environment variables.
providers  Tracer, meter and logger providers of this process, with their export pipelines, fork-safe.
reader     Metric reader that exports at an interval and on request.
settings   Telemetry settings of a server, loaded from the environment.
"""
