"""Check query files, with and without a database.

cardinality   Check for columns with too many values for an attribute (high cardinality).
own_session   Check for values that the poller's own session distorts: its settings and its own backend.
plans         Checks of a query's plan: cost above the limit, estimate, and reads of whole tables.
result        Rules of `check`, and the result of checking one query against a server.
rules         Checks of every query against a server: validity and result columns.
search_path   Check for schemas of a query's search_path that PostgreSQL ignores: missing or not granted.
time_columns  Times of data points that a backend ignores or refuses, and buckets that are not over.
warnings      Warnings that require no database: shared series, distorted values, YAML values changed by
              parsing.
"""
