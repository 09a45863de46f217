"""Check the telemetry of a server against the metric catalogue.

conformance        Conformance check of a stream of OTLP requests against the catalogue.
impossible_values  Values that no server can have measured.
inputs             Inputs of `conform`: a receiver that listens for a limited time, or a file of OTLP/JSON
                   requests.
metrics            Comparison of data points with the metrics of the catalogue.
notes              Collection of distinct differences, each with examples and its number of occurrences.
personal_data      Detection of personal data and credentials at every place of an OTLP request.
signals            Checks of spans and log records: personal data, structure and trace context.
span_structure     Span checks of design document 005, section 4: a root span with a request id, current
                   names.
"""
