"""Values that every package shares: queries, rows, results, diagnostics, redaction. Standard library only.

casts        Names of PostgreSQL's types that hold no number, and the expression that makes a number of each.
catalog      Hold every query of every file.
diagnostics  Hold one thing that `check` has to say: how grave, by which rule, where, and what to write
             instead.
duration     Read and write durations as people do in a query file.
errors       Name every failure raised on purpose and what each one ends.
files        Bounded reading of regular files, and replacement of a file in one step.
numbers      Read a number as PostgreSQL wrote it, exactly, or say why it is none that can be told.
otlp_limits  Parts of an endpoint and of headers that OTLP's transports cannot send.
path         A path into the data of a file: keys of mappings and indices of lists.
printable    Escapes for text that reaches a terminal or a log: nothing in it acts on the reader's screen.
prometheus   Say samples in Prometheus' text format, under the names its OTLP receiver would give them.
query        A query: its SQL, schedule, limits, requirements, metrics and their alerts.
redaction    Know every secret that came in, and keep it out of every text that goes out.
result       The result of one poll, and the state and status of a query.
rows         Keep the first rows of a result, in a stated order, and account for the rest.
secrets      Show a URL or a connection string without its secrets.
series       The identity of a series: its attributes as Prometheus compares them.
text         Say values, kinds and near misses in plain words, never longer than a line.
tick         Give every query its tick, and every tick its fixed place in the interval.
units        Say whether a text is a unit that OpenTelemetry's backends understand (UCUM, case-sensitive).
"""
