"""Query files to a Catalog.

conflicts       Find what is wrong between queries and between files, though each is right alone.
diff            Tell what is different between two catalogues, and what of the first still holds in the
                second.
error_messages  Put what pydantic says about a query into sentences for the one who wrote it.
file_watcher    Watch the query files, and have them read again when they changed or when somebody asks.
files           Find the query files that a setting means.
load            Read folders of YAML into one validated Catalog.
locate          Know where in its file each part of a query stands, down to a character of its SQL.
query_file      Hold one query file as read: what it says, where each part stands, and what is wrong with its
                frame.
schema          The schema of query files.
sql_ast         Read from a statement's parse tree what its result is made of.
sql_check       Say whether a text is one SQL statement that only reads, by PostgreSQL's own grammar.
sql_functions   Functions by what a READ ONLY transaction does not stop: those that act, and volatile ones
                that only read.
yaml_errors     Say what is wrong with a text as YAML, and what to write instead.
yaml_reader     YAML as data with the position of every key.
yaml_text       YAML text from data.
"""
