"""One package per tool around query files: check, draft, test, importers, doctor, conform, generate.

check      Check query files, with and without a database.
conform    Check the telemetry of a server against the metric catalogue.
doctor     Examine the environment that the daemon depends on.
draft      Draft queries from tables and statements.
generate   Generate dashboards, alerting rules and the metric catalogue.
grants     Print the least privileges that a role needs to run queries.
importers  Import other tools' query files.
test       Test queries against fixture rows.
"""
