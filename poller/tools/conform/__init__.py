"""Check the telemetry of a server against the metric catalogue.

conformance        Conformance check of a stream of OTLP requests against the catalogue.
impossible_values  Impossible values of data points, such as negative counts and buckets that do not add
                   up.
listening          OTLP receiver of `conform`, which listens for a limited time or number of requests.
metrics            Comparison of data points with the metrics of the catalogue.
notes              Collection of distinct differences, each with examples and its number of occurrences.
personal_data      Detection of personal data and credentials at every place of an OTLP request.
recording          Requests from a file of the Collector's file exporter: OTLP/JSON, one object per line.
signals            Checks of spans and log records: personal data, structure and trace context.
span_structure     Span checks of design document 005, section 4: a root span with a request id, current
                   names.
"""
