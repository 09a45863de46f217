"""Draft queries from tables and statements.

aggregates      Write the query of each aggregate that a table can be asked for.
append          Append a query to a query file and change nothing else in it.
from_statement  Draft the query that a statement suggests: which columns are values, which attributes, in
                which units.
offers          Offer the usual aggregates of a table by what is known of its columns, or one that is asked
                for.
preview         Show a person what a statement came to: its rows, the metrics drafted of them, and what is
                doubtful.
prompt          Show a person the tables there are, and what can be asked of one.
save            Keep new queries in a file, beside those that are there.
tables          Say which tables the role may read, how large they are, and what the statistics know of their
                columns.
yaml_writer     Write a query as YAML, the way that people write it.
"""
