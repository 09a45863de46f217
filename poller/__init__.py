"""Poll declarative SQL aggregates on a PostgreSQL read replica and push them as OpenTelemetry gauges."""
