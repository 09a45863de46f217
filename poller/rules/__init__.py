"""Write Prometheus alerting rules: those of the poller itself, and those that queries ask for."""
