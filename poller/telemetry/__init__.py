"""The poller's own metrics, traces and logs.

discovery_metrics  Gauges `poller.discovery.*`: the databases of one server by state.
export_metrics     Metrics `poller.export.*`: requests by outcome, lost data points and queue size.
log_exporter       OTLP export of the poller's own log records.
logging            Log configuration: records on stderr as text or JSON, with trace_id and span_id.
plan_changes       Log and count of changed plans, of queries whose cost is compared with a limit.
poll_log           Log records of polls: each failure once, a summary of its repeats, and its recovery.
poll_metrics       Metrics of the poller itself: polls, their durations and what was not exported, under
                   `poller.*`.
process_metrics    Metrics of the process: `poller.leader`, `poller.queue.*`, `poller.shard.*` and
                   `poller.config.*`.
query_metrics      Gauges `poller.query.*`: the status of every query.
replica_metrics    Gauges of the polled server: role, timeline, replay lag and age of its data.
span_exporter      OTLP export of the poller's own spans.
target_metrics     Gauges `poller.target.*`: the status of one target.
traces             Spans of each tick, with a child span for each of its queries.
"""
