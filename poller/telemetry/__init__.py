"""The poller's own metrics, traces and logs.

export_metrics   Show what becomes of the exports: requests by outcome, what was lost, what waits.
log_exporter     Export the poller's own log records over OTLP.
logging          Records to stderr as text or JSON, with trace_id and span_id.
poll_log         Say in the log what changed: a failure once, its repeats summed up, its end announced.
poll_metrics     Metrics of the poller itself: polls, their durations and what was not exported, under
                 `poller.*`.
query_metrics    Gauges `poller.query.*`: the status of every query.
replica_metrics  Show OpenTelemetry the server that is polled.
span_exporter    Export the poller's own spans over OTLP.
traces           Tell each tick as a span, with a child for each of its queries.
"""
