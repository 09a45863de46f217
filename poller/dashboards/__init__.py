"""Write Grafana dashboards: one of what the queries measure, one of the poller itself."""
