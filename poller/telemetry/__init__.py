"""The poller's own metrics, traces and logs.

export_metrics   Metrics `poller.export.*`: requests by outcome, lost data points and queue size.
log_exporter     OTLP export of the poller's own log records.
logging          Log configuration: records on stderr as text or JSON, with trace_id and span_id.
plan_changes     Log and count of changed plans, of queries whose cost is compared with a limit.
poll_log         Log records of polls: each failure once, a summary of its repeats, and its recovery.
poll_metrics     Metrics of the poller itself: polls, their durations and what was not exported, under
                 `poller.*`.
process_metrics  Metrics of the process: `poller.leader`, `poller.queue.*`, `poller.shard.*` and
                 `poller.config.*`.
span_exporter    OTLP export of the poller's own spans.
status_metrics   Gauges of a target: the status of its queries, of the target, of its server and of its
                 databases.
traces           Spans of each tick, with a child span for each of its queries.
"""
