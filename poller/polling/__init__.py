"""Samples from rows, the last good result per query, and the instruments that export it.

attributes      Closed attributes of a metric: undeclared values are rejected, and missing ones are filled
                with 0.
counter_resets  Counter resets: which sequence each sum continues; its start time is set at the first export.
data_times      Times of data points from a column: only the newest closed row of each series is exported,
                once.
duplicates      Duplicate series of several queries, which are omitted because the right value is unknown.
instruments     Observable instruments over the store, one per metric definition, with the times of their data
                points.
mapping         Mapping of rows to samples; rows that do not fit are rejected and counted by reason.
poll            Poll of one tick: results of all its queries, with failures as values instead of exceptions.
report          Report of a poll: tables for people, JSON for programs.
state_file      State file with the last good values of every target, which preserves them across a restart.
state_row       Row of the state file: the last good result of one query of one target, as JSON with a
                checksum.
status          Status of every query at one moment, for `poller watch`.
store           Store of each query's last good samples, by the poll's clock and the export's clock.
target_status   Status of one target at one moment, for `poller watch`.
"""
