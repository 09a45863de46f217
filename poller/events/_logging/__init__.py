"""Parts of the log records of a server.

otlp_handler  Log handler that exports records over OTLP.
records       Log record factory and filters that add the current span and scrub personal data.
"""
