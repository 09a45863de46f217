"""Loading of query files into a Catalog.

conflicts       Validation across queries and files: duplicate names, conflicting metric definitions.
diff            Difference between two catalogues, and the queries whose state remains valid after a reload.
files           Resolution of `POLLER_QUERIES` to query files.
histogram       Histogram of a column as ordinary gauges: `_bucket` with the attribute `le`, `_sum` and
                `_count`.
load            Loader that reads query files and folders of them into one validated Catalog.
query_file      Query file as parsed YAML: its queries and their defaults, and locations in statements.
schema          The schema of query files.
sql_ast         Facts from a statement's parse tree: result columns, relations, functions, operators and
                types.
sql_check       Validation by PostgreSQL's grammar that a text is a single read-only SQL statement.
sql_functions   Functions that have side effects despite READ ONLY, and volatile functions that only read.
sql_parameters  Named parameters of a statement: `:name`, as in psql and SQLAlchemy, and the server's
                placeholders `$n`.
"""
