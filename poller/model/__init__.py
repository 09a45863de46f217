"""Values that every package shares, written with the standard library only.

casts           Non-numeric types of PostgreSQL, with an expression that converts each to a number.
catalog         Catalogue of all queries of all files, and the configuration: the catalogue and the targets.
database        SQLite database that one process uses: its tables, durable opening, and the detection of
                damage.
diagnostics     Diagnostic of a file, a setting or a server: severity, rule, place, subject, message and
                advice.
duration        Durations as query files write them, such as `5m` or `1h30m`.
errors          Exceptions of the poller, and the scope that each one ends.
files           Bounded reading of regular files, and atomic replacement of a file.
leader          Leadership of this process, the lock that decides it, and the lock's errors.
log_format      Log formatters: one JSON object or one line of text per record, with every extra field.
numbers         Exact numbers from PostgreSQL's text output, and the reasons why a value is not exportable.
otlp_endpoint   Resolver of the OTLP endpoint per signal: URL, protocol, and TLS or plain text.
otlp_variables  Reader of the standard OTEL_* variables: of the exporter of one signal, of the resource and of
                the SDK.
path            Path into the data of a file: keys of mappings and indices of lists.
patterns        Selection of names by patterns (`*`, `?` and `[...]`), with the patterns that match no name as
                problems.
printable       Escapes for text in a terminal or a log, so that it cannot control the terminal.
prometheus      Prometheus text format of samples, with the names that its OTLP receiver assigns.
query           Query definition: SQL, schedule, limits, requirements, metrics and their alerts.
redaction       Redaction of every known secret in output.
result          Result of one poll, and the state and status of a query.
retry           Retry pauses that double, for polls, recovery conflicts and OTLP requests.
rows            Rows of a result up to a limit, in a stated order, with the sum or count of the rest.
schedule        Schedule by cron: the values of its five fields, and the times between two runs.
secrets         Masking of URLs and connection strings, and secrets that no message shows.
series          Identity of a series: its attributes as Prometheus compares them; start times of its points.
shards          Shards: several pollers with the same targets, each of which polls a fixed part of the
                servers.
target          Target: one database that is polled, or one server whose databases are.
text            Text helpers for messages: quoted values, kinds, counts and suggestions for misspelt words.
tick            Ticks: groups of queries with one schedule, or with one interval and a fixed offset in it.
units           Validation of units (UCUM, case-sensitive), and suggestions for a correct one.
"""
