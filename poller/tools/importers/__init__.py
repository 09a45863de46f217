"""Import other tools' query files.

draft              Hold a query on its way from another tool's file into ours.
files              Open the files of other tools, YAML and TOML, with the place of every key.
formats            The formats that can be imported, and how each is recognised.
justwatch          Read the jobs of justwatchcom's sql_exporter.
losses             Tell what of a file could not be brought along, where it stands, and what to do instead.
naming             Names, drivers and version requirements of imported queries.
node               Walk through the data of another tool's file, knowing where each value stands.
pg_exporter        Read the collectors of pg_exporter (Vonng, pgsty).
pgwatch            Read pgwatch's metrics and presets, and the intervals in its sources.
postgres_exporter  Read postgres_exporter's custom queries (`--extend.query-path`).
query_exporter     Read query-exporter's configuration, its tags and parameters included.
sql_columns        Names and types of the columns of a statement, without a database.
sql_exporter       Read sql_exporter's collectors: burningalchemist's, and justwatchcom's jobs, which Debian
                   packages.
sql_projection     Put a query around another one that computes what the inner one does not say.
sql_types          Types of SQL expressions, as far as they follow from PostgreSQL's own types, functions and
                   operators.
sqlquery           Read the receivers `sqlquery` of an OpenTelemetry Collector.
telegraf           Read Telegraf's inputs that run SQL: postgresql_extensible, and sql where it speaks to
                   PostgreSQL.
validate           Imported drafts to valid queries, and the query file that is written.
"""
