"""Import other tools' query files.

cron_schedule      Schedules by cron in the syntax of other tools.
draft              Draft of a query that an importer has read from another tool's file.
files              Readers of other tools' YAML and TOML files, with the line of every key.
formats            Registry of the importable formats, and their detection.
justwatch          Importer for the jobs of justwatchcom's sql_exporter.
losses             Report of what an import could not convert: location, reason and alternative.
naming             Names, units, drivers and version requirements of imported queries.
node               Typed access to the data of another tool's file, with the location of each value.
parameters         Parameters of query-exporter's queries, as parameters of a query file.
pg_exporter        Importer for the collectors of pg_exporter (Vonng, pgsty).
pgwatch            Importer for pgwatch's metrics and presets, and the intervals in its sources.
postgres_exporter  Importer for postgres_exporter's custom queries (`--extend.query-path`).
query_exporter     Importer for query-exporter's configuration files.
session_settings   PostgreSQL settings in the statements with which another tool sets up its sessions.
sql_columns        Names and types of the columns of a statement, without a database.
sql_exporter       Importer for the collectors of burningalchemist's sql_exporter, and for justwatchcom's
                   jobs.
sql_names          Names in a statement: of the columns of its result, of the columns it reads, and of its
                   relations.
sql_projection     Projection query around an imported statement that adds computed columns.
sql_types          Type inference for SQL expressions from PostgreSQL's own types, functions and operators.
sqlquery           Importer for the `sqlquery` receivers of an OpenTelemetry Collector.
targets            Targets that an importer has read from another tool's files, without the secrets of their
                   connections.
telegraf           Importer for Telegraf's SQL inputs: postgresql_extensible, and sql if its driver is
                   PostgreSQL's.
validate           Validation of imported drafts, and the resulting query file.
"""
