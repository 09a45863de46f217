"""One package per tool around query files: check, draft, test, importers, doctor, conform, generate.

check      Check query files, with and without a database.
conform    Check the telemetry of a server against the metric catalogue.
doctor     Examine the environment that the daemon depends on.
draft      Draft queries from tables and statements.
generate   Generate dashboards, alerting rules and the metric catalogue.
grants     Least privileges that a role needs to run queries, from their parse trees and `requires`.
importers  Import other tools' query files.
test       Test queries against fixture rows.
"""
