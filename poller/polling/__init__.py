"""From rows to samples, the last good result per query, and the instruments that show it.

attributes      Hold a result to the attribute values that its metric declares: no other, and 0 for each
                without a row.
counter_resets  Carry the sequence of each sum from one poll to the next, and begin another where it was
                broken.
duplicates      Find the series that two queries claim: one of them is wrong, and nobody can know which.
instruments     Observable instruments over the store: one per metric definition, read at each collection.
mapping         Rows to samples; rows that do not fit are rejected and counted by reason.
otlp_metrics    Samples as OTLP/JSON, the form that the Collector's file receiver reads.
poll            Poll: ask, map, account for every row; never raise for a query's sake.
report          Show what a poll came to: a table for people, JSON for programs.
state_file      Remember the last good values over a restart, so that a redeploy leaves no hole.
status          Say of every query how it stands at this moment: for the one who looks at a running poller.
store           Hold the last good samples of every query; the one place where the two clocks meet.
"""
