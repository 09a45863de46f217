"""Parts of the log records of a server.

otlp_handler  Carry the standard library's log records over to OpenTelemetry's.
records       Give every log record the span that it belongs to, and take out of it what must not be logged.
"""
