"""The schema of query files.

alert            Schema of an alert of a metric in a query file.
boundaries       Boundaries of a histogram, and what they require of the other keys of the metric.
contradictions   Keys of a query that contradict one of its metrics.
estimate         Schema of the key `estimate` of a query, and the validation of its statements.
json_schema      JSON Schema of query files, for completion and validation in editors.
metric           Schema of a metric in a query file.
parameters       Parameters of a query: names, values, and the combinations with which its statement runs.
query            Schema of a query in a query file.
requirements     Schema of the key `requires` of a query.
schedule         Types of the keys `schedule` and `timezone` of a query.
server_settings  PostgreSQL settings that a query may change for itself, with their values.
"""
