"""Generate dashboards, alerting rules and the metric catalogue.

alert_rules         Prometheus alerting rules from `alert:` in query files, and the rule file.
alert_rules_poller  Prometheus alerting rules for the poller itself: values that are missing or soon will be
                    missing.
dashboard           Grafana dashboard of the queries' metrics, with growth, projection and marks on inexact
                    values.
dashboard_poller    Grafana dashboard of the poller itself: queries, standby and exports.
grafana             Panels, dashboards and units of Grafana, built with Grafana's own builders.
metric_catalog      Metric catalogue, gauges and events, as JSON or Markdown.
promql              PromQL expressions of the dashboards.
weaver              Catalogue as a registry of OpenTelemetry Weaver, for code generation in any language.
"""
