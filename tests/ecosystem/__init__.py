"""The poller with a real OpenTelemetry Collector, Prometheus and VictoriaMetrics, built from Go modules."""
