"""Parts of the export of a server.

delivery   Hand batches to an OTLP exporter, and know whether they arrive.
endpoint   Decide where one signal goes by OTLP, and how: URL, protocol, TLS or plain text.
exporters  Build OpenTelemetry's own exporter of a signal for a target, as the standard variables want it.
providers  Collect spans, metrics and log records of this process, and push them until it ends, forks
           included.
reader     Push what the meters of a server show, every interval and when told.
settings   Everything the environment decides of a server's telemetry, read once.
"""
