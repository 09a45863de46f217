"""Draft queries from tables and statements.

aggregates      Query drafts for each aggregate of a table.
append          Insertion of a query into a query file that leaves the rest of the file unchanged.
from_statement  Query draft from a statement's result columns: values, attributes and units.
offers          Selection of a table's aggregates, by its column statistics or by name.
preview         Preview of a drafted query: rows, metrics and warnings.
prompt          Numbered lists of tables and of their aggregates, for the interactive prompt.
save            Storage of new queries in a query file, with checks for names that are already in use.
tables          Catalogue queries for readable tables: size, columns and column statistics.
yaml_writer     YAML writer for queries, in the style of hand-written files.
"""
