"""Generate dashboards, alerting rules and the metric catalogue.

alert_rules         Prometheus alerting rules, those of `alert:` in query files, and the rule file.
alert_rules_poller  Make the alerting rules of the poller itself: numbers that are missing, or soon will be.
dashboard           Draw what the queries measure, with growth and projection, and marks on what is not exact.
dashboard_poller    Draw how the poller itself is doing: its queries, its replica, its deliveries.
grafana             Panels, dashboards and units of Grafana, made with Grafana's own builders.
metric_catalog      The metric catalogue, state and events, as JSON or Markdown.
promql              PromQL expressions of the dashboards.
weaver              Tell the catalogue as a registry of OpenTelemetry Weaver, which makes code of it in any
                    language.
"""
